"""`lrsa benchmark` as a command: several processes, runs that are killed, runs beside each other."""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import psutil
import pytest
import torch

from benchmarks.cell import claim, result_path
from benchmarks.result_file import read_result
from benchmarks.runner import Places, Pool, find_model, run_cells, state_of, take_over, with_teachers
from benchmarks.suite import read_suite
from hub_scripts.cli import main
from modeling_lrsa.arguments import parse_arguments
from modeling_lrsa.training_record import chosen


ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Runs in a folder of its own, which finds the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def benchmark(suite_file, data_root, *options) -> int:
    return main(["benchmark", str(suite_file), "--data-root", str(data_root), "--results", "results", *options])


def start(suite_file, data_root, *options) -> subprocess.Popen:
    command = [sys.executable, "-m", "hub_scripts.cli", "benchmark", str(suite_file), "--data-root", str(data_root)]
    return subprocess.Popen(
        [*command, "--results", "results", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_suite_over_two_processes(suite_file, data_root, capfd):
    assert benchmark(suite_file, data_root, "--processes", "2", "--only", "*/seed2") == 0
    out = capfd.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "small: 0 of 2 runs have their result, 2 to do."
    assert sorted(line.split("] ")[1].split(":")[0] for line in lines[1:3]) == [
        f"tiny-vlp-{arm} seed 2" for arm in ("lrsa", "off")
    ]
    assert all("validation JMASA F1" in line for line in lines[1:3]) and "test" not in out
    assert lines[3] == "Results: results/small; 2 of 2 runs have theirs."
    cells = read_suite(suite_file).cells("*/seed2")
    files = [result_path(Path("results"), cell) for cell in cells]
    former = [file.stat().st_mtime_ns for file in files]
    assert all(read_result(file) for file in files)
    assert not [path for path in Path("runs").rglob("*") if path.is_file() and path.suffix != ".lock"]

    assert benchmark(suite_file, data_root, "--only", "*/seed2") == 0
    assert capfd.readouterr().out.startswith("small: 2 of 2 runs have their result, 0 to do.")
    assert [file.stat().st_mtime_ns for file in files] == former
    assert benchmark(suite_file, data_root, "--list", "--only", "*-off/seed2") == 0
    f1 = read_result(files[0])["scores"]["validation"]["jmasa_f1"]
    assert capfd.readouterr().out == f"tiny-vlp-off/seed2: validation JMASA F1 {f1:.2f}\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_is_gone_on_with(suite_file, data_root, capfd, how):
    """Kills the command while it trains; the worker ends with it, or goes on alone and nobody redoes its cell."""
    suite = read_suite(suite_file)
    cell, _ = suite.cells("*-off")
    path, log = result_path(Path("results"), cell), Path("runs/benchmark") / f"{cell.place}.log"
    running = start(suite_file, data_root, "--only", "*-off/seed1")
    deadline = time.monotonic() + 120
    while not (log.is_file() and "trainable" in log.read_text()):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    workers = psutil.Process(running.pid).children(recursive=True)
    if how == signal.SIGKILL:
        for worker in workers:
            worker.suspend()  # or it may end before it is looked for
    running.send_signal(how)
    assert running.wait(60) == (143 if how == signal.SIGTERM else -9)
    if how == signal.SIGKILL:
        assert benchmark(suite_file, data_root, "--list", "--only", "*-off/seed1") == 0
        assert capfd.readouterr().out == "tiny-vlp-off/seed1: running\n"
        for worker in workers:
            worker.resume()
        while not path.is_file():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    else:
        assert not path.exists()
        path.write_text('{"version": 1, "sui')
        assert benchmark(suite_file, data_root, "--only", "*-off/seed1") == 0
        told = f"{path}: is half-written, of a run that was killed; it is run again.\n"
        assert capfd.readouterr().out.startswith(told)
    assert read_result(path)["seed"] == 1


def test_a_run_that_ends_while_its_state_is_asked_is_done(finished, suite_file, data_root):
    suite = read_suite(suite_file)
    (cell,) = suite.cells("*-off/seed1")
    path, claimed = result_path(Path("results"), cell), Event()

    def run():
        with claim(path):
            claimed.set()
            time.sleep(0.3)
            shutil.copy(result_path(finished[1], cell), path)

    with ThreadPoolExecutor() as pool:
        done = pool.submit(run)
        claimed.wait()
        state, result = state_of(suite, cell, Places(data_root, Path("results"), Path("runs")))
        done.result()
    assert state == "done" and result["seed"] == 1


def test_a_run_beside_another_leaves_it_its_cell(suite_file, data_root, capfd):
    cell, _ = read_suite(suite_file).cells("tiny-vlp-off")
    log = Path("runs/benchmark") / f"{cell.place}.log"
    log.parent.mkdir(parents=True)
    log.write_text("what the other run says\n")
    with claim(result_path(Path("results"), cell)):
        assert benchmark(suite_file, data_root, "--list", "--only", "*/seed1") == 0
        assert capfd.readouterr().out == "tiny-vlp-off/seed1: running\ntiny-vlp-lrsa/seed1: to do\n"
        assert benchmark(suite_file, data_root, "--only", "*-off/seed1") == 1
    out = capfd.readouterr().out.splitlines()
    assert out[1] == "[1/1] tiny-vlp-off seed 1: another run is at it; it is left to that one."
    assert out[2] == "Results: results/small; 0 of 1 runs have theirs."
    assert log.read_text().startswith("what the other run says\n")


def test_a_run_that_fails_is_told_and_the_others_go_on(suite_file, data_root, capfd):
    suite_file.write_text(suite_file.read_text().replace("off: {", "off: {text_model: nowhere/none, "))
    assert benchmark(suite_file, data_root, "--only", "*/seed1") == 1
    out = capfd.readouterr().out.splitlines()
    assert out[1].startswith("[1/2] tiny-vlp-off seed 1: failed: nowhere/none")
    assert out[1].endswith("(runs/benchmark/small/tiny-vlp-off/seed1.log)")
    assert "tiny-vlp-lrsa seed 1: validation" in out[2]
    assert out[3] == "Results: results/small; 1 of 2 runs have theirs."


def test_a_run_of_another_suite_is_taken_over(finished, suite_file, data_root, place, capfd):
    text = suite_file.read_text().replace("  lrsa: {num_fusion_layers: 1}", "  fused: {num_fusion_layers: 1}")
    (place / "other.yaml").write_text(text.replace("[lrsa, off]", "[fused, off]"))
    shutil.copytree(finished[1], "results")
    assert benchmark("other.yaml", data_root, "--only", "*-fused/seed1") == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0] == "tiny-vlp-fused seed 1: the same run as results/small/tiny-vlp-lrsa/seed1.json, taken over."
    assert out[1] == "other: 1 of 1 runs have their result, 0 to do."
    taken = read_result(Path("results/other/tiny-vlp-fused/seed1.json"))
    former = read_result(Path("results/small/tiny-vlp-lrsa/seed1.json"))
    names = {"suite": "other", "cell": "tiny-vlp-fused", "arm": "fused"}
    assert taken == former | names


@pytest.mark.slow
def test_a_kept_model_of_another_suite_teaches(suite_file, data_root, place, capfd):
    student = "  student: {num_fusion_layers: 0, teacher: '@fused', distillation_weight: 0.5}\ncompare:"
    text = suite_file.read_text().replace("  lrsa: {num_fusion_layers: 1}", "  fused: {num_fusion_layers: 1}")
    (place / "other.yaml").write_text(text.replace("compare:", student).replace("[lrsa, off]", "[fused, off]"))
    assert benchmark(suite_file, data_root, "--only", "*-lrsa/seed1", "--keep-models") == 0
    kept = Path("runs/benchmark/small/tiny-vlp-lrsa/seed1/model")
    capfd.readouterr()
    assert benchmark("other.yaml", data_root, "--only", "*-student/seed1") == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0] == "tiny-vlp-fused seed 1: the same run as results/small/tiny-vlp-lrsa/seed1.json, taken over."
    assert out[2].startswith("[1/1] tiny-vlp-student seed 1: ")
    assert kept.is_dir() and not list(Path("runs/benchmark/other").rglob("model"))

    Path("results/other/tiny-vlp-student/seed1.json").unlink()
    assert benchmark("other.yaml", data_root, "--only", "*-student/seed1") == 0
    out = capfd.readouterr().out.splitlines()
    assert out[1].startswith("[1/1] tiny-vlp-student seed 1: "), "its teacher has a result, and a model elsewhere"


@pytest.mark.slow
def test_a_student_learns_from_another_arm(finished, suite_file, data_root, capfd):
    """Its teacher's result is there, its model is not: it is trained again, and deleted when the student is done."""
    student = "  student: {num_fusion_layers: 0, teacher: '@lrsa', distillation_weight: 0.5}\ncompare:"
    suite_file.write_text(suite_file.read_text().replace("compare:", student))
    shutil.copytree(finished[1], "results")
    former = Path("results/small/tiny-vlp-lrsa/seed1.json").read_text()
    assert benchmark(suite_file, data_root, "--only", "*-student/seed1", "--processes", "2") == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0] == "small: 0 of 1 runs have their result, 1 to do, 1 to train first, to teach these."
    assert out[1].startswith("[1/2] tiny-vlp-lrsa seed 1: ") and out[2].startswith("[2/2] tiny-vlp-student seed 1: ")
    assert Path("results/small/tiny-vlp-lrsa/seed1.json").read_text() == former
    found = read_result(Path("results/small/tiny-vlp-student/seed1.json"))
    off = read_result(Path("results/small/tiny-vlp-off/seed1.json"))
    assert found["arguments"] == off["arguments"] | {"teacher": "@lrsa", "distillation_weight": 0.5}
    assert found["parameters"] == off["parameters"]
    assert not list(Path("runs").rglob("model"))


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("learning_rate: 1.0e-3", "learning_rates: 1.0e-3", "small.yaml:7: recipe: learning_rates is no argument; "),
        ("    test: ", "    test: 0123456789abcdef", "small.yaml:13: datasets: tiny: the SHA-256 of each of"),
        ("  tiny:", "  huge:", "huge: there is no data set huge ("),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(suite_file, data_root, capfd, old, new, told):
    suite_file.write_text(suite_file.read_text().replace(old, new))
    assert benchmark(suite_file, data_root) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("lrsa benchmark: ") and told in err and err.count("\n") == 1


def test_a_result_of_another_suite_is_no_result_of_this_one(finished, suite_file, data_root, capfd):
    suite_file.write_text(suite_file.read_text().replace("num_train_epochs: 2", "num_train_epochs: 3"))
    arguments = ["benchmark", str(suite_file), "--data-root", str(data_root), "--results", str(finished[1])]
    assert main(arguments) == 2
    err = capfd.readouterr().err
    assert f"seed1.json: was made with num_train_epochs 2, {suite_file} now says 3; delete the file" in err


def test_gpus_are_shared_out_by_the_launcher_of_accelerate(suite_file, data_root, monkeypatch, place):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, command, **options):
            started.append(command)
            super().__init__(
                [sys.executable, "-c", "print('error: another run is at it'); raise SystemExit(1)"], **options
            )

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(subprocess, "Popen", Process)
    suite = read_suite(suite_file)
    left = run_cells(suite, suite.cells(), Places(data_root, place / "results", place / "runs"), processes=4)
    assert set(left.values()) == {"another run is at it; it is left to that one."} and len(left) == 4
    assert [command[1:3] for command in started] == [["-m", "accelerate.commands.launch"]] * 4
    assert sorted(command[command.index("--gpu_ids") + 1] for command in started) == ["4", "4", "7", "7"]
    assert all("benchmarks.cell" in command for command in started)


@pytest.mark.parametrize(
    "code, told",
    [
        ("raise MemoryError", "failed: exit code 1"),
        ("import os; os.kill(os.getpid(), 9)", "failed: killed by SIGKILL"),
        ("print('error: the data changed'); raise SystemExit(2)", "failed: the data changed"),
    ],
)
def test_what_is_told_is_of_this_run(suite_file, data_root, monkeypatch, place, code, told):
    """The log holds what former runs said, too."""

    class Process(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", Process)
    suite = read_suite(suite_file)
    cell = suite.cells()[0]
    log = place / "runs" / f"{cell.place}.log"
    log.parent.mkdir(parents=True)
    log.write_text("error: another run is at it\n")
    left = run_cells(suite, [cell], Places(data_root, place / "results", place / "runs"))
    assert left == {cell: f"{told} ({log})"} and log.read_text().startswith("error: another run is at it\n")


def test_no_cell_outlives_its_launcher(suite_file, data_root, monkeypatch, place):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    suite = read_suite(suite_file)
    cell = suite.cells()[0]
    pool = Pool(suite, Places(data_root, place / "results", place / "runs"), 1, set(), [])
    pool.running[0] = pool._start(cell, 0)
    launcher = pool.running[0].popen
    deadline = time.monotonic() + 60
    while not (cells := psutil.Process(launcher.pid).children(recursive=True)):
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    pool.stop()
    _, alive = psutil.wait_procs(cells, timeout=30)
    assert not alive


def test_a_run_that_another_suite_is_at_is_not_taken_over(finished, suite_file, data_root, place):
    text = suite_file.read_text().replace("  lrsa: {num_fusion_layers: 1}", "  fused: {num_fusion_layers: 1}")
    (place / "other.yaml").write_text(text.replace("[lrsa, off]", "[fused, off]"))
    shutil.copytree(finished[1], "results")
    suite = read_suite("other.yaml")
    (cell,) = suite.cells("*-fused/seed1")
    with claim(result_path(Path("results"), cell)):
        assert not take_over(suite, cell, Places(data_root, Path("results"), Path("runs")))
    assert take_over(suite, cell, Places(data_root, Path("results"), Path("runs")))


def test_the_model_that_another_suite_kept_is_linked(finished, suite_file, data_root, place, keep):
    text = suite_file.read_text().replace("  lrsa: {num_fusion_layers: 1}", "  fused: {num_fusion_layers: 1}")
    (place / "other.yaml").write_text(text.replace("[lrsa, off]", "[fused, off]"))
    shutil.copytree(finished[1], "results")
    places = Places(data_root, Path("results"), Path("runs"))
    suite = read_suite("other.yaml")
    fused, off = suite.cells("*/seed1")[::-1]
    kept, linked = (place / "runs" / cell / "seed1" for cell in ("small/tiny-vlp-lrsa", "other/tiny-vlp-fused"))
    assert fused.name == "tiny-vlp-fused" and not find_model(suite, fused, places)
    for _ in range(2):
        keep(suite, fused, kept)
        assert find_model(suite, fused, places) and (linked / "model").resolve() == kept / "model"
        assert not find_model(suite, off, places)
        shutil.rmtree(kept)
        assert not find_model(suite, fused, places)


def test_a_kept_model_that_was_made_otherwise_teaches_nobody(finished, suite_file, data_root, place, keep):
    student = "  student: {num_fusion_layers: 0, teacher: '@lrsa'}\ncompare:"
    suite_file.write_text(suite_file.read_text().replace("compare:", student))
    suite, places = read_suite(suite_file), Places(data_root, Path("results"), Path("runs"))
    (learner,), (teacher,) = (suite.cells(f"tiny-vlp-{arm}/seed1") for arm in ("student", "lrsa"))
    made = {"num_train_epochs": 2.0, "num_fusion_layers": 1}
    arguments = chosen(parse_arguments(teacher.arguments))
    assert made.items() <= arguments.items()
    run = places.runs / teacher.place
    for other in (
        {"arguments": arguments | {"num_train_epochs": 3.0}},
        {"seed": 2},
        {"data": {"train": {"sha256": "0"}, "validation": {"sha256": "0"}}},
    ):
        keep(suite, teacher, run, **other)
        assert not find_model(suite, teacher, places)
        assert with_teachers(suite, [learner], places)[0] == [teacher, learner]
        shutil.rmtree(run)
    keep(suite, teacher, run)
    assert with_teachers(suite, [learner], places)[0] == [learner]


def test_the_models_that_an_earlier_command_kept_stay(finished, suite_file, data_root, place, keep):
    """A student's teacher is deleted after it, unless its model was there before."""
    student = "  student: {num_fusion_layers: 0, teacher: '@lrsa', distillation_weight: 0.5}\ncompare:"
    suite_file.write_text(suite_file.read_text().replace("compare:", student))
    shutil.copytree(finished[1], "results")
    suite = read_suite(suite_file)
    (teacher,) = suite.cells("*-lrsa/seed1")
    keep(suite, teacher, place / "runs" / teacher.place)
    left = run_cells(
        suite, suite.cells("*-student/seed1"), Places(data_root, place / "results", place / "runs"), processes=1
    )
    assert len(left) == 1, "an empty folder is no teacher"
    assert (place / "runs" / teacher.place / "model").is_dir()


def test_teachers_of_teachers_are_trained_where_no_model_is(finished, suite_file, data_root, place, keep):
    arms = (
        "  student: {num_fusion_layers: 0, teacher: '@lrsa'}\n  heir: {num_fusion_layers: 0, teacher: '@student/*'}\n"
    )
    suite_file.write_text(suite_file.read_text().replace("compare:", f"{arms}compare:"))
    shutil.copytree(finished[1], "results")
    suite, places = read_suite(suite_file), Places(data_root, Path("results"), Path("runs"))
    (heir,), students, lrsa = (suite.cells(f"tiny-vlp-{name}") for name in ("heir/seed1", "student", "lrsa"))
    keep(suite, students[1], place / "runs" / students[1].place)
    trained, numbers = with_teachers(suite, [heir], places)
    assert trained == [students[0], lrsa[0], heir] and numbers == dict.fromkeys([*students, lrsa[0]], 1)


def test_a_model_that_is_to_be_kept_is_trained_again_where_its_result_is_there(finished, suite_file, data_root, capfd):
    shutil.copytree(finished[1], "results")
    path = Path("results/small/tiny-vlp-off/seed1.json")
    former = path.stat().st_mtime_ns
    assert benchmark(suite_file, data_root, "--only", "*-off/seed1", "--keep-models") == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0] == "small: 1 of 1 runs have their result, 0 to do, 1 to train again for their models."
    assert (Path("runs/benchmark/small/tiny-vlp-off/seed1/model") / "model.safetensors").is_file()
    assert path.stat().st_mtime_ns == former
    assert benchmark(suite_file, data_root, "--only", "*-off/seed1", "--keep-models") == 0
    assert capfd.readouterr().out.startswith("small: 1 of 1 runs have their result, 0 to do.\n")


def test_a_cell_runs_behind_the_launcher(suite_file, data_root, place):
    launch = "accelerate.commands.launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
    command = [sys.executable, "-m", *launch.split(), "--cpu", "-m", "benchmarks.cell", suite_file]
    options = ["--data-root", data_root, "--results", "results", "--runs", "runs"]
    done = subprocess.run([*command, "tiny-vlp-off/seed1", *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "results" / "small" / "tiny-vlp-off" / "seed1.json").read_text())["seed"] == 1
