"""Who follows what is computed, so that no shorter way may pass him by."""

import torch
from torch.autograd import forward_ad
from torch.nn import Module
from torch.nn.modules.module import _has_any_global_hook


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
    return type(module) in kinds and not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in vars(module)
    )


def everything_is_watched() -> bool:
    """Whether somebody follows all calls of modules or all operations of PyTorch, and would miss what a kernel of one's
    own does: hooks on all modules, a transform of :mod:`torch.func`, forward-mode differentiation, ``torch.jit.trace``,
    or a dispatch mode such as a FLOP counter or fake tensors. Compilers, which use some of these, are another matter:
    for them it is false."""
    return not torch.compiler.is_compiling() and bool(
        _has_any_global_hook()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
    )
