"""Gradients from the plain formula of a kernel: they can be differentiated again, and taken for a batch at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def takes_plain_gradient(*grads: Tensor | None) -> bool:
    """Whether a backward pass is to be differentiated itself, or is one of a batch (``is_grads_batched``, ``vmap``)."""
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or any(grad is not None and torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads)
    )


def differentiable_gradients(
    plain: Callable[[], Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grad: Tensor | Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``plain()`` in those of its inputs that need one, with a graph behind them where autograd
    is on.

    ``grad`` is the gradient of the output, or one for each of several outputs.
    """
    wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        output = plain()
    # The graph is retained, for one input may lead to another: part of it is then of the pass that is running.
    options = {"retain_graph": True, "create_graph": create_graph, "allow_unused": True}
    found = iter(torch.autograd.grad(output, wanted, grad, **options))
    return tuple(next(found) if need else None for need in needed)
