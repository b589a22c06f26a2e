"""Layers that exist, as what a person would take instead: they compute other functions.

PyG's own convolutions take one feature per node, so a clip is a batch of graphs: one ``edge_index``, copied per frame.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import LSTM, Module
from torch_geometric.nn import TransformerConv

try:
    from torch_geometric_temporal.nn.recurrent import TGCN, GConvGRU
except ImportError:
    TGCN = GConvGRU = None

HAS_TEMPORAL = GConvGRU is not None
"""Whether pytorch-geometric-temporal is installed."""


def batched_edges(edge_index: Tensor, num_nodes: int, copies: int, stride: int = 1) -> Tensor:
    """Copy the edges of one frame: node n of copy k has the number ``(k // stride * N + n) * stride + k % stride``.

    With ``stride=1`` the copies stand one after the other, as PyG's ``Batch`` puts them; with ``stride=T`` the T frames
    of a clip are the inner dimension of its nodes.
    """
    copy = torch.arange(copies, device=edge_index.device).view(-1, 1)
    outer, inner = copy // stride, copy % stride
    return torch.stack([((outer * num_nodes + row) * stride + inner).flatten() for row in edge_index])


class TransformerLSTM(Module):
    """``nn.LSTM`` over time and ``TransformerConv`` over the graph in turns, K times, and a last ``nn.LSTM``.

    The K time stages share their weights and so do the K space stages, as in ``RSTG``.

    Shapes: x ``[B * N, T, C]``, edge_index of ``B * N * T`` nodes, output ``[B * N, T, C]``.
    """

    def __init__(self, channels: int, num_stages: int) -> None:
        super().__init__()
        self.num_stages = num_stages
        self.time = LSTM(channels, channels, batch_first=True)
        self.space = TransformerConv(channels, channels)
        self.last = LSTM(channels, channels, batch_first=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for _ in range(self.num_stages):
            x = self.time(x)[0]
            x = self.space(x.flatten(0, 1), edge_index).view_as(x)
        return self.last(x)[0]


class RecurrentGraphLayers(Module):
    """K recurrent graph layers of pytorch-geometric-temporal, one after the other; each steps through the frames.

    ``"GConvGRU"``: a GRU whose products are Chebyshev convolutions of order 2; ``"TGCN"``: a GRU over a GCN.

    Shapes: x ``[T, B * N, C]``, edge_index of ``B * N`` nodes, output ``[T, B * N, C]``.
    """

    def __init__(self, layer: str, channels: int, num_layers: int) -> None:
        super().__init__()
        make = {"GConvGRU": lambda: GConvGRU(channels, channels, K=2), "TGCN": lambda: TGCN(channels, channels)}[layer]
        self.layers = torch.nn.ModuleList(make() for _ in range(num_layers))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for layer in self.layers:
            state, out = torch.zeros_like(x[0]), []
            for frame in x:
                state = layer(frame, edge_index, H=state)
                out.append(state)
            x = torch.stack(out)
        return x
