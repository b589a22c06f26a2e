"""Accuracy over training."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from rstg_pyg.visualize import draw_learning_curves
from rstg_pyg.visualize.learning_curves import CURVES, spread

CLIPS = [0, 100, 200]
CURVE = {"one": [(CLIPS, [0.0, 0.4, 0.8]), (CLIPS, [0.2, 0.6, 0.6])], "two": [(CLIPS, [0.1, 0.2, 0.3])]}


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_the_mean_over_seeds_is_the_line_and_their_range_the_band():
    figure = draw_learning_curves(CURVE)
    lines = lines_of(figure)
    assert lines["one"].get_xdata().tolist() == CLIPS
    assert lines["one"].get_ydata() == pytest.approx([0.1, 0.5, 0.7])
    (band,) = figure.axes[0].collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(6).tolist()}
    assert corners == {(0, 0), (0, 0.2), (100, 0.4), (100, 0.6), (200, 0.6), (200, 0.8)}


def test_colours_follow_the_order():
    figure = draw_learning_curves({str(i): CURVE["two"] for i in range(len(CURVES) + 1)})
    lines = list(lines_of(figure).values())
    assert [to_hex(line.get_color()) for line in lines] == [*CURVES, CURVES[0]]
    assert (lines[0].get_linestyle(), lines[-1].get_linestyle()) == ("-", "--")


def test_names_stand_at_the_ends_with_the_last_accuracy():
    figure = draw_learning_curves(CURVE, title="curves", published={"two": 0.989, "three": 0.5}, chance=1 / 46)
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert set(texts) == {"one  70.0", "two  30.0", "paper 98.9", "chance"}
    assert texts["one  70.0"].xy == (200, pytest.approx(0.7))
    assert [text.get_text() for text in figure.texts] == ["curves"]


def test_names_of_lines_that_end_together_do_not_overlap():
    figure = draw_learning_curves({f"a long name {i}": [(CLIPS, [0, 0.5, 0.98 + i / 1000])] for i in range(8)})
    figure.canvas.draw()
    boxes = sorted((Text.get_window_extent(text) for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    assert all(box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_runs_of_different_points_are_compared_where_all_are():
    runs = [([0, 100, 300], [0.0, 0.2, 0.6]), ([50, 200], [0.3, 0.6])]
    line = lines_of(draw_learning_curves({"a": runs}))["a"]
    assert line.get_xdata().tolist() == [50, 100, 200]
    assert line.get_ydata() == pytest.approx([0.2, 0.3, 0.5])


def test_a_logarithmic_axis_and_a_point_that_is_a_dot():
    figure = draw_learning_curves({"a": [([10, 100], [0, 1])], "b": [([10], [0.5])]}, log=True)
    assert figure.axes[0].get_xscale() == "log"
    assert [line.get_marker() for line in lines_of(figure).values()] == ["", "o"]
    with pytest.raises(ValueError, match=r"^expected rising numbers of clips above 0 of 'one', got \[0\.0, 100"):
        draw_learning_curves(CURVE, log=True)


def test_labels_are_moved_apart_and_no_more_than_they_must():
    for heights in ([0.5], [0.5, 0.5, 0.5], [0.0, 0.01, 0.9, 1.0, 0.99], [0.3, 0.1, 0.2]):
        placed = spread(heights, 0.1)
        order = np.argsort(heights, kind="stable")
        assert (np.diff(np.array(placed)[order]) > 0.1 - 1e-9).all()
        assert min(placed) >= 0
        assert max(placed) <= 1 + 1e-9
        if (np.diff(np.array(heights)[order]) >= 0.1 - 1e-9).all():
            assert placed == pytest.approx(heights)
    assert spread([0.5, 0.2, 0.5], 0.1) == pytest.approx([0.45, 0.2, 0.55])


ERRORS = [
    ({}, "at least one curve, got none"),
    ({"a": []}, "at least one run of 'a', got none"),
    ({"a": [([1, 2], [0.5])]}, r"runs \(clips \[P\], accuracy \[P\]\) of 'a', got \[2\] and \[1\]"),
    ({"a": [([], [])]}, r"runs \(clips \[P\], accuracy \[P\]\) of 'a', got \[0\] and \[0\]"),
    ({"a": [([2, 1], [0, 1])]}, r"rising numbers of clips of 'a', got \[2\.0, 1\.0\]"),
    ({"a": [([1, 2], [50, 97.2])]}, r"accuracies within 0 to 1 of 'a', got \[50\.0, 97\.2\]"),
    ({"a": [([1, 2], [0, float("nan")])]}, r"accuracies within 0 to 1 of 'a', got \[0\.0, nan\]"),
    (
        {"a": [([1, 2], [0, 1]), ([3, 4], [0, 1])]},
        r"runs of 'a' that share a range of clips, got a start at 3\.0 after 2\.0",
    ),
]


def test_errors():
    for curves, message in ERRORS:
        with pytest.raises(ValueError, match=f"^expected {message}$"):
            draw_learning_curves(curves)
