"""What the README shows runs."""

import re
from pathlib import Path


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PIPELINE, PREDICTION, BATCH, _, REMOTE = re.findall(r"```python\n(.*?)```", README, re.S)
TEXT = "The new menu at Blue Kettle is a joy"


def run(example: str, run_folder: Path, capsys):
    example = re.sub("runs/quickstart/model|someone/their-model", str(run_folder / "model"), example)
    exec(compile(example, "README.md", "exec"), {})
    return eval(capsys.readouterr().out)


def test_pipeline_example(run_folder, capsys):
    assert TEXT in PIPELINE
    for aspect in run(PIPELINE, run_folder, capsys):
        assert TEXT[aspect["start"] : aspect["end"]] == aspect["aspect"]


def test_batch_example(run_folder, capsys):
    assert TEXT in BATCH
    assert len(run(BATCH, run_folder, capsys)) == 2


def test_example_with_code_of_the_repository(run_folder, capsys):
    assert TEXT in REMOTE
    assert isinstance(run(REMOTE, run_folder, capsys), list)


def test_prediction_shown_has_the_fields_of_a_prediction():
    (prediction,) = eval(PREDICTION)
    assert list(prediction) == ["aspect", "polarity", "score", "start", "end"]
    assert TEXT[prediction["start"] : prediction["end"]] == prediction["aspect"]


def test_files_that_it_names_are_there():
    names = re.findall(r"\]\((?!http)([^)#]+)\)", README) + re.findall(r"examples/recipes/\S+?\.yaml", README)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
