"""Answers, counted."""

import pytest
import torch

from rstg_pyg.training.answer_counts import AnswerCounts
from rstg_pyg.training.step_means import StepMeans


@pytest.mark.parametrize("classes", [3, 5, 9])
def test_means_are_those_of_all_answers_whatever_the_batches(classes):
    torch.manual_seed(0)
    logits, label = torch.randn(23, classes), torch.randint(classes, (23,))
    counts = AnswerCounts()
    for part in (slice(0, 10), slice(10, 10), slice(10, 23)):
        counts.add(logits[part], label[part])
    ranks = (logits > logits.gather(1, label[:, None])).sum(1)
    assert counts.accuracy == pytest.approx((ranks == 0).double().mean().item())
    assert counts.top5 == pytest.approx((ranks < 5).double().mean().item())
    assert counts.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, label).item(), rel=1e-5)
    assert counts.confusion.sum(1).tolist() == label.bincount(minlength=classes).tolist()
    assert counts.confusion.sum(0).tolist() == logits.argmax(1).bincount(minlength=classes).tolist()


def test_means_keep_their_digits_over_many_batches():
    """A float32 sum of ones ends at 2**24."""
    counts, logits, label = AnswerCounts(), torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    counts.add(logits, label)
    loss = counts.loss
    counts.confusion = counts.confusion * 2**25  # As many such clips.
    counts.add(-logits.expand(2**20, 2), label.expand(2**20))
    assert counts.loss == pytest.approx((32 * loss + (loss - 1)) / 33)

    means = StepMeans()
    means.add(torch.tensor([1.0, 0.1], dtype=torch.bfloat16))
    for _ in range(700):
        means.add(torch.tensor([1.0, 0.1], dtype=torch.bfloat16))
    assert means.read() == pytest.approx([1.0, 0.1], rel=1e-2)


def test_no_answers_have_no_mean():
    counts = AnswerCounts()
    counts.add(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="expected at least one clip that can be read, got none"):
        counts.check()


def test_answers_without_a_label_are_not_counted():
    with pytest.raises(ValueError, match="expected labels to count answers by, got -1: the test split is published"):
        AnswerCounts().add(torch.zeros(2, 3), torch.tensor([1, -1]))
