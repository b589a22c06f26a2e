"""Answers, counted."""

import pytest
import torch

from rstg_pyg.training.answer_counts import AnswerCounts


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


def test_no_answers_have_no_mean():
    counts = AnswerCounts()
    counts.add(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="expected at least one clip that can be read, got none"):
        counts.check()


def test_answers_without_a_label_are_not_counted():
    with pytest.raises(ValueError, match="expected labels to count answers by, got -1: the test split is published"):
        AnswerCounts().add(torch.zeros(2, 3), torch.tensor([1, -1]))
