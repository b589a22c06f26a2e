"""Who follows what is computed, so that no shorter way may pass him by.

What PyTorch tells about this in private alone is asked for here and nowhere else.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Module
from torch.nn.modules.module import _has_any_global_hook
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.conv import MessagePassing


def is_bare(module: Module, *kinds: type[Module]) -> bool:
    """Whether a call of ``module`` does what its class, one of ``kinds``, does and nothing else: then its weights may
    be read in place of the call.

    A subclass does something else (parametrisations and adapters make one), and so does a ``forward`` put on the
    instance; a hook of any kind is to be called (pruning and hook-based ``weight_norm`` are hooks).

    Example:
        >>> layer = torch.nn.Linear(4, 4)
        >>> is_bare(layer, torch.nn.Linear)
        True
        >>> is_bare(torch.nn.utils.parametrizations.weight_norm(layer), torch.nn.Linear)
        False
    """
    own = module.__dict__
    return type(module) in kinds and not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )


def everything_is_watched() -> bool:
    """Whether somebody follows all calls of modules or all operations of PyTorch, and would miss what a kernel of one's
    own does: hooks on all modules, a transform of :mod:`torch.func`, forward-mode differentiation, ``torch.jit.trace``,
    or a dispatch mode such as a FLOP counter or fake tensors. Compilers, which use some of these, are another matter:
    for them it is false."""
    return calls_are_watched() or (not torch.compiler.is_compiling() and operations_are_watched())


def calls_are_watched() -> bool:
    """Whether somebody follows all calls of modules: see :func:`everything_is_watched`."""
    return not torch.compiler.is_compiling() and _has_any_global_hook()


def operations_are_watched() -> bool:
    """Whether somebody follows all operations of PyTorch: see :func:`everything_is_watched`."""
    return bool(
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
    )


MESSAGE_METHODS = ("message", "aggregate", "message_and_aggregate", "update", "edge_update")
_HOOKS = [
    f"_{method}_forward_{when}"
    for method in ("propagate", *MESSAGE_METHODS)
    if method != "update"
    for when in ("pre_hooks", "hooks")
]


def messages_are_watched(conv: MessagePassing, methods: Mapping[str, Any]) -> bool:
    """Whether somebody sees, changes or replaces a part of the message passing of ``conv``, which is to be done per
    edge then: explanations, hooks on messages, other aggregations than a sum, methods other than ``methods``."""
    cls, own = type(conv), conv.__dict__
    return bool(
        conv.explain
        or not is_bare(conv.aggr_module, SumAggregation)
        or any([own[name] for name in _HOOKS])
        or any([getattr(cls, name) is not method or name in own for name, method in methods.items()])
        or _is_written_by_hand(conv, "propagate")
        or _is_written_by_hand(conv, "edge_updater")
    )


def _is_written_by_hand(conv: MessagePassing, name: str) -> bool:
    """Whether a method is neither the one that PyG generates for the class nor the one that it falls back to."""
    cls, method = type(conv), getattr(conv, name)
    return method.__module__ != f"{cls.__module__}_{cls.__name__}_{name}" and getattr(
        method, "__func__", None
    ) is not getattr(MessagePassing, name)


def is_transformed(*values: Tensor | None) -> bool:
    """Whether a transform of :mod:`torch.func` is active, or a tensor stands for a batch of them."""
    return torch._C._are_functorch_transforms_active() or any(
        value is not None and torch._C._functorch.is_legacy_batchedtensor(value) for value in values
    )


def assert_later(condition: Tensor, message: str) -> None:
    """Fail where ``condition`` is false, on a GPU without waiting for it."""
    torch._assert_async(condition, message)
