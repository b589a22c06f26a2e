"""The gather of the space stage: attention over the neighbours, and the weighted sum of their messages.

A plain form that reads like the formula, and backends that compute the same faster: each says why it cannot run, and
runs.

Shape legend: N nodes, E edges, F frames, H hidden channels, O output channels, K heads of d channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from rstg_pyg.ops.block_sums import block_messages, pair_dot, weighted_relu
from rstg_pyg.ops.index import GraphIndex
from rstg_pyg.ops.native import attend as native
from rstg_pyg.ops.native.build import why_not_native
from rstg_pyg.ops.native.messages import product_messages
from rstg_pyg.ops.plain import Message, plain_messages, plain_pair_dot
from rstg_pyg.ops.triton import attend as triton

MIN_BLOCK_ELEMENTS = 1 << 17
"""Elements of an edge tensor from which on walking it in blocks is faster than the calls that the blocks cost."""

MIN_PRODUCT_ELEMENTS = 1 << 22
"""The same where messages need a product per edge, which the blocks repeat in the backward pass: below this size
keeping edge tensors is faster, above it (16 MiB each in float32) they take several times the memory of the blocks."""

MIN_COMPILED_ELEMENTS = 1 << 17
"""Below this size a compiler makes less of the calls of operators than of the plain operations, which it fuses."""


@dataclass(frozen=True)
class GatherSpec:
    r"""What a gather computes:

    .. math::
        \alpha_{ji}^k = \mathrm{softmax}_{j \in \mathcal{N}(i)} \, s^k(\mathbf{q}_i, \mathbf{k}_j), \qquad
        \mathbf{g}_i^k = \sum_{j \in \mathcal{N}(i)} \alpha_{ji}^k \, f^k(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    Args:
        attention: The score s: ``"dot"`` (:math:`\mathbf{q}_i^\top \mathbf{k}_j`, already scaled), ``"additive"``
            (:math:`\mathrm{LeakyReLU}(q_i + k_j)`) or ``"mean"`` (0).
        heads: Number K of weights per edge.
        message: The form of f: ``"relu"``, the same for all heads; ``"product"``, ReLU of a linear layer of ReLU; or
            ``"function"``, any other.
        negative_slope: Of the additive score.
        dropout: Share of the weights that are set to zero, the others are scaled up; 0 outside of training.
    """

    attention: str = "dot"
    heads: int = 1
    message: str = "relu"
    negative_slope: float = 0.2
    dropout: float = 0.0


class Gathered(NamedTuple):
    """What the nodes gathered: ``value [N, F, K, H]`` or ``[N, F, K, O / K]``; what their weights add up to, ``total``
    that broadcasts to ``[N, F, K]`` (None: to 1); and the weights in the order of the edges as given,
    ``alpha() [E, F, K]``."""

    value: Tensor
    total: Tensor | None
    alpha: Callable[[], Tensor]


def gather(
    spec: GatherSpec,
    src: Tensor,
    dst: Tensor,
    query: Tensor,
    key: Tensor,
    edge: Tensor | None,
    index: GraphIndex,
    message: Message = Message(),  # noqa: B008
    backend: str = "reference",
) -> Gathered:
    """Weigh and sum messages.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **query, key:** ``[N, F, K, d]`` of dot attention, else ``[N, F or 1, K]``.
        - **edge:** ``[E, F or 1, H]`` in the order of the edges as given, or None.
    """
    edge = None if edge is None else edge.index_select(0, index.order)
    kept = None
    if spec.dropout > 0:
        # Drawn in the order of the edges as given, so that a seed drops the same weights whatever the backend.
        frames = 1 if spec.attention == "mean" else src.size(1)
        ones = src.new_ones(index.num_edges, frames, spec.heads, dtype=torch.promote_types(src.dtype, torch.float32))
        kept = F.dropout(ones, p=spec.dropout).index_select(0, index.order)
    value, alpha = _BACKENDS[backend].run(spec, message, src, dst, query, key, edge, kept, index)

    if kept is not None:
        total = scatter(alpha, index.dst, 0, index.num_nodes, reduce="sum").to(value.dtype)
    else:
        total = None if index.num_isolated == 0 else index.hears.to(value.dtype).view(-1, 1, 1)
    return Gathered(value, total, lambda: alpha.index_select(0, index.inverse).to(value.dtype))


def _weights(
    spec: GatherSpec,
    query: Tensor,
    key: Tensor,
    kept: Tensor | None,
    num_frames: int,
    index: GraphIndex,
    dot: Callable[[Tensor, Tensor, GraphIndex], Tensor],
    normalise: Callable[[Tensor, GraphIndex], Tensor],
) -> Tensor:
    """The weights ``[E, F, K]`` in the order of the sorted edges."""
    if spec.attention == "dot":
        score = dot(query, key, index)
    else:
        score = query.index_select(0, index.dst) + key.index_select(0, index.src)
        score = F.leaky_relu(score, spec.negative_slope)
    alpha = normalise(score.float() if score.dtype.itemsize < 4 else score, index)
    alpha = alpha if kept is None else alpha * kept
    return alpha.expand(-1, num_frames, -1)


def _softmax(score: Tensor, index: GraphIndex) -> Tensor:
    return softmax(score, index.dst, num_nodes=index.num_nodes)


def _run_plain(spec, message, src, dst, query, key, edge, kept, index) -> tuple[Tensor, Tensor]:
    alpha = _weights(spec, query, key, kept, src.size(1), index, plain_pair_dot, _softmax)
    return plain_messages(message, src, dst, alpha.to(src.dtype), edge, index), alpha


def _run_blocks(spec, message, src, dst, query, key, edge, kept, index) -> tuple[Tensor, Tensor]:
    alpha = _weights(spec, query, key, kept, src.size(1), index, pair_dot, _softmax)
    return _block_sum(spec, message, src, dst, alpha, edge, index), alpha


def _block_sum(spec, message, src, dst, alpha, edge, index) -> Tensor:
    if spec.message == "relu":
        return weighted_relu(src, dst, alpha.to(src.dtype), edge, index)
    return block_messages(message, src, dst, alpha.to(src.dtype), edge, index)


def _run_native(spec, message, src, dst, query, key, edge, kept, index) -> tuple[Tensor, Tensor]:
    if spec.attention == "dot" and spec.message == "relu" and kept is None:
        return native.attend(src, dst, query, key, edge, index)
    is_dot = spec.attention == "dot"
    dot, normalise = (native.attention_weights, lambda alpha, _: alpha) if is_dot else (plain_pair_dot, _softmax)
    alpha = _weights(spec, query, key, kept, src.size(1), index, dot, normalise)
    if spec.message == "relu":
        return native.weighted_relu(src, dst, alpha, edge, index), alpha
    if spec.message == "product":
        return product_messages(*message.tensors, src, dst, alpha, edge, index), alpha
    return _block_sum(spec, message, src, dst, alpha, edge, index), alpha


def _run_triton(spec, message, src, dst, query, key, edge, kept, index) -> tuple[Tensor, Tensor]:
    alpha = _weights(spec, query, key, kept, src.size(1), index, triton.pair_dot, triton.neighbor_softmax)
    return triton.weighted_messages(src, dst, alpha, index), alpha


def _why_not_native(spec: GatherSpec, x: Tensor, has_edge: bool) -> str | None:
    # Products are in the type of autocast where it is on.
    dtype = torch.get_autocast_dtype("cpu") if x.is_cpu and torch.is_autocast_enabled("cpu") else x.dtype
    if x.is_cpu and native.is_available(dtype):
        return None
    return why_not_native(dtype, x.device, "float32, float64 or bfloat16", "backend='native'")


def _why_not_triton(spec: GatherSpec, x: Tensor, has_edge: bool) -> str | None:
    if not triton.is_available(x.device):
        return f"expected a CUDA device and Triton with backend='triton', got a tensor on {x.device}"
    if spec.message == "relu" and not has_edge:
        return None
    got = "edge features" if has_edge else "other send layers"
    return (
        "expected two send layers with ReLU, the last of them linear, and no edge features with backend='triton', "
        f"got {got}"
    )


class _Backend(NamedTuple):
    """``why_not(spec, x, has_edge)`` is a reason not to run, or None; ``pays(spec, x, elements)`` tells whether
    ``"auto"`` takes it for edge tensors of so many elements; ``run`` returns sums, and weights of the sorted edges."""

    run: Callable[..., tuple[Tensor, Tensor]]
    why_not: Callable[[GatherSpec, Tensor, bool], str | None] = lambda spec, x, has_edge: None
    pays: Callable[[GatherSpec, Tensor, int], bool] = lambda spec, x, elements: True


_BACKENDS = {
    "triton": _Backend(_run_triton, _why_not_triton, lambda spec, x, elements: not x.is_cpu),
    "native": _Backend(
        _run_native,
        _why_not_native,
        lambda spec, x, elements: (
            spec.message != "function" and (not torch.compiler.is_compiling() or elements >= MIN_COMPILED_ELEMENTS)
        ),
    ),
    "blocks": _Backend(
        _run_blocks,
        pays=lambda spec, x, elements: (
            x.is_cpu
            and not torch.compiler.is_compiling()
            and elements >= (MIN_BLOCK_ELEMENTS if spec.message == "relu" else MIN_PRODUCT_ELEMENTS)
        ),
    ),
    "reference": _Backend(_run_plain),
}
"""In the order in which ``auto`` asks them."""

BACKENDS = ("auto", *reversed(_BACKENDS))


def choose_backend(backend: str, spec: GatherSpec, x: Tensor, has_edge: bool, num_elements: int) -> str:
    """The name of the backend that computes a gather from nodes like ``x`` with edge tensors of so many elements.

    Exported programs get the reference, which runs wherever PyTorch does, unless another was asked for by name.
    Compiled ones cannot follow the blocks.

    Raises:
        RuntimeError: If the backend that was asked for cannot run here.
    """
    if backend == "auto":
        if torch.compiler.is_exporting():
            return "reference"
        return next(
            name
            for name, one in _BACKENDS.items()
            if one.pays(spec, x, num_elements) and one.why_not(spec, x, has_edge) is None
        )
    if backend == "blocks" and torch.compiler.is_compiling():
        return "reference"
    reason = why_not(backend, spec, x, has_edge)
    if reason is not None:
        raise RuntimeError(reason)
    return backend


def why_not(backend: str, spec: GatherSpec, x: Tensor, has_edge: bool) -> str | None:
    """Why a backend cannot gather from nodes like ``x``; None where it can."""
    return _BACKENDS[backend].why_not(spec, x, has_edge)
