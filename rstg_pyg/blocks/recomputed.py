"""Stages whose activations are computed a second time in the backward pass instead of being kept."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.checkpoint import checkpoint

from rstg_pyg.recurrence import RSTG


class RecomputedRSTG(RSTG):
    r"""A :class:`~rstg_pyg.RSTG` that in training keeps what goes into its stages alone, as "Training Deep Nets with
    Sublinear Memory Cost" (Chen, Xu, Zhang, Guestrin, 2016, `arXiv:1604.06174 <https://arxiv.org/abs/1604.06174>`_).

    The backward pass runs a stage once more, goes through it and forgets it again. Names of weights, outputs and
    gradients are those of :class:`~rstg_pyg.RSTG`.

    Example:
        >>> import torch
        >>> from rstg_pyg import region_graph
        >>> graph, x = region_graph(), torch.randn(14, 10, 32)
        >>> RecomputedRSTG(32, pe_channels=36)(x, graph.edge_index, pe=graph.heatmap)[0].shape
        torch.Size([14, 10, 32])
    """

    def _stage_modules(self) -> list[tuple[str, Any]]:
        stages = super()._stage_modules()
        if not (self.training and torch.is_grad_enabled()):
            return stages
        return [(stage, partial(run_recomputed, module)) for stage, module in stages]


def run_recomputed(module: Module, *args: Any, **kwargs: Any) -> Any:
    r"""Return ``module(*args, **kwargs)``, and run it again in the backward pass instead of keeping what it makes.

    The second run draws the random numbers of the first and works on copies of the buffers that the first began with,
    so that running statistics of batch norms move once. Hooks on the module are called by both runs.

    Under a compiler a module with buffers runs as it is, as does everything under the transforms of :mod:`torch.func`,
    which take no hooks on what autograd keeps.

    Example:
        >>> import torch
        >>> layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
        >>> torch.equal(run_recomputed(layer, x), layer(x))
        True
    """
    buffers = [
        (owner, name, buffer) for owner in module.modules() for name, buffer in owner.named_buffers(recurse=False)
    ]
    if torch._C._are_functorch_transforms_active() or (buffers and torch.compiler.is_compiling()):
        return module(*args, **kwargs)
    if not buffers:
        return checkpoint(module, *args, use_reentrant=False, **kwargs)
    second = _Buffers([(owner, name, buffer.clone()) for owner, name, buffer in buffers])
    return checkpoint(module, *args, use_reentrant=False, context_fn=lambda: (_Buffers([]), second), **kwargs)


class _Buffers:
    """Within it, modules have copies of the given buffers in place of their own. It may be entered again and again."""

    def __init__(self, buffers: list[tuple[Module, str, Tensor]]) -> None:
        self.buffers = buffers
        self.own: list[tuple[Module, str, Tensor]] = []

    def __enter__(self) -> None:
        self.own = [(owner, name, getattr(owner, name)) for owner, name, _ in self.buffers]
        for owner, name, buffer in self.buffers:
            setattr(owner, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for owner, name, buffer in self.own:
            setattr(owner, name, buffer)
