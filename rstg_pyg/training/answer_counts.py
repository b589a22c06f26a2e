"""What a classifier answered, counted over batches and processes."""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

TOP = 5


class AnswerCounts:
    r"""Count answers by label, kept where they were computed until they are asked for.

    .. math::
        \mathrm{accuracy} = \frac{\mathrm{tr} \, \mathbf{C}}{\sum_{y, a} C_{y a}}, \qquad
        C_{y a} = \text{clips of label } y \text{ with answer } a

    Shapes:
        - **logits:** ``[B, M]``. **label:** ``[B]``. **confusion:** ``[M, M]``, by label and answer.

    Raises:
        ValueError: If a label is below 0, as where none is published; by :meth:`check`, if nothing was counted.

    Example:
        >>> import torch
        >>> from rstg_pyg.training.answer_counts import AnswerCounts
        >>> counts = AnswerCounts()
        >>> counts.add(torch.tensor([[0.0, 9.0], [9.0, 0.0]]), torch.tensor([1, 1]))
        >>> counts.confusion.tolist(), counts.accuracy.item(), counts.top5.item()
        ([[0, 0], [1, 1]], 0.5, 1.0)
    """

    def __init__(self) -> None:
        self.confusion: Tensor | int = 0
        self._in_top: Tensor | int = 0
        self._loss: Tensor | float = 0.0

    def add(self, logits: Tensor, label: Tensor) -> None:
        classes = logits.size(1)
        if (label < 0).any():
            raise ValueError("expected labels to count answers by, got -1: the test split is published without")
        counts = torch.bincount(classes * label + logits.argmax(1), minlength=classes**2)
        self.confusion = self.confusion + counts.view(classes, classes)
        first = logits.topk(min(TOP, classes), 1).indices
        self._in_top = self._in_top + (first == label[:, None]).sum()
        losses = torch.nn.functional.cross_entropy(logits, label, reduction="none")
        # The mean itself: a sum of all clips would outgrow the digits of its type.
        self._loss = self._loss + (losses - self._loss).sum() / self.confusion.sum().clamp(min=1)

    def gather(self, strategy: Strategy) -> None:
        """Add up the counts of all processes, in each."""
        own = self.confusion.sum()
        self.confusion = strategy.reduce(self.confusion, reduce_op="sum")
        self._in_top = strategy.reduce(self._in_top, reduce_op="sum")
        self._loss = strategy.reduce(self._loss * (own / self.confusion.sum()), reduce_op="sum")

    def check(self) -> None:
        """Raise if nothing was counted: all means would be 0 / 0."""
        if not self.confusion.any():
            raise ValueError("expected at least one clip that can be read, got none")

    @property
    def accuracy(self) -> Tensor:
        """Share of right answers."""
        return self.confusion.trace() / self.confusion.sum()

    @property
    def top5(self) -> Tensor:
        """Share of clips whose label is among the five likeliest classes."""
        return self._in_top / self.confusion.sum()

    @property
    def loss(self) -> Tensor:
        """Mean cross-entropy."""
        return self._loss
