"""The committed results: their predictions give their scores, and the tables in the documents are made of them."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.errors import count_errors, errors_path, read_errors
from benchmarks.result_file import check_result, count_right, plain, read_result, score, unpack_predictions
from benchmarks.rows import read_rows
from benchmarks.suite import file_hash, read_suite
from benchmarks.tables import DOCUMENTS, SUITES, render
from processing import compute_mabsa_metrics, load_posts
from processing.posts import gold_aspects, split_files


ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DATA = Path(os.environ.get("LRSA_TWITTER_DATA", ROOT.parent / "shared" / "data"))
FILES = sorted(RESULTS.glob("*/*/seed*.json"))

_posts = {}


def posts_of(folder: Path, split: str):
    if (folder, split) not in _posts:
        posts = load_posts(folder, split)
        _posts[folder, split] = posts["id"], plain(gold_aspects(posts)), file_hash(split_files(folder, split)[split])
    return _posts[folder, split]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RESULTS)))
def test_committed_predictions_give_the_committed_scores(path):
    result = read_result(path)
    if not (DATA / result["dataset"]).is_dir():
        pytest.skip(f"{result['dataset']} does not lie in shared/data beside the checkout nor in LRSA_TWITTER_DATA")
    for part, packed in result["predictions"].items():
        split = part.partition(",")[0]
        ids, gold, found_hash = posts_of(DATA / result["dataset"], split)
        assert found_hash == result["data"][split]
        assert [packed["id_prefix"] + name for name in packed["ids"]] == ids
        joint, classified = unpack_predictions(packed, gold)
        assert score(joint, classified, gold) == result["scores"][part]
        right = [count_right(found, given) for found, given in zip(joint, gold, strict=True)]
        assert right == list(zip(packed["jmasa"], packed["mate"], strict=True))
        assert packed["gold"] == [len(given) for given in gold]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RESULTS)))
def test_committed_results_are_small_and_belong_to_their_suite(path):
    result = read_result(path)
    assert path.stat().st_size < 50_000 * len(result["predictions"])
    suite = read_suite(SUITES / f"{path.parts[-3]}.yaml")
    (cell,) = suite.cells(f"{path.parent.name}/{path.stem}")
    assert (result["suite"], result["cell"], result["seed"]) == (cell.suite, cell.name, cell.seed)
    check_result(suite, cell, path, result)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("llm/*.json")), ids=lambda path: path.stem)
def test_committed_answers_of_large_models_give_the_committed_scores(path):
    if not (DATA / path.stem).is_dir():
        pytest.skip(f"{path.stem} does not lie in shared/data beside the checkout nor in LRSA_TWITTER_DATA")
    told = json.loads(path.read_text())
    ids, gold, _ = posts_of(DATA / path.stem, "test")
    assert list(told["aspects"]) == ids
    found = [[dict(zip(("start", "end", "polarity"), row)) for row in rows] for rows in told["aspects"].values()]
    scores = compute_mabsa_metrics(found, gold)
    assert scores == pytest.approx({name: told[name] for name in scores})
    assert sum(map(len, found)) == told["predicted_aspects"]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/errors.json")), ids=lambda path: path.parent.name)
def test_counts_of_errors_are_those_of_the_results(path):
    suite = read_suite(SUITES / f"{path.parent.name}.yaml")
    assert path == errors_path(RESULTS, suite)
    rows = read_rows(suite, RESULTS)
    if not all((DATA / row.dataset).is_dir() for row in rows):
        pytest.skip("the data sets lie neither in shared/data beside the checkout nor in LRSA_TWITTER_DATA")
    assert count_errors(suite, rows, DATA) == read_errors(RESULTS, suite), (
        f"run `lrsa benchmark {suite.path} --errors`"
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tables_are_those_of_the_results(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- benchmark claim" in text
    made = render(text, name, SUITES, RESULTS)
    assert made == text, "run `lrsa benchmark --tables`"
