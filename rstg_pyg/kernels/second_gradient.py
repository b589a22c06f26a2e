"""Gradients that can be differentiated again, from the plain formula of a kernel."""

from collections.abc import Callable, Sequence
from typing import Optional, Union

import torch
from torch import Tensor


def differentiable_gradients(
    plain: Callable[[], Union[Tensor, Sequence[Tensor]]],
    inputs: Sequence[Optional[Tensor]],
    needed: Sequence[bool],
    grad: Union[Tensor, Sequence[Tensor]],
) -> tuple[Optional[Tensor], ...]:
    """Return the gradients of ``plain()`` in those of its inputs that need one, with a graph behind them.

    ``grad`` is the gradient of the output, or one for each of several outputs.
    """
    wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(plain(), wanted, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in needed)
