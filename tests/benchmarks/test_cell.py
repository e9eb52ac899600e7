"""One run: what its result holds, and that nothing is selected by the test split."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from safetensors.torch import load_file

import benchmarks.cell as cell_module
from benchmarks.cell import Running, claim, result_path, run_cell, score_split, train_cell
from benchmarks.result_file import DamagedResult, check_result, plain, read_result, score, unpack_predictions
from benchmarks.suite import file_hash, read_suite
from processing import PostError, load_posts
from processing.posts import gold_aspects


@pytest.fixture
def one(finished):
    """A finished run: suite, cell, result file."""
    path, results = finished
    suite = read_suite(path)
    (cell,) = suite.cells("tiny-vlp-lrsa/seed1")
    return suite, cell, result_path(results, cell)


def test_result_tells_how_it_came_about(one, data_root):
    suite, cell, path = one
    result = read_result(path)
    assert (result["suite"], result["cell"], result["seed"]) == ("small", "tiny-vlp-lrsa", 1)
    assert result["arguments"] == cell.arguments
    configuration = result["configuration"]
    assert configuration["num_train_epochs"] == 2 and configuration["seed"] == 1
    assert configuration["weight_decay"] == 0.0 and configuration["num_fusion_layers"] == 1
    assert result["data"] == {s: file_hash(data_root / "tiny" / f"{s}.jsonl") for s in result["data"]}
    assert set(result["data"]) == {"train", "validation", "test"}
    assert result["versions"]["torch"] and len(result["commit"].rstrip("+")) == 40
    assert [entry["epoch"] for entry in result["curve"]] == [1.0, 2.0]
    best = max(result["curve"], key=lambda entry: entry["jmasa_f1"])
    assert result["best_step"] == 2 * best["epoch"]  # two steps an epoch; the first of equal ones
    assert result["scores"]["validation"]["jmasa_f1"] == best["jmasa_f1"]
    assert len(result["gates"]) == 1 and result["parameters"]["trainable"] > 0
    assert result["peak_memory_mb"]["process"] > 100
    assert set(result["seconds"]) == {"train", "validation", "test"}
    assert result["device"]["name"] and result["device"]["threads"] >= 1


def test_predictions_give_the_scores_again(one, data_root):
    result = read_result(one[2])
    for split in ("validation", "test"):
        posts = load_posts(data_root / "tiny", split)
        gold = plain(gold_aspects(posts))
        packed = result["predictions"][split]
        assert [packed["id_prefix"] + name for name in packed["ids"]] == posts["id"]
        assert score(*unpack_predictions(packed, gold), gold) == result["scores"][split]
        right, found = sum(packed["jmasa"]), sum(map(len, packed["aspects"]))
        f1 = 200 * right / (found + sum(packed["gold"])) if found else 0.0
        assert round(f1, 4) == result["scores"][split]["jmasa_f1"]
        assert sum(packed["mate"]) >= right and packed["gold"] == [len(row) for row in gold]


def test_fewer_inputs_are_scored_too(suite_file, data_root, tmp_path, monkeypatch):
    seen = []

    def keep(model, processor, posts, arguments):
        seen.append({name: sum(map(bool, posts[name])) for name in ("image_rationale", "text_rationale")})
        return score_split(model, processor, posts, arguments)

    monkeypatch.setattr(cell_module, "score_split", keep)
    suite_file.write_text(suite_file.read_text() + "inputs:\n  - [image, text_rationale]\n  - []\n")
    suite = read_suite(suite_file)
    result = run_cell(suite, suite.cells("tiny-vlp-lrsa/seed1")[0], data_root, tmp_path / "results", tmp_path / "runs")
    parts = ["validation", "test", "test, image + text rationale", "test, text alone"]
    assert list(result["scores"]) == list(result["predictions"]) == parts
    assert [counts["text_rationale"] for counts in seen] == [2, 2, 2, 0]
    assert [counts["image_rationale"] for counts in seen] == [0, 0, 0, 0]
    gold = plain(gold_aspects(load_posts(data_root / "tiny", "test")))
    for part in parts[1:]:
        assert score(*unpack_predictions(result["predictions"][part], gold), gold) == result["scores"][part]


def test_result_is_small_and_holds_no_word_of_the_posts(one, data_root):
    text = one[2].read_text()
    assert len(text) < 20_000
    words = {w for split in ("train", "validation", "test") for post in load_posts(data_root / "tiny", split)["text"]
             for w in post.split() if len(w) > 3}  # fmt: skip
    assert "Riverbend" in words and not [word for word in words if word in text]
    assert str(data_root) not in text


def test_nothing_is_left_of_a_run_but_its_result(finished):
    folder = finished[0].parent
    left = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert sorted(path.name for path in left) == ["seed1.json", "seed1.json", "small.yaml"]


opened: list[str] | None = None


def watch(event: str, arguments: tuple) -> None:
    if opened is not None and event in ("open", "os.rename"):
        opened.append(" -> ".join(str(name) for name in arguments[: 1 + (event == "os.rename")]))


sys.addaudithook(watch)


def test_test_split_is_opened_only_after_the_model_is_saved(one, data_root, tmp_path):
    global opened
    suite, cell, _ = one
    opened = []
    try:
        run_cell(suite, cell, data_root, tmp_path / "results", tmp_path / "runs", keep_model=True)
    finally:
        events, opened = opened, None
    model = str(tmp_path / "runs" / cell.place / "training" / "model")
    saved = [index for index, event in enumerate(events) if event.endswith(f"-> {model}")]
    read = {name: [i for i, event in enumerate(events) if event.endswith(name)] for name in
            ("train.jsonl", "validation.jsonl", "test.jsonl")}  # fmt: skip
    assert len(saved) == 1 and read["train.jsonl"] and read["train.jsonl"][-1] < saved[0]
    assert len(read["test.jsonl"]) == 2  # for its checksum, and to score it
    assert read["test.jsonl"][0] > saved[0] and read["test.jsonl"][0] > read["validation.jsonl"][-1]


def test_training_needs_no_test_split_and_makes_the_same_model_without(one, data_root, tmp_path):
    _, cell, _ = one
    shutil.copytree(data_root / "tiny", tmp_path / "without", ignore=lambda *_: ["test.jsonl"])
    models = []
    for number, data in enumerate((data_root / "tiny", tmp_path / "without")):
        arguments, _ = train_cell(cell, data, tmp_path / f"run{number}")
        assert sorted(os.listdir(arguments[1].data)) == ["train.jsonl", "validation.jsonl"]
        models.append(load_file(tmp_path / f"run{number}" / "model" / "model.safetensors"))
    assert all(models[0][name].equal(models[1][name]) for name in models[0])


def test_data_may_be_links_to_other_names(one, data_root, tmp_path):
    _, cell, _ = one
    (tmp_path / "tiny").mkdir()
    for number, split in enumerate(("train", "validation")):
        shutil.copy(data_root / "tiny" / f"{split}.jsonl", tmp_path / f"blob{number}")
        (tmp_path / "tiny" / f"{split}.jsonl").symlink_to(tmp_path / f"blob{number}")
    arguments, _ = train_cell(cell, tmp_path / "tiny", tmp_path / "run")
    assert sorted(os.listdir(arguments[1].data)) == ["train.jsonl", "validation.jsonl"]


def test_train_posts_of_the_other_set_are_learnt_from_without_labels(suite_file, data_root, tmp_path):
    root, text = tmp_path / "root", suite_file.read_text()
    shutil.copytree(data_root / "tiny", root / "tiny")
    shutil.copytree(root / "tiny", root / "other")
    own = text[text.index("  tiny:") : text.index("baselines:")]
    text = text.replace(own, own + own.replace("tiny", "other"))
    student = "  student: {num_fusion_layers: 0, teacher: '@lrsa', unlabelled: '@others'}\ncompare:"
    suite_file.write_text(text.replace("compare:", student))
    suite = read_suite(suite_file)
    suite.check_arguments()
    (teacher,), (student,) = suite.cells("tiny-vlp-lrsa/seed1"), suite.cells("tiny-vlp-student/seed1")
    assert suite.unlabelled_sets(student) == ["other"] and suite.unlabelled_sets(teacher) == []
    places = (root, tmp_path / "results", tmp_path / "runs")
    run_cell(suite, teacher, *places, keep_model=True)
    result = run_cell(suite, student, *places, keep_model=True)
    hashes = suite.datasets["other"]
    assert result["unlabelled"] == {"other": hashes["train"]} and result["arguments"]["unlabelled"] == "@others"
    assert str(root) not in json.dumps(result)
    record = json.loads((tmp_path / "runs" / student.place / "results.json").read_text())
    assert record["data"]["unlabelled 1"]["sha256"] == hashes["train"]
    check_result(suite, student, Path("seed1.json"), result)
    with pytest.raises(PostError, match=r"seed1\.json: was made with other unlabelled posts than .*; delete the file"):
        check_result(suite, student, Path("seed1.json"), result | {"unlabelled": {"other": "0"}})
    assert result["lessons"] == {"@lrsa": {"seeds": [1], "arguments": teacher.arguments}}
    taught = read_result(result_path(places[1], teacher))["scores"]["validation"]["jmasa_f1"]
    assert result["teachers"] == {"tiny-vlp-lrsa/seed1": pytest.approx(taught, abs=1e-3)}
    for lessons in ({}, {"@lrsa": {"seeds": [2], "arguments": teacher.arguments}}):
        with pytest.raises(PostError, match=r"seed1\.json: was made with other teachers than .*; delete the file"):
            check_result(suite, student, Path("seed1.json"), result | {"lessons": lessons})
    with open(root / "other" / "train.jsonl", "a") as file:
        file.write("\n")
    for cell, fits in ((teacher, True), (student, False)):
        with nullcontext() if fits else pytest.raises(PostError, match=r"other/train\.jsonl: SHA-256 .* data changed"):
            suite.check_data(root, [cell])


def test_the_same_seed_gives_the_same_result(one, data_root, tmp_path):
    suite, cell, path = one
    again = run_cell(suite, cell, data_root, tmp_path / "results", tmp_path / "runs", keep_model=True)
    former = read_result(path)
    measured = ("seconds", "peak_memory_mb")
    assert {k: v for k, v in again.items() if k not in measured} | {m: former[m] for m in measured} == former
    assert sorted(os.listdir(tmp_path / "runs" / cell.place)) == ["model", "results.json"]


def test_a_result_stands_and_a_damaged_one_is_made_anew(one, data_root, tmp_path):
    suite, cell, path = one
    own = result_path(tmp_path, cell)
    own.parent.mkdir(parents=True)
    shutil.copy(path, own)
    stamp = own.stat().st_mtime_ns
    run_cell(suite, cell, data_root, tmp_path, tmp_path / "runs")
    assert own.stat().st_mtime_ns == stamp

    half = path.read_text()[: path.stat().st_size // 2]
    own.write_text(half)
    own.with_name(f".{own.name}.4711").write_text(half)
    (tmp_path / "runs" / cell.place / "model").mkdir(parents=True)
    with pytest.raises(DamagedResult):
        read_result(own)
    run_cell(suite, cell, data_root, tmp_path, tmp_path / "runs")
    assert read_result(own)["scores"] == read_result(path)["scores"]
    assert sorted(file.name for file in own.parent.iterdir() if not file.name.endswith(".lock")) == ["seed1.json"]


def test_two_runs_of_one_result(one, data_root, tmp_path):
    suite, cell, _ = one
    with claim(result_path(tmp_path, cell)), pytest.raises(Running):
        run_cell(suite, cell, data_root, tmp_path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_look_at_the_state_of_a_run_does_not_take_its_turn(tmp_path):
    path, looking, looked = tmp_path / "seed1.json", threading.Event(), []

    def look():
        with claim(path):
            looking.set()
            time.sleep(0.2)
            looked.append(True)

    with ThreadPoolExecutor() as pool:
        done = pool.submit(look)
        looking.wait()
        with claim(path):
            assert looked
        done.result()


def test_a_teacher_without_its_record_is_told_before_training(suite_file, data_root, tmp_path, monkeypatch):
    student = "  student: {num_fusion_layers: 0, teacher: '@lrsa'}\ncompare:"
    suite_file.write_text(suite_file.read_text().replace("compare:", student))
    suite = read_suite(suite_file)
    (cell,) = suite.cells("*-student/seed1")
    monkeypatch.setattr(cell_module, "train_cell", None)
    with pytest.raises(FileNotFoundError, match=r"tiny-vlp-lrsa/seed1/results\.json"):
        run_cell(suite, cell, data_root, tmp_path / "results", tmp_path / "runs")


def test_two_runs_in_one_folder(one, data_root, tmp_path):
    """Their results lie in different folders, what they need meanwhile does not."""
    suite, cell, _ = one
    work = tmp_path / "runs" / cell.place / "training"
    work.mkdir(parents=True)
    with claim(tmp_path / "runs" / f"{cell.place}-run"), pytest.raises(Running):
        run_cell(suite, cell, data_root, tmp_path / "mine", tmp_path / "runs")
    assert work.is_dir()


def test_a_kept_model_stays_until_there_is_a_new_one(one, data_root, tmp_path, monkeypatch, keep):
    suite, cell, path = one
    runs, kept = tmp_path / "runs", tmp_path / "runs" / cell.place / "model"
    keep(suite, cell, kept.parent)
    (kept / "of a former run").touch()
    run_cell(suite, cell, data_root, tmp_path / "mine", runs)
    assert os.listdir(kept) == ["of a former run"]

    own = result_path(tmp_path / "results", cell)
    own.parent.mkdir(parents=True)
    shutil.copy(path, own)
    with monkeypatch.context() as patch:
        patch.setattr(cell_module, "train_cell", None)  # both are there: it is not trained
        run_cell(suite, cell, data_root, tmp_path / "results", runs, keep_model=True)
    assert os.listdir(kept) == ["of a former run"]

    def fail(*args):
        raise PostError("no memory")

    own.unlink()
    with monkeypatch.context() as patch, pytest.raises(PostError):
        patch.setattr(cell_module, "train_cell", fail)
        run_cell(suite, cell, data_root, tmp_path / "results", runs, keep_model=True)
    assert os.listdir(kept) == ["of a former run"]
    run_cell(suite, cell, data_root, tmp_path / "results", runs, keep_model=True)
    assert "model.safetensors" in os.listdir(kept) and "of a former run" not in os.listdir(kept)


@pytest.mark.parametrize("former", ["folder", "link", "dangling link"])
def test_a_run_killed_while_it_deletes_the_former_model_has_the_new_one(former, tmp_path, monkeypatch):
    run, training, elsewhere = tmp_path / "seed1", tmp_path / "seed1" / "training", tmp_path / "elsewhere"
    (training / "model").mkdir(parents=True)
    (training / "model" / "new").touch()
    (training / "results.json").touch()
    if former == "folder":
        (run / "model").mkdir()
    else:
        (run / "model").symlink_to(elsewhere)
    if former == "link":
        elsewhere.mkdir()

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        cell_module.keep(training, run)
    assert os.listdir(run / "model") == ["new"]
    assert elsewhere.is_dir() == (former == "link")


def test_the_commit_is_that_of_the_package_alone(tmp_path, monkeypatch):
    assert len((cell_module.commit() or "").rstrip("+")) == 40
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "of somebody else"], check=True)
    monkeypatch.setattr(cell_module, "__file__", str(tmp_path / "site-packages" / "benchmarks" / "cell.py"))
    (tmp_path / "site-packages").mkdir()
    assert cell_module.commit() is None


def test_changed_data_are_refused_before_training(one, data_root, tmp_path):
    suite, cell, _ = one
    shutil.copytree(data_root / "tiny", tmp_path / "data" / "tiny")
    post = json.loads((data_root / "tiny" / "train.jsonl").read_text().splitlines()[0])
    Path(tmp_path / "data" / "tiny" / "train.jsonl").write_text(json.dumps(post) + "\n")
    with pytest.raises(PostError, match=r"train\.jsonl: SHA-256 .*: the data changed\."):
        run_cell(suite, cell, tmp_path / "data", tmp_path / "results", tmp_path / "runs")
