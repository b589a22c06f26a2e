"""Means of what every step measures, kept where it was computed until they are asked for."""

from __future__ import annotations

import torch
from torch import Tensor


class StepMeans:
    """Add up tensors of steps without reading them.

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
        self._sum: Tensor | None = None

    def add(self, values: Tensor) -> None:
        self._sum = values.detach().clone() if self._sum is None else self._sum + values.detach()
        self.count += 1

    def read(self) -> list[float]:
        """Return the mean over the steps since the last call, of which there must be one, and begin anew."""
        means = torch.div(self._sum, self.count).tolist()
        self.count, self._sum = 0, None
        return means
