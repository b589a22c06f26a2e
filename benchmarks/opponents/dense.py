"""The space stage over all pairs of nodes, as the authors compute it, with the function and weights of ``RSTGConv``.

A mask keeps the softmax to the edges of the graph. No two edges may join the same pair, and every node needs a
neighbour.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module

from opponents.layers import ConcatLayers, SplitLayers, StageLayers, with_positions
from rstg_pyg import RSTGConv


class _Dense(Module):
    no_edge: Tensor

    def __init__(self, layers: StageLayers, edge_index: Tensor, num_nodes: int) -> None:
        super().__init__()
        self.layers = layers
        no_edge = torch.ones(num_nodes, num_nodes, dtype=torch.bool, device=edge_index.device)
        no_edge[edge_index[1], edge_index[0]] = False
        if no_edge.all(dim=1).any() or (~no_edge).sum() != edge_index.size(1):
            raise ValueError("expected a graph without double edges in which every node has a neighbour")
        self.register_buffer("no_edge", no_edge)

    def messages(self, x: Tensor, pe: Tensor | None) -> Tensor:
        """``[F, N destinations, N sources, C]``."""
        raise NotImplementedError

    def forward(self, x: Tensor, pe: Tensor | None = None) -> Tensor:
        query, key = self.layers.project(x)
        attention = (query @ key.transpose(1, 2)).masked_fill(self.no_edge, -math.inf).softmax(dim=-1)
        gathered = (attention.unsqueeze(2) @ self.messages(x, pe)).squeeze(2)
        return self.layers.update(torch.cat([x, gathered], dim=-1))


class DenseConcat(_Dense):
    """Both send layers per pair on ``[v_j | p_j | v_i | p_i]``.

    Shapes: x ``[F, N, C]``, pe ``[N, P]``, output ``[F, N, C]``.
    """

    def __init__(self, conv: RSTGConv, edge_index: Tensor, num_nodes: int) -> None:
        super().__init__(ConcatLayers(conv), edge_index, num_nodes)

    def messages(self, x: Tensor, pe: Tensor | None) -> Tensor:
        node = with_positions(x, pe)
        pairs = node.size(0), node.size(1), node.size(1), node.size(2)
        sources, destinations = node.unsqueeze(1).expand(pairs), node.unsqueeze(2).expand(pairs)
        return self.layers.messages(torch.cat([sources, destinations], dim=-1))


class DenseSplit(_Dense):
    """The first send layer as a source and a destination projection per node, the last one per pair.

    Shapes: x ``[F, N, C]``, pe ``[N, P]``, output ``[F, N, C]``.
    """

    def __init__(self, conv: RSTGConv, edge_index: Tensor, num_nodes: int) -> None:
        super().__init__(SplitLayers(conv), edge_index, num_nodes)

    def messages(self, x: Tensor, pe: Tensor | None) -> Tensor:
        source, destination = self.layers.halves(x, pe)
        return self.layers.end(source.unsqueeze(1) + destination.unsqueeze(2))
