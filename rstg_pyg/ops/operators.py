"""What makes a function an operator of PyTorch, so that compilers, exports, profilers and FLOP counters see it as one;
and its gradients, which can be differentiated again."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Parameter
from torch.utils.flop_counter import register_flop_formula

from rstg_pyg.watched import is_transformed, operations_are_watched


def operator(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    device: str | None = "cpu",
    save: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    flops: Callable[..., int] | None = None,
) -> Callable[..., Any]:
    """Register ``kernel`` as ``torch.ops.rstg_pyg.<name>`` and return a function that computes it.

    The function calls the operator where somebody follows, and else the kernel itself, or a function of autograd around
    it: the way through PyTorch's dispatcher and back to Python costs up to a tenth of a millisecond each time.

    Args:
        schema: Name, arguments and results, as of :func:`torch.library.define`.
        kernel: What runs, on tensors of ``device`` (None: of any).
        fake: Makes empty results of the right shapes from the same arguments, for compilers.
        save: Keeps what ``backward`` needs, see :func:`torch.library.register_autograd`.
        backward: Gradients of the inputs from those of the results.
        flops: Number of floating point operations of the products with weights, from the shapes of the arguments.
    """
    name, signature = schema.split("(", 1)
    qualified = f"rstg_pyg::{name}"
    torch.library.define(qualified, f"({signature}", tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(qualified, "default" if device is None else device, kernel)
    # As register_fake does, which also looks for the caller's source in all modules that are loaded: 35 ms at import.
    torch.library.impl(qualified, "meta", fake)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=save)
    packet = getattr(torch.ops.rstg_pyg, name)
    if flops is not None:
        register_flop_formula(packet)(flops)
    return _Call(packet.default, kernel, device, save, backward)


class _Call:
    def __init__(
        self,
        registered: Callable[..., Any],
        kernel: Callable[..., Any],
        device: str | None,
        save: Callable[..., None] | None,
        backward: Callable[..., Any] | None,
    ) -> None:
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = kernel(*inputs)
            save(ctx, inputs, output)
            return output

        self.registered = registered
        self.kernel = kernel
        self.device = device
        methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        self.function = type(kernel.__qualname__, (Function,), methods) if backward is not None else None

    def __call__(self, *inputs: Any) -> Any:
        if torch.compiler.is_compiling() or operations_are_watched() or torch.autograd._profiler_enabled():
            return self.registered(*inputs)
        needs_gradient = False
        for value in inputs:
            if isinstance(value, Tensor):
                is_own = type(value) in (Tensor, Parameter) and self.device in (None, value.device.type)
                if not is_own or value.is_neg():  # PyTorch negates a lazily negated view on the way.
                    return self.registered(*inputs)
                needs_gradient |= value.requires_grad
        if needs_gradient and self.function is not None and torch.is_grad_enabled():
            return self.function.apply(*inputs)
        return self.kernel(*inputs)


def without_autocast() -> AbstractContextManager:
    """Within it, kernels compute in the types that they were given."""
    return torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext()


def takes_plain_gradient(*grads: Tensor | None) -> bool:
    """Whether a backward pass is to be differentiated itself, or is one of a batch (``is_grads_batched``, ``vmap``)."""
    return torch.is_grad_enabled() or is_transformed(*grads)


def differentiable_gradients(
    plain: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grad: Tensor | Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``plain(*inputs)`` in those of its inputs that need one, with a graph behind them where
    autograd is on.

    ``grad`` is the gradient of the output, or one for each of several outputs.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Nodes of their own: where one input leads to another, as a weight to the rows of a later call, its gradient
        # would else count that way too, which the pass that is running follows.
        own = [value.view_as(value) if need else value for value, need in zip(inputs, needed, strict=True)]
        output = plain(*own)
    wanted = [value for value, need in zip(own, needed, strict=True) if need]
    found = iter(torch.autograd.grad(output, wanted, grad, create_graph=create_graph, allow_unused=True))
    return tuple(next(found) if need else None for need in needed)
