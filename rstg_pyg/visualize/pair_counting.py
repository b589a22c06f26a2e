"""How many clips of SyncMNIST were told right, for every pair of digits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rstg_pyg.datasets.labels import NO_SYNC, NUM_CLASSES, NUM_PAIRS, label_to_pair


class PairAccuracy(NamedTuple):
    """Accuracy by what moves in step.

    Attributes:
        accuracy: Share of the clips of digits i and j that were told right, ``[10, 10]``, symmetric; NaN where there
            was no such clip, as on the diagonal.
        counts: Number of these clips, ``[10, 10]``.
        none: The same two numbers of the clips in which no two digits move in step.
    """

    accuracy: Tensor
    counts: Tensor
    none: tuple[float, int]

    @classmethod
    def of_counts(cls, counts: Tensor, correct: Tensor) -> PairAccuracy:
        """From the number of clips, and of clips told right, of each of the 46 classes."""
        counts, correct = torch.as_tensor(counts), torch.as_tensor(correct)
        if counts.shape != (NUM_CLASSES,) or correct.shape != (NUM_CLASSES,):
            raise ValueError(
                f"expected counts and correct of shape [{NUM_CLASSES}], got {list(counts.shape)} and "
                f"{list(correct.shape)}"
            )
        for label, (number, right) in enumerate(zip(counts.tolist(), correct.tolist(), strict=True)):
            if not 0 <= right <= number:
                raise ValueError(
                    f"expected 'correct' within 0 to 'counts' in every class, got {right} of {number} in class {label}"
                )
        high, low = torch.tensor([label_to_pair(label) for label in range(NUM_PAIRS)]).t()
        matrix = torch.zeros(2, 10, 10, dtype=torch.double)
        matrix[:, high, low] = matrix[:, low, high] = torch.stack([counts, correct]).cpu().double()[:, :NUM_PAIRS]
        return cls(
            (matrix[1] / matrix[0]).float(),
            matrix[0].long(),
            (float(correct[NO_SYNC] / counts[NO_SYNC]), int(counts[NO_SYNC])),
        )


def pair_accuracy(labels: Tensor, predictions: Tensor) -> PairAccuracy:
    """Count for every pair of digits how many of its clips were told right.

    Args:
        labels: True classes.
        predictions: Predicted classes.

    Shapes:
        - **labels, predictions:** ``[n]``, whole numbers within 0 to 45.

    Raises:
        ValueError: If they are not of one length, or a label is none of the 46.

    Source: the labels of SyncMNIST in "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg.visualize import pair_accuracy
        >>> result = pair_accuracy(torch.tensor([22, 22, 45]), torch.tensor([22, 0, 45]))
        >>> float(result.accuracy[7, 1]), int(result.counts[1, 7]), result.none
        (0.5, 2, (1.0, 1))
    """
    labels, predictions = torch.as_tensor(labels).cpu(), torch.as_tensor(predictions).cpu()
    if labels.dim() != 1 or labels.shape != predictions.shape:
        raise ValueError(
            f"expected labels and predictions of one shape [n], got {list(labels.shape)} and {list(predictions.shape)}"
        )
    for name, classes in (("labels", labels), ("predictions", predictions)):
        if classes.is_floating_point() or ((classes < 0) | (classes >= NUM_CLASSES)).any():
            raise ValueError(f"expected {name} to be whole numbers within 0 to {NO_SYNC}, got {classes.tolist()}")
    counts = labels.bincount(minlength=NUM_CLASSES)
    return PairAccuracy.of_counts(counts, labels[labels == predictions].bincount(minlength=NUM_CLASSES))
