"""The command line: what it writes, and one clear line with exit code 2 for bad input."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hub_scripts.cli import COMMANDS, main
from modeling_lrsa.chunk_predictor import TASKS
from modeling_lrsa.training import newest_whole_checkpoint


def test_train_writes_model_and_results(run_folder):
    results = json.loads((run_folder / "results.json").read_text())
    assert len(results["curve"]) == 2, "the flag --num_train_epochs goes before the recipe's"
    assert results["seed"] == 7
    assert 0 <= results["validation"]["jmasa_f1"] <= 100
    names = {path.name for path in (run_folder / "model").iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= names
    assert {"modeling_lrsa.py", "processing_lrsa.py", "pipeline_lrsa.py"} <= names
    assert json.loads((run_folder / "model" / "config.json").read_text())["custom_pipelines"].keys() == {"mabsa"}
    assert not [path for path in run_folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--rationales", "image", "--shuffle_rationales", "3"], None),
        (["--fusion_position", "input"], "rationale_encoder='frozen' must be 'embeddings'."),
    ],
)
def test_train_with_other_inputs(options, message, text_folder, posts_folder, tmp_path, capfd):
    start = ["train", "--text_model", str(text_folder), "--data", str(posts_folder), "--output_dir", str(tmp_path)]
    code = main([*start, "--max_steps", "1", "--decoder_layers", "1", *options])
    error = capfd.readouterr().err.strip().splitlines()
    assert code == (0 if message is None else 2)
    if message is not None:
        assert error[-1].startswith("lrsa train: ") and error[-1].endswith(message)


def test_evaluate_prints_and_writes_scores(run_folder, posts_folder, tmp_path, capsys):
    output = tmp_path / "scores.json"
    assert main(["evaluate", str(run_folder / "model"), str(posts_folder), "--output", str(output)]) == 0
    scores = json.loads(output.read_text())
    assert scores["masc_matched"] == 100, "MASC is asked about every gold span"
    assert f"{scores['mate_f1']:9.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("task", TASKS)
def test_predict_keeps_order_and_units(task, run_folder, posts_folder, tmp_path):
    output = tmp_path / "predictions.jsonl"
    posts = posts_folder / "test.jsonl"
    command = ["predict", str(run_folder / "model"), str(posts), "--task", task, "--output", str(output)]
    assert main([*command, "--batch-size", "2"]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    given = [json.loads(line) for line in posts.read_text().splitlines()]
    assert [row["id"] for row in rows] == [post["id"] for post in given]
    for row, post in zip(rows, given):
        for aspect in row["aspects"]:
            assert post["text"][aspect["start"] : aspect["end"]] == aspect["aspect"]
            assert ("polarity" in aspect) == (task != "mate")
            assert 0 <= aspect["score"] <= 1
        if task == "masc":
            assert [(a["start"], a["end"]) for a in row["aspects"]] == [
                (a["start"], a["end"]) for a in post["aspects"]
            ]


def test_predict_one_post(run_folder, capsys):
    command = [
        "predict",
        str(run_folder / "model"),
        "--text",
        "Great gig at Riverbend Hall",
        "--text-rationale",
        "It is",
    ]
    assert main(command) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(row["aspects"], list)


@pytest.fixture
def bad_posts(tmp_path):
    good = {"text": "Great gig at Riverbend Hall", "aspects": [{"start": 13, "end": 27, "polarity": "positive"}]}

    def write(content):
        path = tmp_path / "bad.jsonl"
        if isinstance(content, dict):
            content = (json.dumps(good) + "\n" + json.dumps(good | content) + "\n").encode()
        path.write_bytes(content)
        return path

    return write


BAD = {
    "no text": ({"text": None}, ":2: text: "),
    "aspect outside": ({"aspects": [{"start": 13, "end": 99, "polarity": "positive"}]}, ":2: aspects[0]: "),
    "missing field": ({"aspects": [{"start": 13, "polarity": "positive"}]}, ":2: aspects[0].end: "),
    "unknown polarity": ({"aspects": [{"start": 13, "end": 27, "polarity": "great"}]}, ":2: aspects[0].polarity: "),
    "overlap": (
        {"aspects": [{"start": 0, "end": 9, "polarity": "positive"}, {"start": 6, "end": 9, "polarity": "neutral"}]},
        ":2: aspects: ",
    ),
    "long text": ({"text": "a" * 100_000, "aspects": []}, ":2: text: "),
    "no JSON": (b'{"text": "fine"}\n{"text": "torn', ":2: "),
    "empty": (b"", ": "),
    "no UTF-8": ('{"text": "Zoë"}\n'.encode("latin-1"), ":1: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_posts_are_one_line_and_exit_2(name, run_folder, bad_posts, tmp_path, capfd):
    content, place = BAD[name]
    path, output = bad_posts(content), tmp_path / "predictions.jsonl"
    assert main(["predict", str(run_folder / "model"), str(path), "--output", str(output)]) == 2
    message = capfd.readouterr().err.strip().splitlines()
    assert len(message) == 1 and message[0].startswith(f"lrsa predict: {path}{place}")
    assert not output.exists() and sorted(tmp_path.iterdir()) == [path]


PICTURES = {"1x1": (1, 1), "20000x20000": (20_000, 20_000), "truncated": None}


@pytest.mark.parametrize("name", PICTURES)
def test_bad_pictures_stop_or_are_skipped(name, run_folder, bad_posts, tmp_path, capfd, caplog):
    picture = tmp_path / "images" / "bad.png"
    picture.parent.mkdir()
    Image.new("1", PICTURES[name] or (64, 64)).save(picture)
    if PICTURES[name] is None:
        Image.effect_noise((64, 64), 50).save(picture)
        picture.write_bytes(picture.read_bytes()[:1000])
    path = bad_posts({"image": "bad.png"})
    command = ["predict", str(run_folder / "model"), str(path)]
    assert main(command) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"lrsa predict: {path}:2: image: ") and "--on-bad-image skip" in error
    assert main([*command, "--on-bad-image", "skip"]) == 0
    assert f"{path}:2: image: " in caplog.text
    assert len(capfd.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rat: 1\n", "learning_rat is no argument"),
        ("- 1\n", "a mapping"),
        ("a: [1\n", ":2: neither YAML nor JSON"),
        ("num_fusion_layers: 9\n", "num_fusion_layers=9"),
        ("text_model: embedded/nothing\n", "embedded/nothing is unknown"),
        ("text_model: /no/such/folder\n", "can't be loaded"),
        ("data: /no/such/folder\n", "/no/such/folder: no such folder"),
        ("fusion_position: sideways\n", "fusion_position"),
        ("save_strategy: no\n", "load_best_model_at_end"),
        ("seed: 1\nnum_train_epochs: two\n", ":2: num_train_epochs: could not convert"),
        ("seed: 1\nseed: 2\n", ":2: seed stands here again"),
        ("drop_inputs: true\n", ":1: drop_inputs: True is no number"),
    ],
)
def test_bad_recipes_exit_2(content, message, text_folder, posts_folder, tmp_path, capfd):
    recipe = tmp_path / "recipe.yaml"
    if "text_model" not in content:
        content += f"text_model: {text_folder}\n" if ":" in content and "[" not in content else ""
    if "data" not in content and ":" in content and "[" not in content:
        content += f"data: {posts_folder}\n"
    recipe.write_text(content)
    assert main(["train", str(recipe), "--output_dir", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("lrsa train: ") and message in error
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize("aspects", [None, [{"start": 0, "end": 5}]])
def test_posts_without_labels_are_no_use_to_train_on(aspects, text_folder, posts_folder, tmp_path, capfd):
    rows = [json.loads(line) for line in (posts_folder / "train.jsonl").read_text().splitlines()]
    rows[1]["aspects"] = aspects
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["train", "--data", str(tmp_path), "--text_model", str(text_folder), "--output_dir", str(tmp_path / "o")]
    assert main(command) == 2
    assert capfd.readouterr().err.startswith(f"lrsa train: {tmp_path}/train.jsonl:2: aspects")


def test_an_output_that_cannot_be_written_is_told_first(run_folder, posts_folder, tmp_path, capfd):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "x.jsonl", tmp_path):
        command = ["predict", str(run_folder / "model"), str(posts_folder / "test.jsonl"), "--output", str(output)]
        assert main(command) == 2
        assert capfd.readouterr().err.startswith("lrsa predict: ")


def test_a_file_that_cannot_be_read_is_told_in_one_line(run_folder, monkeypatch, posts_folder, capfd):
    """Permissions do not hold back everybody."""

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("processing.post_files.open", refuse, raising=False)
    posts = posts_folder / "test.jsonl"
    assert main(["evaluate", str(run_folder / "model"), str(posts)]) == 2
    assert capfd.readouterr().err == f"lrsa evaluate: {posts}: Permission denied.\n"


def test_a_missing_model_is_told_in_one_line(posts_folder, capfd):
    assert main(["evaluate", "/no/such/model", str(posts_folder)]) == 2
    assert capfd.readouterr().err.startswith("lrsa evaluate: /no/such/model: no LRSA model")


def test_a_model_of_another_kind_is_told_with_the_reason(text_folder, posts_folder, capfd):
    assert main(["evaluate", str(text_folder), str(posts_folder)]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"lrsa evaluate: {text_folder}: no LRSA model with its processor: ")
    assert not error.endswith(":")


def test_weights_that_are_cut_off_are_told_in_one_line(run_folder, posts_folder, tmp_path, capfd):
    shutil.copytree(run_folder / "model", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["evaluate", str(tmp_path / "model"), str(posts_folder)]) == 2
    assert capfd.readouterr().err.startswith(f"lrsa evaluate: {tmp_path / 'model'}: no LRSA model")


def test_training_goes_on_from_the_last_whole_checkpoint(text_folder, posts_folder, tmp_path, capfd):
    command = [*flags(text_folder, posts_folder, tmp_path), "--max_steps", "10", "--load_best_model_at_end", "false"]
    assert main([*command, "--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "9"]) == 0
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text('{"best_')  # killed as it was written
    (tmp_path / "checkpoint-9" / "trainer_state.json").unlink()
    assert newest_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")
    assert newest_whole_checkpoint(tmp_path / "elsewhere") is None
    capfd.readouterr()
    assert main([*command, "--save_strategy", "no", "--resume_from_checkpoint", "true"]) == 0
    curve = json.loads((tmp_path / "results.json").read_text())["curve"]
    assert curve[-1]["step"] == 10


def flags(text_folder, posts_folder, output):
    options = {"text_model": text_folder, "data": posts_folder, "output_dir": output, "decoder_layers": 1, "seed": 7}
    options |= {"num_train_epochs": 2, "num_fusion_layers": 1}
    return ["train", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def test_lora_gives_an_adapter_and_the_merged_model(text_folder, posts_folder, tmp_path, capsys):
    command = flags(text_folder, posts_folder, tmp_path / "out")
    assert main([*command, "--lora", "true", "--lora_r", "2", "--new_parts_learning_rate", "0.02"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    # Two layers of width 16 and 32 between; fusion, decoder, pointer head and target embeddings in full.
    lora = 2 * (4 * 2 * (16 + 16) + 2 * 2 * (16 + 32))
    linear, norm = 16 * 17, 2 * 16
    fusion = 8 * linear + 2 * norm + 1
    decoder = 258 * 16 + norm + 8 * linear + 3 * norm + 2 * 16 * 32 + 32 + 16
    trainable = lora + fusion + decoder + 2 * linear + 5 * 16
    total = results["parameters"]["total"]
    assert results["parameters"]["trainable"] == trainable
    share = f"{100 * trainable / total:.1f}"
    printed = capsys.readouterr().out
    assert f"trainable: {trainable:,} of {total:,} parameters ({share} %)" in printed
    assert f"Adapter: {tmp_path / 'out' / 'adapter'}" in printed
    sizes = {
        name: sum(file.stat().st_size for file in (tmp_path / "out" / name).glob("*.safetensors"))
        for name in ("adapter", "model")
    }
    assert sizes["adapter"] < 4 * trainable + 20_000 and sizes["model"] > 4 * (total - lora)

    scores = []
    for name in ("adapter", "model"):
        output = tmp_path / f"{name}.json"
        command = ["evaluate", str(tmp_path / "out" / name), str(posts_folder), "--split", "validation"]
        assert main([*command, "--output", str(output)]) == 0
        scores.append(json.loads(output.read_text()))
    assert scores[0] == scores[1] == results["validation"]

    base = [*flags(text_folder, posts_folder, tmp_path / "next"), "--model", str(tmp_path / "out" / "model")]
    assert main([*base, "--lora", "true"]) == 0
    saved = json.loads((tmp_path / "next" / "adapter" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(tmp_path / "out" / "model")


def test_a_frozen_backbone(text_folder, posts_folder, tmp_path, capsys):
    command = flags(text_folder, posts_folder, tmp_path / "out")
    assert main([*command, "--freeze_backbone", "true"]) == 0
    assert "trainable: 10,369 of " in capsys.readouterr().out
    assert not (tmp_path / "out" / "adapter").exists()
    before = load_file(text_folder / "model.safetensors")
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    for name, value in before.items():
        assert torch.equal(after[f"model.encoder.text_model.{name}"], value), name


def test_the_precision_of_matrix_products(text_folder, posts_folder, tmp_path, capfd):
    former = torch.get_float32_matmul_precision()
    command = [*flags(text_folder, posts_folder, tmp_path / "out"), "--float32_matmul_precision"]
    try:
        assert main([*command, "medium"]) == 0
        assert torch.get_float32_matmul_precision() == "medium" != former
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert main(flags(text_folder, posts_folder, tmp_path / "next")) == 0
        assert torch.get_float32_matmul_precision() == "medium", "one that was not asked for is left as it is"
        assert main([*command, "highest"]) == 0
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.set_float32_matmul_precision(former)
        torch.backends.cuda.enable_flash_sdp(True)
    capfd.readouterr()
    assert main([*command, "low"]) == 2
    assert "one of highest, high, medium is expected" in capfd.readouterr().err


def test_frozen_embeddings(text_folder, posts_folder, tmp_path):
    command = [*flags(text_folder, posts_folder, tmp_path), "--num_fusion_layers", "0"]
    command += ["--freeze_embeddings", "true", "--load_best_model_at_end", "false"]
    assert main(command) == 0
    before = load_file(text_folder / "model.safetensors")
    after = load_file(tmp_path / "model" / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    parameters = json.loads((tmp_path / "results.json").read_text())["parameters"]
    still = sum(value.numel() for key, value in before.items() if key == name or "pooler" in key)
    assert parameters["trainable"] == parameters["total"] - still
    same = {name for name, value in before.items() if torch.equal(after[f"model.encoder.text_model.{name}"], value)}
    assert {name for name in same if "pooler" not in name} == {name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--freeze_backbone", "true"], "choose one"),
        (["--freeze_vision", "false"], "drop freeze_vision"),
        (["--lora_targets", "Wqkv"], "can be: dense, key, query, value"),
    ],
)
def test_contradictions_of_lora_exit_2(options, message, text_folder, posts_folder, tmp_path, capfd):
    assert main([*flags(text_folder, posts_folder, tmp_path), "--lora", "true", *options]) == 2
    assert message in capfd.readouterr().err.strip().splitlines()[-1]


def test_an_adapter_whose_base_is_gone_is_told_in_one_line(text_folder, posts_folder, tmp_path, capfd):
    command = flags(text_folder, posts_folder, tmp_path / "out")
    assert main([*command, "--lora", "true", "--num_train_epochs", "1"]) == 0
    path = tmp_path / "out" / "adapter" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["_name_or_path"] = "/no/such/text/model"
    path.write_text(json.dumps(config))
    capfd.readouterr()
    assert main(["evaluate", str(path.parent), str(posts_folder)]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"lrsa evaluate: {path.parent}: ") and "/no/such/text/model" in error


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["evaluate", "--llm", "URL"]], ids=" ".join)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: lrsa", *command]))
