"""`lrsa push` of models and adapters, by the real client, against a Hub on loopback."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hub_scripts.cli import main


READER, STRANGER = "hf_reader", "hf_stranger"
NAMES = iter(f"someone/m{number}" for number in range(100))


@pytest.fixture
def repo():
    return next(NAMES)


@pytest.fixture
def folder(run_folder, tmp_path):
    """A copy of what `lrsa train` wrote, to be changed."""
    return Path(shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*")))


def one_line(done) -> str:
    assert done.code == 2 and done.out == ""
    assert done.err.count("\n") == 1 and done.err.startswith("lrsa push: ")
    return done.err


def change_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + torch.ones(())}, folder / "model.safetensors", {"format": "pt"})


def test_a_dry_run_lists_what_is_pushed_and_contacts_nobody(lrsa, hub, run_folder, repo):
    done = lrsa("push", run_folder, repo, "--dry-run", token=None)
    assert done.code == 0 and hub.requests == []
    *rows, total = [line.split() for line in done.out.splitlines()[1:]]
    assert lrsa("push", run_folder, repo).code == 0
    sizes = {path: len(content) for path, content in hub.files(repo).items() if path != ".gitattributes"}
    assert {path: int(size.replace(",", "")) for size, path in rows} == sizes
    assert int(total[0].replace(",", "")) == sum(sizes.values()) and int(total[1]) == len(sizes)


def test_one_commit_holds_everything(lrsa, hub, run_folder, repo):
    done = lrsa("push", run_folder, repo.partition("/")[2], "--license", "apache-2.0")
    first, second = hub.commits(repo)
    assert (first["summary"], second["summary"]) == ("LRSA model", "initial commit")
    assert done.out.splitlines() == [f"{repo}: commit {first['oid']}", f"{hub.endpoint}/{repo}"]
    files = hub.files(repo)
    assert "class EndpointHandler" in files["handler.py"].decode()
    left = {"config.json", "README.md", ".gitattributes", "handler.py"}
    model = run_folder / "model"
    local = {path.name: path.read_bytes() for path in [*model.iterdir(), run_folder / "results.json"]}
    assert {path: content for path, content in files.items() if path not in left} == {
        path: content for path, content in local.items() if path not in left
    }
    assert (
        "license: apache-2.0" in files["README.md"].decode() and "`handler.py` serves" in files["README.md"].decode()
    )


def test_no_folder_of_this_machine_is_told(lrsa, hub, run_folder, text_folder, repo):
    assert str(text_folder) in (run_folder / "model" / "config.json").read_text()
    assert lrsa("push", run_folder, repo).code == 0
    assert not [path for path, content in hub.files(repo).items() if str(text_folder.parent).encode() in content]


def test_nor_in_what_was_exported(lrsa, hub, run_folder, text_folder, tmp_path, repo):
    exported = tmp_path / "onnx"
    exported.mkdir()
    shutil.copy(run_folder / "model" / "config.json", exported)
    (exported / "encoder.onnx").write_bytes(b"onnx")
    assert lrsa("push", run_folder, repo, "--onnx", exported).code == 0
    assert str(text_folder.parent).encode() not in hub.files(repo)["onnx/config.json"]


def test_results_of_others_beside_a_converted_model_stay_here(text_folder, tmp_path, lrsa, hub, repo):
    (tmp_path / "survey_results.json").write_text("{}")
    (tmp_path / "results.json").write_text('{"data": 3, "validation": {"jmasa_f1": 87.65}}')
    assert main(["convert", "--from", "bert", str(text_folder), str(tmp_path / "model")]) == 0
    assert lrsa("push", tmp_path / "model", repo).code == 0
    files = hub.files(repo)
    assert not [name for name in files if name.endswith("results.json")] and b"87.65" not in files["README.md"]


def test_pushed_again_without_changes_there_is_no_new_commit(lrsa, hub, folder, repo):
    assert lrsa("push", folder, repo).code == 0
    before = hub.commits(repo)
    for name in (folder, folder / "model"):
        done = lrsa("push", name, repo)
        assert done.code == 0 and "nothing has changed" in done.out
        assert hub.commits(repo) == before
    change_weights(folder / "model")
    assert lrsa("push", folder, repo).code == 0
    assert len(hub.commits(repo)) == len(before) + 1
    assert hub.files(repo)["model.safetensors"] == (folder / "model" / "model.safetensors").read_bytes()


def test_what_no_longer_belongs_to_the_model_goes_and_other_files_stay(lrsa, hub, folder, tmp_path, repo):
    onnx = tmp_path / "onnx"
    onnx.mkdir()
    (onnx / "encoder.onnx").write_bytes(b"graph")
    (folder / "model" / "training_args.bin").write_bytes(b"pickle")
    assert lrsa("push", folder, repo, "--onnx", onnx).code == 0
    assert hub.files(repo)["onnx/encoder.onnx"] == b"graph" and "training_args.bin" not in hub.files(repo)
    repository = hub.repository(repo)
    files = repository.at(repository.resolve("main"))["files"]
    added = {"notes.md": repository.blob(b"mine"), "model-00001-of-00002.safetensors": repository.blob(b"old")}
    repository.commit("refs/heads/main", "by hand", files | added, repository.resolve("main"))
    assert lrsa("push", folder, repo).code == 0
    assert not {"onnx/encoder.onnx", "model-00001-of-00002.safetensors"} & set(hub.files(repo))
    assert hub.files(repo)["notes.md"] == b"mine"


def test_branch_pull_request_and_private(lrsa, hub, folder, repo):
    assert lrsa("push", folder, repo).code == 0
    main_commits = hub.commits(repo)
    change_weights(folder / "model")
    done = lrsa("push", folder, repo, "--revision", "tuned")
    assert done.out.endswith(f"{hub.endpoint}/{repo}/tree/tuned\n") and len(hub.commits(repo, revision="tuned")) == 3
    done = lrsa("push", folder, repo, "--create-pr")
    assert done.out.endswith(f"{hub.endpoint}/{repo}/discussions/1\n")
    assert len(hub.commits(repo, revision="refs/pr/1")) == 3 and hub.commits(repo) == main_commits
    done = lrsa("push", folder, repo, "--create-pr", token=STRANGER)
    assert done.code == 0 and done.out.endswith("discussions/2\n")
    assert "is there already and public" in one_line(lrsa("push", folder, repo, "--private"))
    hidden = next(NAMES)
    assert lrsa("push", folder, hidden, "--private").code == 0 and hub.repository(hidden).private


def test_a_space_goes_with_its_model(lrsa, hub, run_folder, repo):
    space = f"{repo}-space"
    done = lrsa("push", run_folder, repo.partition("/")[2], "--space", space.partition("/")[2])
    assert done.code == 0 and done.out.splitlines()[1::2] == [
        f"{hub.endpoint}/{repo}",
        f"{hub.endpoint}/spaces/{space}",
    ]
    files = hub.files(space, "spaces")
    assert {"app.py", "requirements.txt", "processing/pipeline_lrsa.py", "examples/posts.jsonl"} <= set(files)
    assert f"models:\n  - {repo}\n" in files["README.md"].decode()
    assert f"https://huggingface.co/spaces/{space}" in hub.files(repo)["README.md"].decode()
    before = hub.commits(repo), hub.commits(space, "spaces")
    done = lrsa("push", run_folder, repo, "--space", space)
    assert done.out.count("nothing has changed") == 2
    assert (hub.commits(repo), hub.commits(space, "spaces")) == before
    done = lrsa("push", run_folder, repo, "--space", space, "--dry-run", token=None)
    assert f"model {repo}:\n" in done.out and f"space {space}:\n" in done.out


def test_a_space_whose_name_is_taken_stops_the_model(lrsa, hub, run_folder, repo):
    repository = hub.repository(f"{repo}-taken", "spaces")
    repository.create(private=False)
    files = {"app.py": repository.blob(b"another")}
    repository.commit("refs/heads/main", "another", files, repository.resolve("main"))
    told = one_line(lrsa("push", run_folder, repo, "--space", f"{repo}-taken"))
    assert "the name is taken by something else (it holds app.py" in told
    assert [commit["summary"] for commit in hub.commits(repo)] == ["initial commit"]
    assert "no write access" in one_line(lrsa("push", run_folder, repo, "--space", "stranger/space"))
    assert len(hub.commits(repo)) == 1


def test_tags_and_data_set_stand_in_the_card(lrsa, hub, run_folder, repo):
    assert lrsa("push", run_folder, repo, "--tag", "en", "--tag", "tweets", "--trained-on", "someone/posts").code == 0
    card = hub.files(repo)["README.md"].decode()
    assert "- en\n- tweets\n" in card and "datasets:\n- someone/posts\n" in card
    assert f'model="{repo}"' in card
    before = hub.commits(repo)
    told = one_line(lrsa("push", run_folder, repo, "--trained-on", "no/data/set"))
    assert "Invalid metadata in README.md" in told and "is no id" in told and hub.commits(repo) == before


def test_a_card_by_hand_stays(lrsa, hub, folder, repo):
    card = folder / "model" / "README.md"
    card.write_text("---\nlicense: mit\n---\n\n# Mine\n")
    assert lrsa("push", folder, repo).code == 0
    assert hub.files(repo)["README.md"] == card.read_bytes()
    assert "write licence, tags and data set into it" in one_line(lrsa("push", folder, repo, "--license", "mit"))
    card.write_text("---\nlicense: [mit\n---\n")
    before = hub.commits(repo)
    assert "Invalid metadata in README.md" in one_line(lrsa("push", folder, repo))
    assert hub.commits(repo) == before


@pytest.mark.parametrize(
    ("token", "told"),
    [
        (None, "no token: run `hf auth login`"),
        ("hf_wrong", "the token is not accepted"),
        (READER, "no write access"),
        (STRANGER, "no write access"),
    ],
)
def test_who_may_not_write_is_told_so(lrsa, hub, folder, repo, token, told):
    for new in (True, False):
        assert told in one_line(lrsa("push", folder, repo, token=token))
        assert hub.exists(repo) != new
        if new:
            assert lrsa("push", folder, repo).code == 0
            before = hub.commits(repo)
            change_weights(folder / "model")
    assert hub.commits(repo) == before


def test_a_name_that_something_else_has(lrsa, hub, run_folder, repo):
    repository = hub.repository(repo)
    repository.create(private=False)
    files = {"model.safetensors": repository.blob(b"another"), "README.md": repository.blob(b"# Another")}
    repository.commit("refs/heads/main", "another", files, repository.resolve("main"))
    before = hub.commits(repo)
    assert "the name is taken by something else (it holds model.safetensors" in one_line(
        lrsa("push", run_folder, repo)
    )
    assert hub.commits(repo) == before


def test_a_file_above_the_limit(lrsa, hub, run_folder, repo):
    hub.faults.max_file_size = 10_000
    told = one_line(lrsa("push", run_folder, repo))
    assert re.search(r"above the limit or refused \(model\.safetensors: the file has \d+ bytes, at most 10000", told)
    assert len(hub.commits(repo)) == 1
    space = next(NAMES)
    hub.faults.max_file_size = 100  # files of a commit itself
    assert "a file is above the limit" in one_line(lrsa("push", "--metric", space))
    assert len(hub.commits(space, "spaces")) == 1


def test_a_connection_cut_in_the_commit_leaves_the_repository_as_it_was(lrsa, hub, folder, repo):
    assert lrsa("push", folder, repo).code == 0
    before = hub.commits(repo)
    change_weights(folder / "model")
    hub.faults.cut_after, hub.faults.cut_commits_only = 100, True
    (folder / "results.json").write_text("{}" + 1000 * " ")
    assert f"the connection to {hub.endpoint} failed" in one_line(lrsa("push", folder, repo))
    assert hub.commits(repo) == before
    hub.faults.cut_after = None
    assert lrsa("push", folder, repo).code == 0
    assert len(hub.commits(repo)) == len(before) + 1


def test_an_upload_cut_once_is_tried_again(lrsa, hub, folder, repo):
    hub.faults.cut_after, hub.faults.cuts = 1000, 1
    done = lrsa("push", folder, repo)
    assert (done.code, done.err, hub.faults.cuts) == (0, "", 0)
    assert hub.files(repo)["model.safetensors"] == (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_uploads_that_are_always_cut_leave_the_repository_as_it_was(lrsa, hub, folder, repo):
    assert lrsa("push", folder, repo).code == 0
    before = hub.commits(repo)
    change_weights(folder / "model")
    hub.faults.cut_after = 1000
    told = one_line(lrsa("push", folder, repo))
    assert f"{repo}: model.safetensors: the connection to {hub.endpoint} failed" in told
    assert hub.commits(repo) == before


def test_a_push_that_is_killed_leaves_the_repository_as_it_was(lrsa, hub, folder, tmp_path, repo):
    assert lrsa("push", folder, repo).code == 0
    before = hub.commits(repo)
    change_weights(folder / "model")
    environment = os.environ | hub.environment(tmp_path / "home") | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-m", "hub_scripts.cli", "push", str(folder), repo], env=environment)
    hub.faults.on_upload = process.kill
    assert process.wait(60) == -signal.SIGKILL
    hub.faults.on_upload = None
    assert hub.commits(repo) == before
    assert lrsa("push", folder, repo).code == 0
    assert len(hub.commits(repo)) == len(before) + 1


def test_no_hub_and_no_network(hub, run_folder, tmp_path):
    script = "import sys; from hub_scripts.cli import main; sys.exit(main(sys.argv[1:]))"
    changes = {"failed": {"HF_ENDPOINT": "http://127.0.0.1:9"}, "HF_HUB_OFFLINE forbids": {"HF_HUB_OFFLINE": "1"}}
    for told, change in changes.items():
        environment = os.environ | hub.environment(tmp_path) | change | {"PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", script, "push", str(run_folder), "someone/unreached"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and told in done.stderr


def without(name: str):
    return lambda model: (model / name).unlink()


def cut(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def of_another_kind(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "bert"}')


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (without("config.json"), "holds no model: neither config.json nor adapter_config.json"),
        (without("model.safetensors"), "lacks model.safetensors"),
        (without("processor_config.json"), "lacks its processor"),
        (without("modeling_lrsa.py"), "lacks the code of the model"),
        (cut, "model.safetensors: is damaged"),
        (of_another_kind, "is a bert, no LRSA model"),
    ],
)
def test_a_folder_without_a_whole_model(folder, capsys, spoil, told):
    spoil(folder / "model")
    assert main(["push", str(folder), "someone/none", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["nowhere", "someone/m"], "nowhere: no such folder"),
        (["{run}", "someone/m", "--onnx", "{run}"], "holds no encoder.onnx"),
        (["{run}", "someone/m", "--base", "someone/b"], "is no adapter; leave out --base"),
    ],
)
def test_bad_arguments(run_folder, capsys, argv, told):
    assert main(["push", *(argument.format(run=run_folder) for argument in argv), "--dry-run"]) == 2
    assert told in capsys.readouterr().err


def test_a_bad_name_is_told(lrsa, hub, run_folder):
    assert "someone/a/b" in one_line(lrsa("push", run_folder, "someone/a/b"))


def test_a_converted_baseline(text_folder, tmp_path, lrsa, hub, repo):
    assert main(["convert", "--from", "bert", str(text_folder), str(tmp_path / "model")]) == 0
    assert lrsa("push", tmp_path / "model", repo).code == 0
    assert {"model.safetensors", "modeling_lrsa.py", "processor_config.json"} <= set(hub.files(repo))


@pytest.fixture(scope="module")
def adapters(text_folder, posts_folder, run_folder, tmp_path_factory):
    """Runs with LoRA: over pre-trained parts, and over a saved model."""
    runs = tmp_path_factory.mktemp("adapters")
    common = ["--data", posts_folder, "--lora", "true", "--max_steps", "1", "--eval_strategy", "no"]
    common += ["--save_strategy", "no", "--load_best_model_at_end", "false"]
    parts = ["--text_model", text_folder, "--num_fusion_layers", "1", "--decoder_layers", "1"]
    for name, start in (("parts", parts), ("model", ["--model", run_folder / "model"])):
        argv = ["train", *start, *common, "--output_dir", runs / name]
        assert main([str(argument) for argument in argv]) == 0
    return runs


@pytest.mark.parametrize(("kind", "where"), [("parts", "was built from pre-trained parts"), ("model", "lies in ")])
def test_an_adapter_goes_with_its_base(adapters, lrsa, hub, repo, kind, where):
    adapter, base = adapters / kind / "adapter", next(NAMES)
    assert where in one_line(lrsa("push", adapter, repo))
    assert not hub.exists(repo)
    done = lrsa("push", adapter, repo, "--base", base)
    assert done.code == 0 and done.out.splitlines()[1::2] == [f"{hub.endpoint}/{base}", f"{hub.endpoint}/{repo}"]
    files = hub.files(repo)
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == base
    assert "config.json" not in files and "model.safetensors" not in files
    assert f"base_model: {base}" in files["README.md"].decode()
    before = len(hub.commits(repo)), len(hub.commits(base))
    assert lrsa("push", adapter, repo, "--base", base.partition("/")[2]).code == 0
    assert (len(hub.commits(repo)), len(hub.commits(base))) == before


def test_an_adapter_over_an_adapter_is_refused(adapters, lrsa, hub, posts_folder, tmp_path, repo):
    first, second = next(NAMES), tmp_path / "second"
    shutil.copytree(adapters / "model", second)
    config = second / "adapter" / "adapter_config.json"
    named = {"base_model_name_or_path": str(adapters / "parts" / "adapter")}
    config.write_text(json.dumps(json.loads(config.read_text()) | named))
    told = one_line(lrsa("push", second / "adapter", repo, "--base", first))
    assert "is an adapter, too; push the merged model" in told
    assert not hub.exists(repo) and not hub.exists(first)


def test_a_base_that_looks_like_an_id_and_is_none(adapters, lrsa, hub, tmp_path, repo):
    shutil.copytree(adapters / "model" / "adapter", tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "runs/base"}))
    assert "its base runs/base is not on the Hub" in one_line(lrsa("push", tmp_path / "adapter", repo))
    assert not hub.exists(repo)


def test_another_model_is_not_taken_for_the_base(adapters, lrsa, hub, run_folder, repo):
    other = next(NAMES)
    assert lrsa("push", adapters / "parts", other).code == 0
    told = one_line(lrsa("push", adapters / "model" / "adapter", repo, "--base", other))
    assert f"{other}: holds another model than the base" in told and not hub.exists(repo)
