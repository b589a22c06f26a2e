"""Accuracy for every pair of digits."""

import math

import pytest
import torch

from rstg_pyg.datasets import NO_SYNC, pair_to_label
from rstg_pyg.visualize import PairAccuracy, draw_pair_accuracy, pair_accuracy

LABELS = torch.tensor([pair_to_label(7, 1)] * 4 + [pair_to_label(3, 2)] + [NO_SYNC] * 2)
PREDICTIONS = torch.tensor([pair_to_label(7, 1)] * 3 + [0, 0, NO_SYNC, 3])


def cells_of(figure):
    """Texts and hatches of the cells by (x, y)."""
    ax = figure.axes[0]
    texts = {text.get_position(): text.get_text() for text in ax.texts if text.get_ha() == "center"}
    boxes = [(patch, patch.get_bbox()) for patch in ax.patches]
    hatched = {(round(box.x0 + 0.45, 6), round(box.y0 + 0.45, 6)) for patch, box in boxes if patch.get_hatch()}
    return texts, hatched, len(boxes)


def test_it_counts_clips_told_right():
    accuracy, counts, none = pair_accuracy(LABELS, PREDICTIONS)
    assert (accuracy[7, 1], accuracy[1, 7], accuracy[3, 2]) == (0.75, 0.75, 0)
    assert (counts[7, 1], counts[1, 7], counts[3, 2], counts[5, 4]) == (4, 4, 1, 0)
    assert none == (0.5, 2)
    assert torch.equal(accuracy.isnan(), counts == 0)
    assert accuracy.isnan().sum() == 100 - 4


def test_every_label_has_its_cell():
    labels = torch.arange(46).repeat_interleave(2)
    accuracy, counts, none = pair_accuracy(labels, labels)
    assert torch.equal(counts, 2 - 2 * torch.eye(10, dtype=torch.long))
    assert (accuracy[counts > 0] == 1).all()
    assert none == (1, 2)


def test_counts_say_the_same():
    counts = LABELS.bincount(minlength=46)
    correct = LABELS[LABELS == PREDICTIONS].bincount(minlength=46)
    for ours, theirs in zip(PairAccuracy.of_counts(counts, correct), pair_accuracy(LABELS, PREDICTIONS), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_none_of_none_is_not_a_number():
    assert math.isnan(pair_accuracy(LABELS[:5], PREDICTIONS[:5]).none[0])


def test_cells_hold_percent_and_are_hatched_where_there_was_no_clip():
    texts, hatched, number = cells_of(draw_pair_accuracy(pair_accuracy(LABELS, PREDICTIONS), "pairs"))
    # x is the smaller digit, y the larger one; "none" stands in the free half.
    assert texts == {(1, 7): "75", (2, 3): "0", (8, 3.3): "50"}
    assert hatched == {(low, high) for high in range(10) for low in range(high)} - {(1, 7), (2, 3)}
    assert number == 46


def test_the_accuracy_of_all_clips_is_named():
    figure = draw_pair_accuracy(pair_accuracy(LABELS, PREDICTIONS), "pairs")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "57.1 %" in texts
    assert "right of 7 clips" in texts
    assert [text.get_text() for text in figure.texts] == ["pairs"]


def test_none_is_hatched_too():
    assert (8, 3.3) in cells_of(draw_pair_accuracy(pair_accuracy(LABELS[:5], PREDICTIONS[:5])))[1]


def test_colours_start_at_the_least_accuracy():
    for lowest, ticks in ((None, [80, 90, 100]), (0.5, [50, 75, 100])):
        counts = torch.full((46,), 100)
        correct = counts.clone()
        correct[3] = 84
        scale = draw_pair_accuracy(PairAccuracy.of_counts(counts, correct), lowest=lowest).axes[1]
        assert scale.get_xticks() == pytest.approx(ticks)


ERRORS = [
    (
        lambda: pair_accuracy(LABELS, PREDICTIONS[:3]),
        r"labels and predictions of one shape \[n\], got \[7\] and \[3\]",
    ),
    (lambda: pair_accuracy([46], [0]), r"labels to be whole numbers within 0 to 45, got \[46\]"),
    (lambda: pair_accuracy([0], [-1]), r"predictions to be whole numbers within 0 to 45, got \[-1\]"),
    (lambda: pair_accuracy([0.5], [1]), r"labels to be whole numbers within 0 to 45, got \[0\.5\]"),
    (lambda: PairAccuracy.of_counts([1], [1]), r"counts and correct of shape \[46\], got \[1\] and \[1\]"),
    (
        lambda: PairAccuracy.of_counts(torch.zeros(46), torch.ones(46)),
        "'correct' within 0 to 'counts' in every class, got 1.0 of 0.0 in class 0",
    ),
    (
        lambda: draw_pair_accuracy(PairAccuracy.of_counts(torch.zeros(46), torch.zeros(46))),
        "the accuracy of at least one clip, got none",
    ),
    (
        lambda: draw_pair_accuracy(pair_accuracy(LABELS, LABELS), lowest=1),
        "'lowest' to be at least 0 and less than 1, got 1",
    ),
]


def test_errors():
    for call, message in ERRORS:
        with pytest.raises(ValueError, match=f"^expected {message}$"):
            call()
