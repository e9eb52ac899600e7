"""The metric's Space: `evaluate.load` reads its folder, its app scores."""

import importlib.util
import json
import sys

import evaluate
import pytest
import yaml

from hub_scripts.push_metric import metric_publication
from processing import PostError, compute_mabsa_metrics


GOLD = [[{"start": 0, "end": 3, "polarity": "positive"}], [{"start": 4, "end": 9, "polarity": "negative"}]]
FOUND = [[{"start": 0, "end": 3, "polarity": "positive"}], [{"start": 4, "end": 9, "polarity": "neutral"}]]


@pytest.fixture
def space(tmp_path):
    """The files of the Space in a folder of the repository's name."""
    folder = tmp_path / "their_metric"
    folder.mkdir()
    for path, file in metric_publication("someone/their_metric", "apache-2.0").files.items():
        (folder / path).write_bytes(file if isinstance(file, bytes) else file.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["metrics", "app", "lrsa.metric", "1st"])
def test_names_that_no_module_may_have(name):
    with pytest.raises(PostError, match=f"someone/{name}: `evaluate` imports a module '{name}'"):
        metric_publication(f"someone/{name}", "apache-2.0")


@pytest.mark.parametrize("task", ["jmasa", "mate", "masc"])
def test_evaluate_loads_it_from_its_folder(space, task):
    metric = evaluate.load(str(space), task)
    scores = metric.compute(predictions=FOUND, references=GOLD)
    wanted = compute_mabsa_metrics(FOUND, GOLD)
    assert scores == {name: value for name, value in wanted.items() if name.startswith(task)}
    assert "\nfrom .metrics import compute_mabsa_metrics\n" in (space / "their_metric.py").read_text()


def test_front_matter_and_requirements(space):
    front = yaml.safe_load((space / "README.md").read_text().split("---\n")[1])
    assert (front["sdk"], front["app_file"], front["license"]) == ("gradio", "app.py", "apache-2.0")
    assert {"evaluate", "metric"} <= set(front["tags"])
    needed = (space / "requirements.txt").read_text().split()
    assert [line.partition(">")[0] for line in needed] == ["datasets", "evaluate", "scikit-learn"]


def test_the_example_of_its_card_runs(space, capsys):
    code = (space / "README.md").read_text().split("```python\n")[1].partition("```")[0]
    exec(code.replace('"someone/their_metric"', repr(str(space))), {})
    assert eval(capsys.readouterr().out) == {"jmasa_precision": 100.0, "jmasa_recall": 100.0, "jmasa_f1": 100.0}


def test_the_app_scores(space, monkeypatch):
    gradio = pytest.importorskip("gradio", reason="needs gradio")
    monkeypatch.syspath_prepend(space)
    monkeypatch.delitem(sys.modules, "metrics", raising=False)
    spec = importlib.util.spec_from_file_location("app", space / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    assert app.score(json.dumps(FOUND), json.dumps(GOLD)) == compute_mabsa_metrics(FOUND, GOLD)
    for bad in ("", "[1]", "[[]]", '{"start": 1}', '[[{"end": 1}], []]'):
        with pytest.raises(gradio.Error):
            app.score(bad, json.dumps(GOLD))
