"""Send and gather without edge tensors in memory.

Shape legend: N nodes, E edges, H hidden channels, O output channels, K heads, ``*`` any inner dimensions, F all of them
in one.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import scatter, softmax

from rstg_pyg.conv.adjacency import ends_of_edges
from rstg_pyg.conv.backend import is_product_relu, is_weighted_relu
from rstg_pyg.conv.checks import check_ends
from rstg_pyg.ops import native
from rstg_pyg.ops.block_messages import Message, block_messages
from rstg_pyg.ops.dense_messages import EdgeList, dense_messages
from rstg_pyg.ops.neighborhoods import Neighborhoods
from rstg_pyg.ops.pair_dot import pair_dot, plain_pair_dot
from rstg_pyg.ops.triton import attend as triton
from rstg_pyg.ops.weighted_relu import weighted_relu

if TYPE_CHECKING:
    from rstg_pyg.conv.rstg_conv import RSTGConv


class Gathered(NamedTuple):
    """What the nodes gathered.

    ``value [N, *, K * H]`` sums hidden channels that the last send layer has yet to be applied to, or messages,
    ``[N, *, O]``, where that layer runs per edge. The weights add up to ``total [N, *, K]`` at each destination (None:
    to 1); ``alpha()`` gives them in the order of the edges, ``[E, *, K]``.
    """

    value: Tensor
    total: OptTensor
    alpha: Callable[[], Tensor]


def fast_gather(
    conv: "RSTGConv",
    backend: str,
    src: Tensor,
    dst: Tensor,
    query: Tensor,
    key: Tensor,
    edge_index: Adj,
    edge_attr: OptTensor,
) -> Gathered:
    """Send and gather for the first layer's halves ``src, dst [N, *, H]`` and the two
    sides of the score, ``[N, *, K]`` or ``[N, *, K, d]``."""
    num_nodes, inner = src.size(0), src.shape[1:-1]
    source, destination, edge_attr = ends_of_edges(edge_index, edge_attr, conv.flow)
    check_ends(source, destination, num_nodes)
    src, dst, query, key = (_join_frames(value, len(inner)) for value in (src, dst, query, key))
    edge = _edge_term(conv, edge_attr, inner, src.dtype)
    if backend == "dense":
        edges = EdgeList(source, destination)
    else:
        edges = Neighborhoods(source, destination, num_nodes)
        edge = None if edge is None else edge.index_select(0, edges.order)

    drops = conv.dropout > 0 and conv.training
    if backend == "native" and conv.attention == "dot" and not drops and is_weighted_relu(conv):
        value, alpha = native.attend(src, dst, query, key, edge, edges)
    else:
        alpha = _attention_weights(conv, backend, query, key, edges)
        if drops:
            # Drawn in the order of the edges as given, so that a seed drops the same weights whatever the backend.
            kept = F.dropout(torch.ones_like(alpha), p=conv.dropout)
            alpha = alpha * (kept if backend == "dense" else kept.index_select(0, edges.order))
        alpha = alpha.expand(-1, src.size(1), -1)
        value = _weighted_sum(conv, backend, src, dst, alpha, edge, edges)

    total = None
    if conv.send.has_linear_last and (drops or edges.num_isolated != 0):
        total = scatter(alpha, edges.dst, 0, num_nodes, reduce="sum").view(num_nodes, *inner, -1).to(value.dtype)

    def alpha_of_edges() -> Tensor:
        in_order = alpha if backend == "dense" else alpha.index_select(0, edges.inverse)
        return in_order.reshape(-1, *inner, conv.heads).to(value.dtype)

    return Gathered(value.reshape(num_nodes, *inner, -1), total, alpha_of_edges)


def _attention_weights(
    conv: "RSTGConv", backend: str, query: Tensor, key: Tensor, edges: EdgeList | Neighborhoods
) -> Tensor:
    """Return ``[E, F, K]``, or ``[E, 1, K]`` where every frame has the same weights."""
    if conv.attention != "dot":
        score = conv.pair_score.combine(query.index_select(0, edges.dst), key.index_select(0, edges.src))
    elif backend == "native":
        return native.attention_weights(query, key, edges)
    elif backend == "triton":
        score = triton.pair_dot(query, key, edges)
    elif backend == "dense":
        score = plain_pair_dot(query, key, edges)
    else:
        score = pair_dot(query, key, edges)
    score = score.float() if score.dtype.itemsize < 4 else score
    if backend == "triton":
        return triton.neighbor_softmax(score, edges)
    return softmax(score, edges.dst, num_nodes=query.size(0))


def _weighted_sum(
    conv: "RSTGConv",
    backend: str,
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: OptTensor,
    edges: EdgeList | Neighborhoods,
) -> Tensor:
    """Return the weighted sum of messages ``[N, F, K, O / K]``, or of hidden channels ``[N, F, K, H]`` where the last
    send layer is applied to their sum."""
    if backend == "triton":
        return triton.weighted_messages(src, dst, alpha, edges)
    if backend == "native" and is_weighted_relu(conv):
        return native.weighted_relu(src, dst, alpha, edge, edges)
    if backend == "native" and is_product_relu(conv):
        last = conv.send.lin_last
        return native.product_messages(last.weight, last.bias, src, dst, alpha, edge, edges)
    alpha = alpha.to(src.dtype)
    if backend == "dense":
        return dense_messages(_message(conv)[0], src, dst, alpha, edges)
    if is_weighted_relu(conv):
        return weighted_relu(src, dst, alpha, edge, edges)
    return block_messages(*_message(conv), src, dst, alpha, edge, edges)


def _join_frames(value: Tensor, num_inner: int) -> Tensor:
    """View ``[N, *, ...]`` as ``[N, F, ...]``."""
    return value.flatten(1, num_inner) if num_inner > 0 else value.unsqueeze(1)


def _edge_term(conv: "RSTGConv", edge_attr: OptTensor, inner: Sequence[int], dtype: torch.dtype) -> OptTensor:
    """What edge features add to the first send layer: ``[E, F, H]``, or ``[E, 1, H]`` where it is constant."""
    edge = conv.send.edge_term(edge_attr, len(inner) + 2, dtype)
    if edge is None:
        return None
    if any(size > 1 for size in edge.shape[1:-1]):
        edge = edge.expand(-1, *inner, -1)
    return _join_frames(edge, len(inner))


def _message(conv: "RSTGConv") -> tuple[Message, list[Tensor]]:
    """The message after the first send layer, ``[*, H]`` to ``[*, K, O / K]`` or, where the last layer is applied after
    the sum, to hidden channels ``[*, 1, H]``; and the parameters that it depends on."""
    send = conv.send
    parameters = list(send.lins.parameters())
    if isinstance(send.act, Module):
        parameters += send.act.parameters()
    if send.has_linear_last:
        return lambda h: send.hidden_from_first(h).unsqueeze(-2), parameters
    if send.lin_last is not None:
        parameters += send.lin_last.parameters()
    return lambda h: send.last(send.hidden_from_first(h)).unflatten(-1, (send.heads, -1)), parameters
