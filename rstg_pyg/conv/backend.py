"""Which of the ways to compute a space stage runs."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import ReLU
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.dense.linear import is_uninitialized_parameter
from torch_geometric.typing import Adj
from torch_geometric.utils import is_sparse

from rstg_pyg.conv.linear import Linear
from rstg_pyg.kernels.pair_dot import is_dense

if TYPE_CHECKING:
    from rstg_pyg.conv.rstg_conv import RSTGConv

BACKENDS = ("auto", "reference", "blocks", "dense", "triton")

MIN_BLOCK_ELEMENTS = 1 << 16
"""Elements of an edge tensor from which on walking it in blocks is faster than the calls that the blocks cost."""


def choose_backend(conv: "RSTGConv", x: Tensor, edge_index: Adj, num_edges: int) -> str:
    """Return the backend that runs a forward pass of ``conv``.

    The reference runs whenever somebody looks at messages or replaces them, whatever backend was asked for. Compilers
    see tensors of all pairs of nodes, which they fuse, or for large sparse graphs the reference.
    """
    if num_edges == 0 or _is_observed(conv) or (is_sparse(edge_index) and conv.flow != "source_to_target"):
        return "reference"
    num_nodes = x.size(0)
    if torch.compiler.is_compiling():
        dense = conv.edge_dim is None and is_dense(num_nodes, num_edges)
        return "dense" if dense and conv.backend in ("auto", "blocks", "dense") else "reference"
    if conv.backend != "auto":
        return conv.backend
    if (
        x.is_cpu
        and num_edges * (x.numel() // max(1, num_nodes * x.size(-1))) * conv.hidden_channels >= MIN_BLOCK_ELEMENTS
    ):
        return "blocks"
    return "reference"


def can_merge_scores(conv: "RSTGConv", rows: int) -> bool:
    """Whether one product of weights is cheaper than the key's projection of every row."""
    score = conv.pair_score
    return (
        score.attention == "dot"
        and conv.heads == 1
        and rows * (2 * conv.out_channels - conv.in_channels) >= 2 * conv.in_channels * conv.out_channels
        and all(_is_bare(lin) for lin in (score.lin_dst, score.lin_src))
        and not _has_hooks(score)
    )


def can_merge_update(conv: "RSTGConv", rows: int) -> bool:
    """Whether one product of weights is cheaper than the last send layer of every row."""
    first = conv.update_mlp.lins[0]
    return (
        conv.send.has_linear_last
        and conv.heads == 1
        and rows >= 2 * first.out_channels
        and all(_is_bare(lin) for lin in (first, conv.send.lin_last))
        and not _has_hooks(conv.update_mlp)
    )


def is_weighted_relu(conv: "RSTGConv") -> bool:
    """Whether a message is linear in the rectified first send layer."""
    return conv.send.has_linear_last and len(conv.send.lins) == 0 and type(conv.send.act) is ReLU


def _is_observed(conv: "RSTGConv") -> bool:
    from rstg_pyg.conv.rstg_conv import RSTGConv

    cls = type(conv)
    return bool(
        torch._C._are_functorch_transforms_active()
        or type(conv.aggr_module) is not SumAggregation
        or conv.explain
        or any(
            hooks
            for name, hooks in vars(conv).items()
            if name.startswith(("_message", "_aggregate", "_propagate", "_edge_update")) and name.endswith("hooks")
        )
        or any(getattr(cls, name) is not getattr(RSTGConv, name) for name in ("message", "update", "edge_update"))
        or is_uninitialized_parameter(conv.send.lin_src.weight)
    )


def _is_bare(lin: torch.nn.Module) -> bool:
    return type(lin) is Linear and not _has_hooks(lin)


def _has_hooks(module: torch.nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
