"""The figures of a suite."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.errors import count_errors
from benchmarks.figures import calibration_error, draw
from benchmarks.rows import read_rows
from benchmarks.suite import read_suite
from hub_scripts.cli import main


def test_calibration_error_is_the_mean_distance_of_score_and_share():
    assert calibration_error([[10, 9.0, 9], [0, 0.0, 0]]) == 0
    assert calibration_error([[10, 9.0, 5], [30, 6.0, 12]]) == pytest.approx((4 + 6) / 40)
    assert calibration_error([[0, 0.0, 0]]) == 0


def test_each_figure_is_a_picture(finished, data_root):
    path, results = finished
    suite = read_suite(path)
    rows = read_rows(suite, results)
    pictures = draw(rows, count_errors(suite, rows, data_root))
    assert list(pictures) == ["curves", "slices", "confusion", "calibration", "gates"]
    for picture in pictures.values():
        image = Image.open(BytesIO(picture))
        assert image.format == "PNG" and min(image.size) > 200
        assert len(image.convert("L").getcolors()) > 10  # something is drawn
    assert "gates" not in draw(rows[:1], count_errors(suite, rows, data_root))


def test_the_command_writes_counts_and_figures(finished, data_root, tmp_path, monkeypatch, capsys):
    path, results = finished
    monkeypatch.chdir(tmp_path)
    command = ["benchmark", str(path), "--data-root", str(data_root), "--results"]
    assert main([*command, str(results), "--errors"]) == 0
    written = capsys.readouterr().out.split()
    assert written == [f"{results}/small/errors.json", *(f"{results}/small/small_{name}.png" for name in
                       ("curves", "slices", "confusion", "calibration", "gates"))]  # fmt: skip
    assert all(Path(name).is_file() for name in written)
    assert main([*command, str(tmp_path), "--errors"]) == 2
    assert "holds no result yet" in capsys.readouterr().err
