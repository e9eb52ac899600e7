"""What the results tell of one model."""

import json
import re
import shutil

import pytest

from benchmarks.cell import result_path
from benchmarks.model_tables import benchmark_of
from benchmarks.suite import read_suite
from benchmarks.tables import SUITES
from modeling_lrsa.arguments import parse_arguments
from modeling_lrsa.training_posts import load_split
from modeling_lrsa.training_record import training_record


@pytest.fixture
def cell(suite_file):
    (cell,) = read_suite(suite_file).cells("tiny-vlp-lrsa/seed1")
    return cell


@pytest.fixture
def places(finished, suite_file, cell, tmp_path):
    """Folders of results, with those of fewer inputs, and of the suite."""
    results = shutil.copytree(finished[1], tmp_path / "results")
    path = result_path(results, cell)
    result = json.loads(path.read_text())
    for part in ("scores", "predictions"):
        result[part]["test, text alone"] = result[part]["test"]
    path.write_text(json.dumps(result))
    return results, suite_file.parent


@pytest.fixture
def record(cell, data_root, places):
    """`results.json` of the run."""
    arguments = parse_arguments(
        cell.arguments | {"data": str(data_root / "tiny"), "seed": 1, "output_dir": "elsewhere"}
    )
    posts = {split: load_split(arguments[1], split) for split in ("train", "validation")}
    validation = json.loads(result_path(places[0], cell).read_text())["scores"]["validation"]
    return training_record(arguments, posts) | {"seed": 1, "validation": validation}


def test_tables_of_the_same_settings_and_posts(places, record, cell):
    found = benchmark_of(record, *places)
    scores = json.loads(result_path(places[0], cell).read_text())["scores"]
    assert found.test == {"test": scores["test"]} and found.caveats is None
    validation, test = (f"{scores[split]['jmasa_f1']:.2f}" for split in ("validation", "test"))
    assert f"| vlp | lrsa | 1 of 2 | {validation} | {test} |" in found.tables
    assert "| vlp | lrsa, text alone | 1 of 2 |" in found.tables and "| vlp | off | 1 of 2 |" in found.tables
    assert re.search(r"\| lrsa − off \| 1 of 2 \| [+-]\d+\.\d\d \| [01]\.\d{4} \| [01]\.\d{4} \|", found.tables)
    assert found.tables.startswith("The suite *small* asks: Do tiny models run? Its arm *lrsa* over *vlp*")


def test_test_scores_are_those_of_this_run_alone(places, record):
    for change in ({"seed": 2}, {"validation": record["validation"] | {"mate_f1": 99.0}}):
        found = benchmark_of(record | change, *places)
        assert found.tables and found.test == {}


def test_other_settings_or_posts_have_no_tables(places, record):
    assert benchmark_of(record | {"arguments": record["arguments"] | {"learning_rate": 1.0}}, *places).tables is None
    assert benchmark_of(record, places[0] / "none", places[1]).tables is None
    assert benchmark_of({}, *places).tables is None
    record["data"]["train"]["sha256"] = 64 * "0"
    assert benchmark_of(record, *places).tables is None


def test_a_student_is_found_by_the_number_of_its_teachers(places, record, suite_file):
    text = suite_file.read_text().replace(
        "compare:", '  student: {num_fusion_layers: 0, teacher: "@lrsa/*"}\ncompare:'
    )
    suite_file.write_text(text)
    student = {**record["arguments"], "num_fusion_layers": 0, "teachers": 2}
    (cell,) = (suite := read_suite(suite_file)).cells("*-student/seed1")
    path = result_path(places[0], cell)
    (places[0] / "small" / "tiny-vlp-lrsa").rename(path.parent)
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"arguments": cell.arguments, "lessons": suite.lessons_of(cell)}))
    assert "Its arm *student*" in benchmark_of(record | {"arguments": student}, *places).tables
    assert benchmark_of(record | {"arguments": student | {"teachers": 1}}, *places).tables is None


def test_caveats_of_known_posts(record, tmp_path):
    claim = read_suite(SUITES / "claim.yaml")
    for split in ("train", "validation"):
        record["data"][split]["sha256"] = claim.datasets["twitter2017"][split]
    found = benchmark_of(record, tmp_path)
    assert found.caveats.startswith("*The rationales of Twitter-2017") and "There are no pictures" in found.caveats
    record["data"]["train"]["images"] = 3
    assert "There are no pictures" not in benchmark_of(record, tmp_path).caveats


def test_a_record_holds_no_path(record, data_root, suite_text):
    text = json.dumps(record)
    assert str(data_root) not in text and "/tmp" not in text and "elsewhere" not in text
    assert record["data"]["name"] == "tiny" and record["data"]["train"]["text_rationales"] == 2
    assert record["arguments"]["num_train_epochs"] == 2 and "seed" not in record["arguments"]
