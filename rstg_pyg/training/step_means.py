"""Means of what every step measures, kept where it was computed until they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rstg_pyg.blocks.frame_vectors import next_mean


class StepMeans:
    """Average tensors of steps without reading them.

    Shapes:
        - **values:** ``[n]``, the same n in every step.

    Example:
        >>> import torch
        >>> from rstg_pyg.training.step_means import StepMeans
        >>> means = StepMeans()
        >>> means.add(torch.tensor([1.0, 0.0]))
        >>> means.add(torch.tensor([2.0, 1.0]))
        >>> means.read(), means.count
        ([1.5, 0.5], 0)
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Sequence[Tensor] = ()

    def add(self, values: Tensor) -> None:
        _, *self._mean = next_mean(values.detach(), *self._mean)
        self.count += 1

    def read(self) -> list[float]:
        """Return the mean over the steps since the last call, of which there must be one, and begin anew."""
        means = self._mean[0].tolist()
        self.count, self._mean = 0, ()
        return means
