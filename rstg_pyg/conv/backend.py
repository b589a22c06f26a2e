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
from rstg_pyg.kernels import native
from rstg_pyg.kernels.pair_dot import is_dense
from rstg_pyg.kernels.triton import attend as triton

if TYPE_CHECKING:
    from rstg_pyg.conv.rstg_conv import RSTGConv

BACKENDS = ("auto", "reference", "blocks", "dense", "native", "triton")

MIN_BLOCK_ELEMENTS = 1 << 17
"""Elements of an edge tensor from which on walking it in blocks is faster than the calls that the blocks cost."""

MIN_PRODUCT_ELEMENTS = 1 << 22
"""The same where messages need a product per edge, which the blocks repeat in the backward pass: below this size
keeping edge tensors is faster, above it (16 MiB each in float32) they take several times the memory of the blocks."""


def choose_backend(conv: "RSTGConv", x: Tensor, edge_index: Adj, num_edges: int) -> str:
    """Return the backend that runs a forward pass of ``conv``.

    The reference runs whenever somebody looks at messages or replaces them, whatever backend was asked for, and for
    graphs without edges. Compilers see tensors of all pairs of nodes, which they fuse, or for sparse graphs the
    reference; Triton's kernels they take as they are.

    Raises:
        RuntimeError: If the backend that was asked for can not run here.
    """
    if num_edges == 0 or _is_observed(conv) or (is_sparse(edge_index) and conv.flow != "source_to_target"):
        return "reference"
    if conv.backend in ("native", "triton"):
        _check_can_run(conv, x)
    if conv.backend in ("auto", "triton") and _suits_triton(conv) and triton.is_available(x.device) and not x.is_cpu:
        return "triton"
    if torch.compiler.is_compiling():
        dense = conv.edge_dim is None and is_dense(x.size(0), num_edges)
        return "dense" if dense and conv.backend != "reference" else "reference"
    if conv.backend != "auto":
        return conv.backend
    if not x.is_cpu:
        return "reference"
    if (is_weighted_relu(conv) or is_product_relu(conv)) and native.is_available(_dtype_of_products(x)):
        return "native"
    frames = x.numel() // max(1, x.size(0) * x.size(-1))
    needs_product = len(conv.send.lins) > 0 or (conv.send.lin_last is not None and conv.send.act_last)
    enough = MIN_PRODUCT_ELEMENTS if needs_product else MIN_BLOCK_ELEMENTS
    return "blocks" if num_edges * frames * conv.hidden_channels >= enough else "reference"


def _dtype_of_products(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _suits_triton(conv: "RSTGConv") -> bool:
    return is_weighted_relu(conv) and conv.edge_dim is None


def _check_can_run(conv: "RSTGConv", x: Tensor) -> None:
    dtype = _dtype_of_products(x)
    if conv.backend == "native" and not (x.is_cpu and native.is_available(dtype)):
        raise RuntimeError(
            "expected a CPU, a C++ compiler and float32, float64 or bfloat16 with backend='native', "
            f"got {dtype} on {x.device}{'' if native.is_available() else ' and no library from a compiler'}"
        )
    if conv.backend == "triton" and not triton.is_available(x.device):
        raise RuntimeError(f"expected a CUDA device and Triton with backend='triton', got a tensor on {x.device}")
    if conv.backend == "triton" and not _suits_triton(conv):
        raise RuntimeError(
            "expected two send layers with ReLU, the last of them linear, and no edge features with backend='triton', "
            f"got {conv}"
        )


def can_merge_scores(conv: "RSTGConv", rows: int) -> bool:
    """Whether one product of weights is cheaper than the key's projection of every row."""
    score = conv.pair_score
    return (
        score.attention == "dot"
        and conv.heads == 1
        and rows * (2 * conv.out_channels - conv.in_channels) >= 2 * conv.in_channels * conv.out_channels
        and all(_is_bare(lin) for lin in (score.lin_dst, score.lin_src, conv.send.lin_src, conv.send.lin_dst))
        and not _has_hooks(score)
        and not _has_hooks(conv.send)
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


def is_product_relu(conv: "RSTGConv") -> bool:
    """Whether a message is one rectified product of the rectified first send layer."""
    send = conv.send
    return send.act_last and send.lin_last is not None and len(send.lins) == 0 and type(send.act) is ReLU


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
