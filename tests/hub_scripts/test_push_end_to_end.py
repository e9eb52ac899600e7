"""From training to a stranger's process: model, adapter, data set, metric and all their cards by repository id.

What the Space does is told by `test_demo_in_a_browser.py`.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel, pipeline

import modeling_lrsa  # noqa: F401  registers the task
from processing import load_posts


HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "examples" / "posts"


@pytest.fixture(scope="module")
def posts():
    rows = [json.loads(line) for line in (SAMPLE / "test.jsonl").read_text().splitlines()[:4]]
    rows[0]["image"] = None
    kept = ("text", "image", "image_rationale", "text_rationale", "aspects")
    rows = [{name: row[name] for name in kept} for row in rows]
    return [row | {"image": row["image"] and str(SAMPLE / "images" / row["image"])} for row in rows]


@pytest.fixture(scope="module")
def vision_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision_model")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(lrsa, text_folder, vision_folder, tmp_path_factory):
    """Two steps on the sample posts, with and without LoRA, with a model for pictures."""
    folder = tmp_path_factory.mktemp("runs")
    flags = [
        "--data",
        SAMPLE,
        "--text_model",
        text_folder,
        "--vision_model",
        vision_folder,
        "--num_fusion_layers",
        "1",
    ]
    flags += ["--decoder_layers", "1", "--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no"]
    flags += ["--load_best_model_at_end", "false"]
    for name, extra in (("full", ()), ("lora", ("--lora", "true"))):
        done = lrsa("train", *flags, *extra, "--output_dir", folder / name)
        assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def used(running_hub, lrsa, runs, posts, tmp_path_factory):
    """What a process without this package and without cache or token made of what was pushed."""

    def push(*argv, repo, kind="models") -> str:
        assert (done := lrsa("push", *argv)).code == 0, done.err
        return running_hub.commits(f"someone/{repo}", kind)[0]["oid"]

    first = push(runs / "full", "model", repo="model")
    push(runs / "lora", "model", "--space", "try-it", "--trained-on", "someone/posts", repo="model")
    adapter = push(runs / "lora" / "adapter", "adapter", "--base", "base", repo="adapter")
    push("--dataset", SAMPLE, "posts", "--license", "apache-2.0", repo="posts", kind="datasets")
    push("--metric", "mabsa_metric", repo="mabsa_metric", kind="spaces")
    gold = [[{"start": 0, "end": 3, "polarity": "positive"}]]
    asked = {
        "latest": {"what": "model", "repo": "someone/model", "posts": posts},
        "pinned": {"what": "model", "repo": "someone/model", "posts": posts, "revision": first},
        "adapter": {"what": "adapter", "repo": "someone/adapter", "posts": posts, "commit": adapter},
        "rows": {"what": "dataset", "repo": "someone/posts"},
        "model_card": {"what": "card", "repo": "someone/model", "kind": "model"},
        "adapter_card": {"what": "card", "repo": "someone/adapter", "kind": "model"},
        "dataset_card": {"what": "card", "repo": "someone/posts", "kind": "dataset"},
        "metric_card": {"what": "card", "repo": "someone/mabsa_metric", "kind": "space"},
        "space_card": {"what": "card", "repo": "someone/try-it", "kind": "space"},
        "scores": {"what": "metric", "repo": "someone/mabsa_metric", "predictions": gold, "references": gold},
    }
    place = tmp_path_factory.mktemp("clean")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
    done = subprocess.run(
        [sys.executable, HERE / "clean_consumer.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=place,
        env=environment | running_hub.environment(place / "home", token=None) | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def local(folder: Path, posts: list[dict]) -> dict[str, list[list[dict]]]:
    pipe = pipeline("mabsa", model=str(folder), device="cpu")
    return {"joint": [pipe(post) for post in posts], "masc": [pipe(post, task="masc") for post in posts]}


def assert_same(found: list[list[dict]], wanted: list[list[dict]]):
    for aspects, expected in zip(found, wanted, strict=True):
        scores = [aspect["score"] for aspect in aspects]
        assert scores == pytest.approx([aspect["score"] for aspect in expected], rel=0, abs=1e-6)
        assert [{**a, "score": None} for a in aspects] == [{**a, "score": None} for a in expected]


@pytest.mark.slow
def test_models_predict_as_here(used, runs, posts):
    for name, run in (("pinned", "full"), ("latest", "lora")):
        wanted = local(runs / run / "model", posts)
        assert all(wanted["masc"])
        assert_same(used[name]["model"], wanted["joint"])
        assert_same(used[name]["pipeline"], wanted["joint"])
        assert_same(used[name]["masc"], wanted["masc"])
        assert all(module.startswith("transformers_modules.someone.model.") for module in used[name]["modules"])
    assert used["pinned"]["masc"] != used["latest"]["masc"], "the revision counts"
    assert set(used["pinned"]["modules"]) & set(used["latest"]["modules"]) == set()


@pytest.mark.slow
def test_an_adapter_predicts_as_the_merged_model(used, runs, posts):
    wanted = local(runs / "lora" / "model", posts)
    for name in ("model", "pinned", "pipeline"):
        assert_same(used["adapter"][name], wanted["joint"])
    assert_same(used["adapter"]["masc"], wanted["masc"])


@pytest.mark.slow
def test_rows_and_scores_are_those_from_here(used):
    rows = used["rows"]["rows"]
    for split, posts in load_posts(SAMPLE).items():
        sizes = [list(image.size) for image in posts["image"]]
        names = [name for name in posts.column_names if not name.startswith("image") or name == "image_rationale"]
        assert [{name: row[name] for name in names} for row in rows[split]] == posts.select_columns(names).to_list()
        assert [row["image"] for row in rows[split]] == sizes
    assert used["rows"]["image"] == "Image"
    assert used["scores"] == {"jmasa_precision": 100.0, "jmasa_recall": 100.0, "jmasa_f1": 100.0}


@pytest.mark.slow
def test_the_code_of_each_card_runs_as_it_stands(used, runs):
    pipe = pipeline("mabsa", model=str(runs / "lora" / "model"), device="cpu")
    wanted = pipe("The new menu at Blue Kettle is a joy")
    for name in ("model_card", "adapter_card"):
        printed = used[name]["printed"]
        assert len(printed) == 3
        assert_same([ast.literal_eval(printed[0])], [wanted])
        assert len(ast.literal_eval(printed[2])) == 2
    assert [len(used[name]["printed"]) for name in ("dataset_card", "metric_card", "space_card")] == [1, 1, 0]
    assert ast.literal_eval(used["metric_card"]["printed"][0])["jmasa_f1"] == 100
    data = used["model_card"]["data"]
    assert data["datasets"] == ["someone/posts"] and data["pipeline_tag"] == "token-classification"
    shown = data["widget"][0]["output"]
    assert shown == [
        {"label": f"{one['aspect']}: {one['polarity']}", "score": round(one["score"], 2)} for one in wanted
    ] or (shown == {"text": "no aspect"} and not wanted)
    assert used["adapter_card"]["data"]["base_model"] == "someone/base"
    assert used["space_card"]["data"]["models"] == ["someone/model"]
