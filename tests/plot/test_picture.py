"""The histogram, and what the picture says."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from plot import plot
from plot.histogram import Histogram, axis_bins


def histogram_of(errors) -> Histogram:
    histogram = Histogram()
    histogram.add(list(errors))
    return histogram


def words(histogram: Histogram, monkeypatch, foreign: int = 0) -> str:
    """Draw, and return the title and the legend."""
    figures = []

    class KeptFigure(plot.Figure):
        def savefig(self, file):
            figures.append(self)
            super().savefig(file)

    monkeypatch.setattr(plot, "Figure", KeptFigure)
    png = plot.draw(histogram, foreign)
    assert Image.open(io.BytesIO(png)).size == (1000, 600)
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    return ", ".join([figures[0].axes[0].get_title(), *texts])


def test_each_tenth_starts_a_bin():
    histogram = histogram_of(float(f"{k / 10:.1f}") for k in range(200_000))
    assert histogram.bins[:200_000].tolist() == [1] * 200_000


def test_two_decimals_fall_into_the_bin_of_their_first():
    histogram = histogram_of(float(f"{k / 100:.2f}") for k in range(200_000))
    assert histogram.bins[:20_000].tolist() == [10] * 20_000


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [1, 2, 3, 10, 442, 5001])
def test_median_and_p90_are_those_of_numpy_to_one_bin(rows, seed, monkeypatch):
    errors = np.abs(np.random.default_rng(seed).normal(0, 50, rows)).round(2)
    said = words(histogram_of(errors.tolist()), monkeypatch)
    for name, percent in (("median", 50), ("90th percentile", 90)):
        exact = np.percentile(errors, percent, method="inverted_cdf")
        shown = float(re.search(rf"{name} ([\d.]+)", said)[1])
        assert shown <= exact < shown + 0.1 + 1e-9
    assert f"rows: {rows:,}" in said and f"mean {errors.mean():.2f}" in said


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ([0.0] * 5, "rows: 5, mean 0.00, median 0.0, 90th percentile 0.0"),
        ([43.2] * 1000, "rows: 1,000, mean 43.20, median 43.2, 90th percentile 43.2"),
        ([3.2, 15.95, 80], "rows: 3, mean 33.05, median 15.9, 90th percentile 80.0"),
        (
            [10, 20, 1e9],
            "rows: 3,  beyond the axis: 1, mean > 419,430 (beyond the axis), median 20",
        ),
        ([30.0] * 400 + [1e6] * 3 + [1e300], "rows: 404,  beyond the axis: 4"),
        ([1e6, 1e9], "beyond the axis: 2"),
        ([1.7e308] * 3, "90th percentile > 419,430 (beyond the axis)"),
    ],
)
def test_outliers_and_equal_rows_are_said_in_words(errors, sentence, monkeypatch):
    assert sentence in words(histogram_of(errors), monkeypatch)


def test_foreign_lines_are_said_on_the_picture(monkeypatch):
    said = words(histogram_of([1.0]), monkeypatch, foreign=1234)
    assert "rows: 1,  foreign lines skipped: 1,234" in said


@pytest.mark.parametrize("largest", [0, 0.1, 1, 12, 130, 999, 40_000, 419_430])
def test_the_axis_has_nice_bars_and_not_too_many(largest):
    errors = np.linspace(0, largest, 1000)
    shown, width = axis_bins(*histogram_of(errors.tolist()).filled())
    assert 24 <= shown / width <= 60
    assert str(width).rstrip("0") in ("1", "2", "5")
    assert shown >= largest * 10
