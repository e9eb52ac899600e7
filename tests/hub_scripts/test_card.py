"""The card of a model: against a pattern, the Hub's rules, and the model itself."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hub_scripts.card import Told, model_card
from hub_scripts.push_dataset import dataset_publication
from hub_scripts.push_metric import metric_publication
from hub_scripts.space_folder import space_files
from modeling_lrsa.model_card import EXAMPLE_POSTS, read_record, render_card
from processing import PostError


ROOT = Path(__file__).parents[2]
NUMBER = r"\d+\.\d\d"
PATTERN = rf"""---
.*?
---

# model

<!-- Written by lrsa, .*? -->

Finds the \*\*aspects\*\* .*? \[LRSA\]\(.*?2505\.14499\) .*? \[Try it in the browser\]\(.*?/spaces/someone/space\)\.

## Use

```python
from transformers import pipeline

pipe = pipeline\("mabsa", model="someone/model", trust_remote_code=True\)
print\(pipe\("The new menu at Blue Kettle is a joy"\)\)
```
.*?
### Examples

What the model finds in posts without picture and rationales:

\| post \| found \|
\|---\|---\|
(\| [^|\n]+ \| [^|\n]+ \|
){{3}}
## What it is for, and what not

For .*?

Not for .*?

## What it is made of

\| \| \|
\|---\|---\|
\| Text model \| `bert` \|
\| Vision model \| none: it reads no pictures \|
\| Fusion \| dual cross-attention inside the text encoder, layers: 1 \|
.*?
\| Parameters \| [\d,]+, of which [\d,]+ were trained \|

## Training

Trained on the posts of \*\w+\* \(\[someone/posts\]\(.*?/datasets/someone/posts\)\); the weights .*?\.

\| split \| posts \| pictures \| text rationales \| image rationales \| SHA-256 of the file \|
\|---\|---\|---\|---\|---\|---\|
\| train \| 4 \| 0 \| 2 \| 0 \| `[0-9a-f]{{16}}…` \|
\| validation \| 4 \| 0 \| 2 \| 0 \| `[0-9a-f]{{16}}…` \|

Where the rationales came from:

\| split \| kind \| number \| model \| prompt \| settings \| dates \|
\|---\|---\|---\|---\|---\|---\|---\|
\| train \| text rationale \| 2 \| not recorded \| .*?

Rationales made by a large language model can be wrong, .*?

Settings that differ from the defaults of `lrsa train`: `decoder_layers=1`, .*?\. Seed 7\.

## Evaluation

In percent\. .*? One training run\.

\| split \| .*? \|
\|(---\|){{10}}
\| validation (\| {NUMBER} ){{9}}\|

Where weights are chosen by the validation split, its figures are a little too good\.

### Over seeds, and against the baseline

No benchmark with these settings on these posts is at hand, .*?

## Limits and risks

- \*\*Irony\.\*\* .*?
- \*\*Bias\.\*\* .*?
- \*\*Rationales\.\*\* .*?
- \*\*Licences\.\*\* The weights are published under `apache-2\.0`\. .*?

## Time and energy

Training took \d+ seconds by the clock \(.+, \d+ threads\)\. The energy was not measured\.

## Citation

```bibtex
@misc\{{.*?eprint = \{{2505\.14499\}},.*?\}}
```

.*?

## Versions

python \d.*?, torch \d.*?, transformers 5\..*?
"""


@pytest.fixture(scope="module")
def rules():
    spec = importlib.util.spec_from_file_location("card_rules", ROOT / "tests" / "card_rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card(run_folder):
    told = Told("apache-2.0", "someone/posts", "someone/space", ("en",))
    return model_card(run_folder / "model", "someone/model", told)


@pytest.fixture
def run(run_folder, tmp_path):
    """A copy of what `lrsa train` wrote, to be changed."""
    return Path(shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*")))


def test_a_card_is_as_the_pattern(card):
    assert re.fullmatch(PATTERN, card, re.DOTALL), card
    assert (
        "{{" not in card and "{%" not in card and "\n\n\n" not in card and "None" not in card.replace("None were", "")
    )
    assert "1 layers" not in card


def test_front_matter_tells_what_the_results_tell(card, run_folder):
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "token-classification",
        "apache-2.0",
    )
    assert data.datasets == ["someone/posts"] and data.tags[-1] == "en" and data.base_model is None
    assert data.metrics == ["f1", "precision", "recall", "accuracy"]
    results = json.loads((run_folder / "results.json").read_text())["validation"]
    found = {one.metric_name: one.metric_value for one in data.eval_results}
    assert found["JMASA F1"] == round(results["jmasa_f1"], 2) and found["MASC accuracy"] == round(
        results["masc_accuracy"], 2
    )
    assert {(one.dataset_type, one.dataset_split) for one in data.eval_results} == {("someone/posts", "validation")}
    assert data.model_name == "model" and [one["text"] for one in data.widget] == list(EXAMPLE_POSTS)


def test_the_hub_takes_all_cards(card, rules, posts_folder, tmp_path):
    (tmp_path / "work").mkdir()
    dataset, _ = dataset_publication(posts_folder, "someone/posts", tmp_path / "work", license="apache-2.0")
    cards = {
        "model": [card],
        "dataset": [dataset.files["README.md"].decode()],
        "space": [
            space_files("someone/model")["README.md"].decode(),
            metric_publication("someone/metric", "apache-2.0").files["README.md"].decode(),
        ],
    }
    for kind, texts in cards.items():
        for text in texts:
            assert list(rules.problems(text, kind)) == [] and rules.front_matter(text)


@pytest.mark.parametrize(
    ("front", "told"),
    [
        ("pipeline_tag: mabsa", "\"pipeline_tag\": 'mabsa' is none"),
        ("license: Apache 2", "\"license\": 'Apache 2' is none"),
        ("datasets: [a/b/c]", "\"datasets\": 'a/b/c' is no id"),
        ("tags: [1]", '"tags" must be'),
        ("widget: [{text: a, output: 3}]", '"widget": output'),
        ("model-index: [{name: m, results: [{task: {type: x}}]}]", '"model-index": '),
        ("a: [", "while parsing"),
    ],
)
def test_the_rules_find_faults(rules, front, told):
    (problem,) = rules.problems(f"---\n{front}\n---\n", "model")
    assert told in problem


def test_examples_are_what_the_model_finds(picture_model, tmp_path):
    from transformers import pipeline

    folder = shutil.copytree(picture_model, tmp_path / "model")
    text = model_card(Path(folder), "someone/model")
    pipe = pipeline("mabsa", model=str(folder), device="cpu")
    for post, shown in zip(EXAMPLE_POSTS, ModelCard(text).data.widget, strict=True):
        found = pipe(post)
        wanted = [{"label": f"{a['aspect']}: {a['polarity']}", "score": round(a["score"], 2)} for a in found]
        assert shown == {"text": post, "output": wanted or {"text": "no aspect"}}
        told = ", ".join(f"{a['aspect']}: {a['polarity']} ({a['score']:.2f})" for a in found)
        assert f"| {post} | {told or 'no aspect'} |\n" in text
    assert "from PIL import Image" in text and "No licence is named" in text
    for absent in (
        "What it was trained on was not recorded.",
        "No score of these weights is recorded.",
        "Not recorded.",
    ):
        assert absent in text
    assert "model-index" not in text and "How long training took was not recorded." in text


def test_code_of_the_card_runs(card, run_folder, capsys):
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 3 and card.count("```") == 8, "no other block but the citation"
    names: dict = {}
    for block in blocks:
        exec(block.replace("someone/model", str(run_folder / "model")), names)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert isinstance(eval(first), list) and len(eval(last)) == 2


def test_a_baseline_is_called_one(run, rules):
    config = json.loads((run / "model" / "config.json").read_text())
    config["text_config"]["_name_or_path"] = "embedded/minilm-l6"
    (run / "model" / "config.json").write_text(json.dumps(config | {"num_fusion_layers": 0}))
    text = render_card(run / "model", "someone/model")
    assert "A baseline of [LRSA]" in text and "text_rationale" not in text and "reads no rationales" in text
    assert ModelCard(text).data.base_model == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert "None were computed for this card." in text and list(rules.problems(text, "model")) == []


def test_an_adapter_and_its_base(run, rules):
    text = render_card(run / "model", "someone/adapter", base="someone/base")
    assert "This is an adapter: it needs [someone/base]" in text and ModelCard(text).data.base_model == "someone/base"
    text = render_card(run / "model", "someone/base", adapter="someone/adapter", record={})
    assert "**Untrained:** it is the base of the adapter [someone/adapter]" in text and "random numbers" in text


def test_test_scores_and_energy_are_told_where_they_lie_beside_it(run, rules):
    scores = json.loads((run / "results.json").read_text())["validation"] | {"jmasa_f1": 51.5}
    (run / "test_results.json").write_text(json.dumps(scores))
    with open(run / "emissions.csv", "w", newline="") as file:
        rows = [{"run_id": "a", "emissions": 0.5}, {"run_id": "b", "emissions": 0.0123}]
        csv.DictWriter(file, ["run_id", "emissions"]).writerows(
            [{"run_id": "run_id", "emissions": "emissions"}, *rows]
        )
    text = render_card(run / "model", "someone/model")
    assert re.search(rf"\| test (\| {NUMBER} ){{2}}\| 51\.50 \|", text)
    data = ModelCard(text).data
    assert {one.dataset_split for one in data.eval_results} == {"validation", "test"}
    assert data.co2_eq_emissions == {"emissions": 12.3, "source": "codecarbon"}
    assert "CodeCarbon estimates 12.3 g of CO2 equivalents" in text and list(rules.problems(text, "model")) == []


def test_a_name_that_would_break_the_table(run, rules):
    record = read_record(run / "model")
    record["data"]["name"] = "my | <b>posts</b>\nof today"
    record["data"]["train"]["sources"]["text_rationale"][0]["model"] = "a|model"
    text = render_card(run / "model", "someone/model", record=record)
    assert r"*my \| &lt;b>posts&lt;/b> of today*" in text and r"| a\|model |" in text
    assert list(rules.problems(text, "model")) == []


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_results_are_told(run, content):
    (run / "results.json").write_text(content)
    with pytest.raises(PostError, match=r"results\.json: .* make it anew or remove it"):
        render_card(run / "model", "someone/model")


def test_what_a_benchmark_found_is_shown(run, rules):
    record = read_record(run / "model")
    text = render_card(run / "model", "someone/model", record=record, benchmark="| TABLE |", caveats="*CAVEAT*")
    assert "### Over seeds, and against the baseline\n\n| TABLE |\n\n## Limits" in text and "\n\n*CAVEAT*\n\n" in text
    assert "No benchmark with" not in text and "\n\n\n" not in text


@pytest.mark.slow
def test_an_installed_package_holds_the_template(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    source = shutil.copytree(
        ROOT, tmp_path / "source", symlinks=True, ignore=shutil.ignore_patterns(".*", "runs", "shared")
    )
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "wheel", "zip")
    template = tmp_path / "wheel" / "modeling_lrsa" / "model_card.md"
    assert template.read_text() == (ROOT / "model_card.md").read_text() and not template.is_symlink()
    for name in ("hub_scripts/handler.py", "hub_scripts/space/app.py", "hub_scripts/metric_space/app.py"):
        assert (tmp_path / "wheel" / name).is_file()
