"""`lrsa train --model`: a trained model goes on, and a baseline gets fusion on top."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from hub_scripts.cli import main
from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.frozen_states import collator_for
from modeling_lrsa.loading import load_model
from modeling_lrsa.model_card import read_record
from modeling_lrsa.predictor import prepare_for_model
from modeling_lrsa.soft_targets import add_teachers
from modeling_lrsa.training_posts import DataArguments, load_split


@pytest.fixture(scope="module")
def baseline(text_folder, posts_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline")
    command = ["train", "--text_model", str(text_folder), "--data", str(posts_folder), "--output_dir", str(folder)]
    options = {"num_fusion_layers": 0, "decoder_layers": 1, "num_train_epochs": 30, "learning_rate": 0.01, "seed": 7}
    assert main([*command, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]) == 0
    return folder / "model"


def go_on(model, posts_folder, output, *options):
    return main(
        ["train", "--model", str(model), "--data", str(posts_folder), "--output_dir", str(output), *options]
    )  # fmt: skip


def test_fusion_on_top_of_a_baseline_starts_from_it(baseline, posts_folder, tmp_path):
    no_steps = ["--max_steps", "1", "--learning_rate", "0", "--new_parts_learning_rate", "0"]
    options = ["--num_fusion_layers", "2", "--max_rationale_length", "9", "--fusion_learning_rate", "0", *no_steps]
    assert go_on(baseline, posts_folder, tmp_path / "out", *options) == 0
    scores = json.loads((tmp_path / "out" / "results.json").read_text())["validation"]
    assert main(["evaluate", str(baseline), str(posts_folder), "--output", str(tmp_path / "scores.json")]) == 0
    assert scores["jmasa_f1"] > 20
    assert scores == json.loads((tmp_path / "scores.json").read_text())
    before, after = (load_file(folder / "model.safetensors") for folder in (baseline, tmp_path / "out" / "model"))
    assert set(before) < set(after)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    processor = json.loads((tmp_path / "out" / "model" / "processor_config.json").read_text())
    assert processor["max_rationale_length"] == 9


def test_its_fusion_learns(baseline, posts_folder, tmp_path):
    options = ["--num_fusion_layers", "1", "--max_steps", "2", "--warmup_steps", "0"]
    assert go_on(baseline, posts_folder, tmp_path / "out", *options) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["gates"] and all(results["gates"].values())
    model = LRSAForMABSA.from_pretrained(tmp_path / "out" / "model")
    assert model.config.num_fusion_layers == 1


def test_scores_of_the_model_before_do_not_stay(baseline, posts_folder, tmp_path):
    out = tmp_path / "out"
    assert go_on(baseline, posts_folder, out, "--max_steps", "1") == 0
    assert main(["evaluate", str(out / "model"), str(posts_folder), "--output", str(out / "test_results.json")]) == 0
    assert "test" in read_record(out / "model")
    assert go_on(baseline, posts_folder, out, "--max_steps", "1") == 0
    assert "test" not in read_record(out / "model")


def test_a_record_names_the_parts_that_a_model_has(baseline, posts_folder, tmp_path):
    parts = ["--text_model", "elsewhere", "--vision_model", "elsewhere"]  # of a recipe, say
    assert go_on(baseline, posts_folder, tmp_path / "out", "--max_steps", "1", *parts) == 0
    arguments = json.loads((tmp_path / "out" / "results.json").read_text())["arguments"]
    assert arguments == {"model": baseline.name, "max_steps": 1}


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        ("baseline", ["--decoder_layers", "3"], "decoder_layers: {} was trained with 1,"),
        ("baseline", ["--num_graph_layers", "2"], "num_graph_layers: {} was trained with 0,"),
        ("fused", ["--num_fusion_layers", "2"], "num_fusion_layers: {} was trained with 1,"),
        ("fused", ["--rationale_encoder", "shared"], "rationale_encoder: {} was trained with 'frozen',"),
    ],
)
def test_what_the_weights_fix_is_refused(start, options, message, baseline, run_folder, posts_folder, tmp_path, capfd):
    model = {"baseline": baseline, "fused": run_folder / "model"}[start]
    assert go_on(model, posts_folder, tmp_path / "out", *options) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error == f"lrsa train: {message.format(model)} and its weights fit no other value: leave it out."
    assert not (tmp_path / "out" / "model").exists()


def test_what_is_as_it_was_may_be_said_again(run_folder, posts_folder, tmp_path):
    options = ["--num_fusion_layers", "1", "--decoder_layers", "1", "--num_train_epochs", "1"]
    assert go_on(run_folder / "model", posts_folder, tmp_path / "out", *options) == 0


def test_training_sees_the_rationales_that_are_asked_for(posts_folder):
    def texts(split, **fields):
        return load_split(DataArguments(data=str(posts_folder), **fields), split)["text_rationale"]

    given = texts("train")
    assert given[::2] == ["It is about Riverbend Hall"] * 2 and given[1::2] == [None] * 2
    assert texts("train", rationales="image") == texts("train", rationales="none") == [None] * 4
    assert texts("validation", rationales="text", shuffle_rationales=1) == given  # the other's says the same


def test_a_student_learns_from_a_teacher(run_folder, text_folder, posts_folder, tmp_path, capfd):
    """The teacher reads rationales, the student none; with the teacher alone to learn from, labels leave no trace."""
    teacher = run_folder / "model"
    options = {"num_fusion_layers": 0, "decoder_layers": 1, "num_train_epochs": 40, "learning_rate": 0.01, "seed": 7}
    options |= {
        "text_model": text_folder,
        "data": posts_folder,
        "save_strategy": "no",
        "load_best_model_at_end": False,
    }
    divergences = []
    for weight in (0.0, 1.0):
        output = tmp_path / str(weight)
        flags = options | {"teacher": teacher, "distillation_weight": weight, "output_dir": output}
        assert main(["train", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]) == 0
        model, processor = load_model(str(output / "model"))
        posts = load_split(DataArguments(data=str(posts_folder)), "train")
        assert model.config.num_fusion_layers == 0
        data = add_teachers(prepare_for_model(model, processor, posts), posts, [str(teacher)])
        batch = collator_for(model, processor)(data.to_list())
        wanted = batch.pop("teacher_probabilities")
        with torch.no_grad():
            found = model(**batch).logits
        divergences.append((torch.xlogy(wanted, wanted) - wanted * found.log_softmax(-1)).sum().item())
    assert divergences[1] < 0.2 * divergences[0]
    command = ["train", "--text_model", str(text_folder), "--data", str(posts_folder), "--output_dir", str(tmp_path)]
    assert main([*command, "--teacher", str(text_folder)]) == 2
    assert f"lrsa train: {text_folder}: no LRSA model with its processor" in capfd.readouterr().err


def test_unlabelled_posts_get_their_labels_from_the_teacher(baseline, text_folder, posts_folder, tmp_path, capfd):
    """As if what the teacher predicts had stood in the train file."""
    rows = [json.loads(line) for line in (posts_folder / "train.jsonl").read_text().splitlines()]
    given, labelled = tmp_path / "more.jsonl", tmp_path / "labelled"
    more = [row | {"id": f"more{index}", "aspects": []} for index, row in enumerate(rows)]
    given.write_text("".join(json.dumps(row) + "\n" for row in more))
    teacher = str(baseline)
    assert main(["predict", teacher, str(given), "--output", str(tmp_path / "told.jsonl")]) == 0
    told = {row["id"]: row["aspects"] for row in map(json.loads, (tmp_path / "told.jsonl").read_text().splitlines())}
    found = [
        row | {"aspects": [{name: one[name] for name in ("start", "end", "polarity")} for one in told[row["id"]]]}
        for row in more
        if told[row["id"]]
    ]
    assert found
    shutil.copytree(posts_folder, labelled)
    (labelled / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + found))
    options = {"text_model": text_folder, "num_fusion_layers": 0, "decoder_layers": 1, "num_train_epochs": 3}
    options |= {"seed": 7, "teacher": teacher}

    def student(output, **flags):
        flags = options | flags | {"output_dir": tmp_path / output}
        assert main(["train", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]) == 0
        return load_file(tmp_path / output / "model" / "model.safetensors")

    first, second = student("one", data=posts_folder, unlabelled=given), student("two", data=labelled)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)  # the teacher is asked in other batches
    record = json.loads((tmp_path / "one" / "results.json").read_text())
    assert record["data"]["unlabelled 1"]["posts"] == 4 and record["data"]["train"]["posts"] == 4
    assert record["arguments"]["unlabelled"] is True and record["arguments"]["teachers"] == 1
    command = ["train", "--text_model", str(text_folder), "--data", str(posts_folder), "--output_dir", str(tmp_path)]
    capfd.readouterr()
    for flags, problem in (
        ((given,), "unlabelled: nobody tells the aspects of these posts; give a teacher, or leave them out."),
        ((posts_folder, "--teacher", teacher), f"unlabelled: {posts_folder} is a folder; name the files of posts"),
    ):
        assert main([*command, "--unlabelled", *map(str, flags)]) == 2
        assert problem in capfd.readouterr().err
