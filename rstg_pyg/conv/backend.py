"""Which of the ways to compute a space stage runs."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import Identity, ReLU, RReLU
from torch_geometric.typing import Adj
from torch_geometric.utils import is_sparse

from rstg_pyg.conv.attention import PairScore
from rstg_pyg.conv.linear import Linear
from rstg_pyg.conv.message_mlp import MessageMLP
from rstg_pyg.conv.update_mlp import UpdateMLP
from rstg_pyg.ops import native
from rstg_pyg.ops.triton import attend as triton
from rstg_pyg.watched import everything_is_watched, is_bare

if TYPE_CHECKING:
    from rstg_pyg.conv.rstg_conv import RSTGConv

BACKENDS = ("auto", "reference", "blocks", "dense", "native", "triton")

MIN_BLOCK_ELEMENTS = 1 << 17
"""Elements of an edge tensor from which on walking it in blocks is faster than the calls that the blocks cost."""

MIN_PRODUCT_ELEMENTS = 1 << 22
"""The same where messages need a product per edge, which the blocks repeat in the backward pass: below this size
keeping edge tensors is faster, above it (16 MiB each in float32) they take several times the memory of the blocks."""


def choose_backend(conv: "RSTGConv", x: Tensor, edge_index: Adj, num_edges: int) -> str:
    """Return the backend that runs a forward pass of ``conv``, whose messages nobody looks at or replaces.

    The reference runs, whatever backend was asked for, where a faster one would pass somebody by or has nothing to do:
    around children that are more than their class, under transforms and modes that follow PyTorch's operations, in
    exports, whose sizes may be left open, and without edges, nodes or frames. Compilers see the reference, too, whose
    operations they fuse; Triton's kernels they take as they are.

    Raises:
        RuntimeError: If the backend that was asked for can not run here.
    """
    if (
        torch.compiler.is_exporting()
        or num_edges == 0
        or x.numel() == 0
        or (is_sparse(edge_index) and conv.flow != "source_to_target")
        or not _has_bare_children(conv)
        or everything_is_watched()
    ):
        return "reference"
    if conv.backend in ("native", "triton"):
        _check_can_run(conv, x)
    if conv.backend in ("auto", "triton") and _suits_triton(conv) and triton.is_available(x.device) and not x.is_cpu:
        return "triton"
    if torch.compiler.is_compiling():
        return "dense" if conv.backend == "dense" else "reference"
    if conv.backend != "auto":
        return conv.backend
    if not x.is_cpu:
        return "reference"
    if (is_weighted_relu(conv) or is_product_relu(conv)) and native.is_available(_dtype_of_products(x)):
        return "native"
    frames = x.numel() // (x.size(0) * x.size(-1))
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
    score, send = conv.pair_score, conv.send
    return (
        score.attention == "dot"
        and conv.heads == 1
        and rows * (2 * conv.out_channels - conv.in_channels) >= 2 * conv.in_channels * conv.out_channels
        and all(is_bare(lin, Linear) for lin in (score.lin_dst, score.lin_src, send.lin_src, send.lin_dst))
    )


def can_merge_update(conv: "RSTGConv", rows: int) -> bool:
    """Whether one product of weights is cheaper than the last send layer of every row."""
    return (
        conv.send.has_linear_last
        and conv.heads == 1
        and is_bare(conv.update_mlp, UpdateMLP)
        and is_bare(conv.update_mlp.lins[0], Linear)
        and rows >= 2 * conv.update_mlp.lins[0].out_channels
    )


def is_weighted_relu(conv: "RSTGConv") -> bool:
    """Whether a message is linear in the rectified first send layer."""
    return conv.send.has_linear_last and len(conv.send.lins) == 0 and type(conv.send.act) is ReLU


def is_product_relu(conv: "RSTGConv") -> bool:
    """Whether a message is one rectified product of the rectified first send layer."""
    send = conv.send
    return send.act_last and send.lin_last is not None and len(send.lins) == 0 and type(send.act) is ReLU


def _has_bare_children(conv: "RSTGConv") -> bool:
    """Whether the children that the faster backends read, or call in other ways than the reference, may be.

    They call the activation on blocks of edges and again in the backward pass: PyTorch's own can be called so, but for
    the one that draws numbers.
    """
    send, act = conv.send, conv.send.act
    return (
        is_bare(send, MessageMLP)
        and is_bare(conv.pair_score, PairScore)
        and type(act).__module__ in (ReLU.__module__, Identity.__module__)
        and type(act) is not RReLU
        and is_bare(act, type(act))
        and all(is_bare(lin, Linear) for lin in send.lins)
        and (send.lin_last is None or is_bare(send.lin_last, Linear))
    )
