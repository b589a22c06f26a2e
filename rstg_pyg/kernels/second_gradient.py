"""Gradients that can be differentiated again, from the plain formula of a kernel."""

from collections.abc import Callable, Sequence
from typing import Optional

import torch
from torch import Tensor


def differentiable_gradients(
    plain: Callable[[], Tensor], inputs: Sequence[Optional[Tensor]], needed: Sequence[bool], grad: Tensor
) -> tuple[Optional[Tensor], ...]:
    """Return the gradients of ``plain()`` in those of its inputs that need one, with a graph behind them."""
    wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(plain(), wanted, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in needed)
