"""Tables, from result files with known figures."""

import json
import re
import shutil

import numpy as np
import pytest

from benchmarks.significance import approximate_randomization
from benchmarks.suite import read_suite
from benchmarks.tables import DOCUMENTS, TABLES, counts_of, read_rows, render, write_tables
from hub_scripts.cli import main
from processing import PostError


@pytest.fixture
def results(finished, tmp_path):
    """Results with two seeds of one arm and one of the other."""
    folder = tmp_path / "results"
    shutil.copytree(finished[1], folder)
    for arm, seed, jmasa, aspects in (("off", 1, 40.0, 3), ("off", 2, 44.0, 2), ("lrsa", 1, 50.0, 3)):
        source = folder / "small" / f"tiny-vlp-{arm}" / "seed1.json"
        result = json.loads(source.read_text())
        result["seed"] = seed
        result["scores"]["test"]["jmasa_f1"] = jmasa
        result["scores"]["test"]["mate_f1"] = 2 * jmasa
        packed = result["predictions"]["test"]
        packed["gold"] = [2, 1, 1]
        packed["jmasa"] = [1, 1, 0] if arm == "off" else [2, 1, 0]
        packed["aspects"] = [[[0, 1, 0, 0.5]] * aspects, [[0, 1, 0, 0.5]], []]
        source.with_name(f"seed{seed}.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def suite(suite_file):
    return read_suite(suite_file)


def cells_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]


def test_scores_are_means_over_the_seeds_that_are_there(suite, results):
    off, lrsa = cells_of(TABLES["scores"](suite, read_rows(suite, results)))
    assert off[:4] == ["tiny", "vlp", "off", "2"]
    assert off[5:7] == ["42.00 ± 2.83", "84.00 ± 5.66"]
    assert lrsa[2:4] == ["lrsa", "1 of 2"] and lrsa[5:7] == ["50.00", "100.00"]


def test_results_of_another_recipe_are_refused(results, suite_file):
    suite_file.write_text(suite_file.read_text().replace("num_train_epochs: 2", "num_train_epochs: 3"))
    with pytest.raises(PostError, match=r"tiny-vlp-off/seed1\.json: was made with num_train_epochs 2, .* now says 3"):
        read_rows(read_suite(suite_file), results)


def test_comparison_is_over_the_seeds_that_both_arms_have(suite, results):
    rows = read_rows(suite, results)
    (line,) = cells_of(TABLES["comparisons"](suite, rows))
    off, lrsa = rows
    difference, p = approximate_randomization(counts_of(lrsa.runs[1]), counts_of(off.runs[1]))
    assert difference == pytest.approx(200 * 3 / 8 - 200 * 2 / 8)
    assert line == ["tiny", "vlp", "lrsa − off", "1 of 2", "+25.00", f"{p:.4f}", f"{p:.4f}"]
    assert counts_of(off.runs[1]).tolist() == [[1, 3, 2], [1, 1, 1], [0, 0, 1]]


def test_several_comparisons_are_corrected_for_their_number(suite, results, suite_file):
    suite_file.write_text(suite_file.read_text() + "  - [off, lrsa]\n")
    suite = read_suite(suite_file)
    lines = cells_of(TABLES["comparisons"](suite, read_rows(suite, results)))
    assert [float(line[6]) for line in lines] == [min(1, 2 * float(line[5])) for line in lines]
    assert lines[0][4] == "+25.00" and lines[1][4] == "−25.00"


def test_seeds_are_pooled_by_post(suite, results):
    _, lrsa = read_rows(suite, results)
    shutil.copy(results / "small/tiny-vlp-lrsa/seed1.json", results / "small/tiny-vlp-lrsa/seed2.json")
    off, lrsa = read_rows(suite, results)
    pooled = [counts_of(row.runs[1]) + counts_of(row.runs[2]) for row in (lrsa, off)]
    assert pooled[1].tolist() == [[2, 5, 4], [2, 2, 2], [0, 0, 2]]
    difference, p = approximate_randomization(*pooled)
    (line,) = cells_of(TABLES["comparisons"](suite, read_rows(suite, results)))
    assert line[3:6] == ["2", f"{difference:+.2f}", f"{p:.4f}"]


def test_cost_and_summary(suite, results):
    rows = read_rows(suite, results)
    off, _ = cells_of(TABLES["cost"](suite, rows))
    runs = rows[0].runs.values()
    assert off[5] == f"{1000 * np.median([run['seconds']['test']['processor'] for run in runs]) / 3:.0f}"
    (line,) = cells_of(TABLES["summary"](suite, rows))
    assert line[:4] == ["tiny", "vlp", "42.00 ± 2.83 (2)", "50.00 (1 of 2)"]
    assert re.fullmatch(r"\+25\.00 \([01]\.\d{4}\)", line[4])


def test_documents(suite_file, results, tmp_path, finished):
    text = "Before\n<!-- benchmark small scores -->\nold\n<!-- end -->\nAfter\n"
    made = render(text, "page.md", suite_file.parent, results)
    assert made.startswith("Before\n<!-- benchmark small scores -->\n\n| data set |")
    assert made.endswith("|\n\n<!-- end -->\nAfter\n") and "old" not in made
    assert render(made, "page.md", suite_file.parent, results) == made
    assert "No run of this suite has a result yet." in render(text, "page.md", suite_file.parent, tmp_path / "none")
    with pytest.raises(PostError, match=r"page\.md: there is no table 'score'"):
        render(text.replace("scores", "score"), "page.md", suite_file.parent, results)
    with pytest.raises(PostError, match=r"huge\.yaml: no such suite"):
        render(text.replace("small", "huge"), "page.md", suite_file.parent, results)
    (results / "small/tiny-vlp-off/seed2.json").write_text("{")
    with pytest.raises(PostError, match=r"seed2\.json: is no whole JSON file; run its suite again"):
        render(text, "page.md", suite_file.parent, results)


def test_arms_without_a_common_seed_are_not_compared(suite_file, results):
    (results / "small/tiny-vlp-lrsa/seed1.json").unlink()
    text = "<!-- benchmark small comparisons -->\nold\n<!-- end -->"
    made = render(text, "page.md", suite_file.parent, results)
    assert "\nNo two arms that are compared have runs of one seed yet.\n" in made and "|" not in made


def test_caveats_stand_beside_tables_of_twitter(results, suite_file, data_root):
    text = suite_file.read_text().replace("  tiny:", "  twitter2017:")
    suite_file.write_text(text)
    for arm in ("off", "lrsa"):
        (results / f"small/tiny-vlp-{arm}").rename(results / f"small/twitter2017-vlp-{arm}")
    page = "".join(f"<!-- benchmark small {table} -->\n<!-- end -->\n" for table in TABLES)
    made = render(page, "page.md", suite_file.parent, results)
    assert made.count("The rationales of Twitter-2017 come from other projects") == 3  # all but the cost
    assert made.count("no pictures") == 3


def test_command_writes_the_documents(results, suite_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "--tables", "--results", str(results)]) == 2
    assert capsys.readouterr().err.startswith("lrsa benchmark: README.md: no such file")
    (tmp_path / "docs").mkdir()
    for name in DOCUMENTS:
        (tmp_path / name).write_text("<!-- benchmark claim summary -->\nold\n<!-- end -->\n")
    assert main(["benchmark", "--tables", "--results", str(results)]) == 0
    assert capsys.readouterr().out == f"Made anew: {', '.join(DOCUMENTS)}\n"
    assert "No run of this suite has a result yet." in (tmp_path / "README.md").read_text()
    assert main(["benchmark", "--tables", "--results", str(results)]) == 0
    assert capsys.readouterr().out == "All tables are as the results say.\n"
    assert write_tables(tmp_path, results) == []


def test_large_models_stand_by_data_set(suite_file, tmp_path):
    told = {"model": "some@1", "shots": 3, "posts": 10, "unanswered": 1, "invalid_answers": 2}
    told |= {"predicted_aspects": 6, "invalid_items": 4, "masc_accuracy": 70.0}
    scores = {"jmasa_precision": 30.0, "jmasa_recall": 20.0, "jmasa_f1": 24.0, "mate_f1": 40.004}
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "twitter2017.json").write_text(json.dumps(told | scores))
    text = "<!-- benchmark llm scores -->\nold\n<!-- end -->"
    made = render(text, "here", suite_file.parent, tmp_path)
    (line,) = (cells for cells in cells_of(made.partition("| data set")[2]) if len(cells) > 1)
    assert line == [
        "Twitter-2017", "some@1", "3", "30.00", "20.00", "24.00", "40.00", "70.00", "3 of 10", "4 of 10"
    ]  # fmt: skip


@pytest.mark.parametrize("damaged", ['{"model": "some@1", "sho', '{"model": "some@1"}', "[]"])
def test_a_damaged_file_of_a_large_model_is_told_in_one_line(suite_file, tmp_path, damaged):
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "twitter2017.json").write_text(damaged)
    with pytest.raises(PostError, match="llm/twitter2017.json: not what `lrsa evaluate --llm --output` writes"):
        render("<!-- benchmark llm scores -->\nold\n<!-- end -->", "here", suite_file.parent, tmp_path)
