"""The space stage over the edges, as a PyG ``MessagePassing``; the function and the weights are those of ``RSTGConv``.

Query and key are projected once per node.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.utils import softmax

from opponents.layers import ConcatLayers, SplitLayers, as_node_features, with_positions
from rstg_pyg import RSTGConv


class PlainConv(MessagePassing):
    """Both send layers per edge on ``[v_j | p_j | v_i | p_i]``: the formula as it reads.

    Shapes: x ``[N, *, C]``, pe ``[N, P]``, output ``[N, *, C]``.
    """

    def __init__(self, conv: RSTGConv) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.layers = ConcatLayers(conv)

    def forward(self, x: Tensor, edge_index: Tensor, pe: Tensor | None = None) -> Tensor:
        query, key = self.layers.project(x)
        node = with_positions(x, as_node_features(pe, x))
        gathered = self.propagate(edge_index, node=node, query=query, key=key)
        return self.layers.update(torch.cat([x, gathered], dim=-1))

    def message(
        self,
        node_i: Tensor,
        node_j: Tensor,
        query_i: Tensor,
        key_j: Tensor,
        index: Tensor,
        ptr: Tensor | None,
        size_i: int | None,
    ) -> Tensor:
        message = self.layers.messages(torch.cat([node_j, node_i], dim=-1))
        return message * _attention(query_i, key_j, index, ptr, size_i)


class SplitConv(MessagePassing):
    """The first send layer as a source and a destination projection per node, the last one per edge.

    Shapes: x ``[N, *, C]``, pe ``[N, P]``, output ``[N, *, C]``.
    """

    def __init__(self, conv: RSTGConv) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.layers = SplitLayers(conv)

    def forward(self, x: Tensor, edge_index: Tensor, pe: Tensor | None = None) -> Tensor:
        query, key = self.layers.project(x)
        source, destination = self.layers.halves(x, as_node_features(pe, x))
        gathered = self.propagate(edge_index, source=source, destination=destination, query=query, key=key)
        return self.layers.update(torch.cat([x, gathered], dim=-1))

    def message(
        self,
        source_j: Tensor,
        destination_i: Tensor,
        query_i: Tensor,
        key_j: Tensor,
        index: Tensor,
        ptr: Tensor | None,
        size_i: int | None,
    ) -> Tensor:
        return self.layers.end(source_j + destination_i) * _attention(query_i, key_j, index, ptr, size_i)


def _attention(query_i: Tensor, key_j: Tensor, index: Tensor, ptr: Tensor | None, size_i: int | None) -> Tensor:
    """``[E, *, 1]``."""
    return softmax((query_i * key_j).sum(dim=-1, keepdim=True), index, ptr, size_i, dim=0)
