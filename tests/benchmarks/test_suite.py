"""Suites: the matrix, and bad input, which is told with file and line."""

import re
import shutil
from pathlib import Path

import pytest

from benchmarks.cell import teacher_folders
from benchmarks.suite import read_suite
from processing import PostError


SUITES = sorted((Path(__file__).parents[2] / "benchmarks" / "suites").glob("*.yaml"))


def problem(path, action=lambda suite: suite.check_arguments()) -> str:
    with pytest.raises(PostError) as error:
        action(read_suite(path))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_committed_suites_resolve(path):
    suite = read_suite(path)
    suite.check_arguments()
    cells = suite.cells()
    assert len({cell.place for cell in cells}) == len(cells) == (
        len(suite.seeds) * len(suite.datasets) * len(suite.baselines) * len(suite.arms)
    )  # fmt: skip


def test_claim_suite_is_the_claim():
    suite = read_suite(next(path for path in SUITES if path.stem == "claim"))
    cells = suite.cells()
    assert len(cells) == 2 * 2 * 3 * 5
    assert [cell.seed for cell in cells[:12]] == [1] * 12  # a part of the suite is all of its first seeds
    (cell,) = suite.cells("twitter2017-aom-shuffled/seed3")
    assert cell.arguments["aspect_attention"] is True and cell.arguments["num_graph_layers"] == 2
    assert cell.arguments["num_fusion_layers"] == 1 and cell.arguments["shuffle_rationales"] == 1
    off, lrsa = (suite.cells(f"twitter2015-vlp-{arm}/seed1")[0].arguments for arm in ("off", "lrsa"))
    fusion = {"num_fusion_layers": 1, "fusion_match_bias": 3.0, "fusion_match_embeddings": True}
    assert off | fusion == lrsa  # both arms have the same schedule


def test_matrix(suite_file):
    cells = read_suite(suite_file).cells()
    assert [cell.place for cell in cells] == [
        "small/tiny-vlp-off/seed1",
        "small/tiny-vlp-lrsa/seed1",
        "small/tiny-vlp-off/seed2",
        "small/tiny-vlp-lrsa/seed2",
    ]
    assert cells[1].arguments == cells[0].arguments | {"num_fusion_layers": 1}


def test_teachers(suite_file):
    student = "  student: {teacher: '@lrsa'}\n  heir: {teacher: ['@lrsa/*', elsewhere]}\ncompare:"
    suite_file.write_text(suite_file.read_text().replace("compare:", student))
    suite = read_suite(suite_file)
    suite.check_arguments()
    (lrsa, other), (student, _), (heir, _) = (suite.cells(f"tiny-vlp-{arm}") for arm in ("lrsa", "student", "heir"))
    assert suite.teachers_of(student) == {"@lrsa": [lrsa]}
    assert suite.teachers_of(heir) == {"@lrsa/*": [lrsa, other]}
    assert suite.lessons_of(student) == {"@lrsa": {"seeds": [1], "arguments": lrsa.arguments}}
    assert suite.lessons_of(heir) == {"@lrsa/*": {"seeds": [1, 2], "arguments": lrsa.arguments}}
    folders = teacher_folders(suite, heir, Path("runs"))
    assert folders == [f"runs/small/tiny-vlp-lrsa/seed{seed}/model" for seed in (1, 2)] + ["elsewhere"]


@pytest.mark.parametrize(
    "pattern, number", [("*", 4), ("tiny-vlp-off", 2), ("*/seed2", 2), ("tiny-*-lrsa/seed1", 1), ("tiny-vlp-off*", 2)]
)
def test_patterns(suite_file, pattern, number):
    assert len(read_suite(suite_file).cells(pattern)) == number


def test_pattern_that_fits_nothing(suite_file):
    with pytest.raises(PostError, match=r"small\.yaml: no run fits 'huge-\*'"):
        read_suite(suite_file).cells("huge-*")


@pytest.mark.parametrize(
    "old, new, line, told",
    [
        ("seeds:", "sedes:", 11, "sedes is no key of a suite"),
        ("  num_train_epochs: 2", "  num_train_epoch: 2", 5, "recipe: num_train_epoch is no argument"),
        ("{num_fusion_layers: 0}", "{num_fusoin_layers: 0}", 20, "off: num_fusoin_layers is no argument"),
        ("vlp: {}", "vlp: {seed: 3}", 18, "vlp: seed is set by the benchmark itself"),
        ("num_train_epochs: 2", "num_train_epochs: two", 5, "recipe: num_train_epochs: could not convert"),
        ("num_fusion_layers: 1", "num_fusion_layers: true", 21, "lrsa: num_fusion_layers: True is no number"),
        ("save_strategy: best", "save_strategy: often", 20, "vlp, off: often is not a valid"),
        ("seeds: [1, 2]", "seeds: [1, 1]", 11, "seeds: one stands there twice"),
        ("seeds: [1, 2]", "seeds: 3", 11, "seeds: a list of whole numbers"),
        ("  off: {", "  Off-arm: {", 20, "'Off-arm' is no name"),
        ("- [lrsa, off]", "- [lrsa, on]", 22, "['lrsa', 'on'] is no pair of arms"),
        ("lrsa: {num_fusion_layers: 1}", "off: {num_fusion_layers: 1}", 21, "off stands here again"),
        ("arms:\n", "arms: [\n", 21, "neither YAML nor JSON"),
        (
            "{num_fusion_layers: 0}",
            "{fusion_position: befor}",
            20,
            "off: fusion_position: 'befor' is none of before, ",
        ),
        ("compare:", "inputs:\n  - [text]\ncompare:", 22, "['text'] is no list of some of image, image_rationale"),
        ("lrsa: {", "lrsa: {teacher: '@large', ", 21, "there is no arm 'large' to be the teacher"),
        ("vlp: {}", "vlp: {teacher: '@large'}", 18, "off: there is no arm 'large' to be the teacher"),
        ("save_strategy: best", "teacher: '@lrsa/1'", 8, "off: there is no arm 'lrsa/1' to be the teacher"),
        ("lrsa: {", "lrsa: {teacher: '@lrsa', ", 21, "lrsa teaches lrsa: somebody has to begin"),
        ("vlp: {}", "vlp: {teacher: '@off'}", 18, "off teaches off: somebody has to begin"),
        ("lrsa: {", "lrsa: {teacher: 5, ", 21, "lrsa: teacher: a folder, @ARM, or a list of such is expected"),
        ("lrsa: {", "lrsa: {teacher: [5], ", 21, "lrsa: teacher: a folder, @ARM, or a list of such is expected"),
        ("lrsa: {", "lrsa: {unlabelled: '@others', ", 21, "nobody tells the aspects of these posts; give a teacher"),
        ("- [lrsa, off]", "- [lrsa, lrsa]", 22, "['lrsa', 'lrsa'] is no pair of arms"),
        ("- [lrsa, off]", "- [{a: 1}, off]", 22, "[{'a': 1}, 'off'] is no pair of arms"),
        ("compare:\n  - [lrsa, off]", "compare: 5", 22, "compare: a list of lists is expected"),
        ("compare:", "inputs: 5\ncompare:", 22, "inputs: a list of lists is expected"),
        ("num_fusion_layers: 1", "num_fusion_layers: .inf", 21, "num_fusion_layers: inf is no number"),
        ("num_fusion_layers: 1", "num_fusion_layers: [1]", 21, "num_fusion_layers: a single value is expected"),
        ("num_fusion_layers: 1", "[a]: 1", 21, "a list or a mapping is no key"),
        ("lrsa: {", "lrsa: {unlabelled: more.jsonl, ", 21, "'more.jsonl': a suite knows '@others' alone"),
        ("about: Do tiny models run?", "about: [1]", 1, "about: a sentence is expected"),
    ],
)
def test_bad_input_is_told_with_its_line(suite_file, old, new, line, told):
    text = suite_file.read_text()
    assert text.count(old) == 1
    suite_file.write_text(text.replace(old, new))
    said = problem(suite_file)
    assert said.startswith(f"{suite_file}:{line}: ") and told in said


def test_empty_keys_are_as_none(suite_file):
    text = suite_file.read_text().replace("compare:\n  - [lrsa, off]", "compare:\ninputs:\nabout:")
    suite_file.write_text(re.sub("about: .*\n", "", text))
    suite = read_suite(suite_file)
    assert (suite.compare, suite.inputs, suite.about) == ([], [], "")


def test_arms_that_learn_in_a_circle(suite_file):
    text = suite_file.read_text().replace("lrsa: {", "lrsa: {teacher: '@off', ")
    suite_file.write_text(text.replace("off: {", "off: {teacher: ['@lrsa/*', elsewhere], "))
    said = problem(suite_file)
    assert said.startswith(f"{suite_file}:2") and said.endswith(": somebody has to begin.")
    assert "off teaches lrsa" in said and "lrsa teaches off" in said


def test_missing_keys_and_files(suite_file, tmp_path):
    assert problem(tmp_path) == f"{tmp_path}: can't be read (Is a directory); name the file of a suite."
    assert problem(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: no such suite."
    suite_file.write_text(suite_file.read_text().replace("seeds: [1, 2]\n", ""))
    assert problem(suite_file) == f"{suite_file}: seeds is missing or empty."
    suite_file.write_text("- 1\n")
    assert "a mapping of recipe, seeds, " in problem(suite_file)


def test_data(suite_file, data_root, tmp_path):
    suite = read_suite(suite_file)
    suite.check_data(data_root, suite.cells())
    said = problem(suite_file, lambda suite: suite.check_data(tmp_path, suite.cells()))
    assert said.startswith(f"{tmp_path / 'tiny'}: there is no data set tiny ({suite_file}:13)")
    shutil.copytree(data_root / "tiny", tmp_path / "tiny")
    with open(tmp_path / "tiny" / "validation.jsonl", "a") as file:
        file.write("\n")
    said = problem(suite_file, lambda suite: suite.check_data(tmp_path, suite.cells()))
    assert said.startswith(f"{tmp_path / 'tiny' / 'validation.jsonl'}: SHA-256 ")
    assert f"{suite_file}:15 expects" in said and said.endswith("the data changed.")
    (tmp_path / "tiny" / "test.jsonl").unlink()
    (tmp_path / "tiny" / "validation.jsonl").unlink()
    assert "there is no validation.jsonl" in problem(
        suite_file, lambda suite: suite.check_data(tmp_path, suite.cells())
    )
