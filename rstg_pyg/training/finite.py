"""Stop a run whose loss or weights are no longer finite, without waiting for the accelerator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module


class DivergenceError(RuntimeError):
    """A loss or a weight that is not finite."""


class LossWatch:
    """Look at every loss one step late: by then it has been computed, and nothing has to wait for it.

    Args:
        advice: End of the error's sentence.

    Raises:
        DivergenceError: By :meth:`check`, if the loss that was noted last is not finite.

    Example:
        >>> import torch
        >>> from rstg_pyg.training.finite import LossWatch
        >>> watch = LossWatch("lower the learning rate")
        >>> watch.note(torch.tensor(torch.nan), step=3)
        >>> watch.check()
        Traceback (most recent call last):
        rstg_pyg.training.finite.DivergenceError: expected a finite loss, got nan at step 3: lower the learning rate
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self._noted: tuple[Tensor, int] | None = None
        self._copied: torch.cuda.Event | None = None

    def note(self, loss: Tensor, step: int) -> None:
        """Begin to copy a step's loss to the host."""
        self._noted = loss.detach().to("cpu", non_blocking=True), step
        if loss.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def check(self) -> None:
        """Raise if the noted loss is not finite, then forget it."""
        if self._noted is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
        (loss, step), self._noted, self._copied = self._noted, None, None
        if not torch.isfinite(loss):
            raise DivergenceError(f"expected a finite loss, got {loss.item()} at step {step}: {self.advice}")


def check_weights_finite(module: Module, step: int, advice: str) -> None:
    """Raise :class:`DivergenceError` if a floating-point parameter or buffer holds a value that is not finite."""
    state = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
    if not state:
        return
    finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist()
    wrong = [name for name, fine in zip(state, finite, strict=True) if not fine]
    if wrong:
        raise DivergenceError(
            f"expected finite weights, got others in {len(wrong)} tensor(s) after step {step - 1}, first in "
            f"{wrong[0]}: {advice}"
        )
