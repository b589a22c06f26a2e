"""The space stage and the whole block as plain torch and PyG modules, with the function and the weights of the
package's modules and none of their code: over the edges, and over all pairs of nodes as the authors compute them.

Shape legend: N nodes, E edges, B clips, T frames per clip, F = B * T frames, C channels, P position channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import LSTM, Linear, Module, ReLU, Sequential
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.utils import softmax

from rstg_pyg import RSTG, RSTGConv


class StageLayers(Module):
    r"""The layers that all opponents have in common, with the parameters of ``conv``, not copies of them.

    One head, dot attention, two send and two update layers, no norm, no residual.
    """

    def __init__(self, conv: RSTGConv) -> None:
        super().__init__()
        self.conv = conv
        self.query = _linear(conv.pair_score.lin_dst)
        self.key = _linear(conv.pair_score.lin_src)
        self.last = _linear(conv.send.lin_last)
        self.relu_last = conv.send.act_last
        first, second = conv.update_mlp.lins
        self.update = Sequential(_linear(first), ReLU(), _linear(second))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The query, scaled, and the key of every node."""
        query = self.query(x)
        return query / math.sqrt(query.size(-1)), self.key(x)

    def end(self, hidden: Tensor) -> Tensor:
        """Messages from the send MLP's hidden layer before its ReLU."""
        message = self.last(hidden.relu())
        return message.relu() if self.relu_last else message

    def gradients(self) -> dict[str, Tensor]:
        """The gradients by the names of the parameters of ``RSTGConv``."""
        return {name: value.grad for name, value in self.conv.named_parameters()}


class ConcatLayers(StageLayers):
    """With the first send layer as one matrix, a copy, that takes ``[v_j | p_j | v_i | p_i]``."""

    def __init__(self, conv: RSTGConv) -> None:
        super().__init__(conv)
        send = conv.send
        parts = {"lin_src": send.lin_src, "lin_pe_src": send.lin_pe_src}
        parts |= {"lin_dst": send.lin_dst, "lin_pe_dst": send.lin_pe_dst}
        weights = {f"send.{name}.weight": part.weight for name, part in parts.items() if part is not None}
        self.widths = {name: weight.size(1) for name, weight in weights.items()}
        weight = torch.cat(list(weights.values()), dim=1)
        self.first = Linear(weight.size(1), weight.size(0), device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            self.first.weight.copy_(weight)
            self.first.bias.copy_(send.lin_dst.bias)

    def messages(self, pair: Tensor) -> Tensor:
        """``[*, 2 (C + P)] -> [*, C]``."""
        return self.end(self.first(pair))

    def gradients(self) -> dict[str, Tensor]:
        slices = self.first.weight.grad.split(list(self.widths.values()), dim=1)
        of_first = dict(zip(self.widths, slices, strict=True)) | {"send.lin_dst.bias": self.first.bias.grad}
        return super().gradients() | of_first


class SplitLayers(StageLayers):
    """With the first send layer as a source and a destination projection per node."""

    def __init__(self, conv: RSTGConv) -> None:
        super().__init__(conv)
        send = conv.send
        self.source, self.destination = _linear(send.lin_src), _linear(send.lin_dst)
        if send.lin_pe_src is not None:
            self.pe_source, self.pe_destination = _linear(send.lin_pe_src), _linear(send.lin_pe_dst)

    def halves(self, x: Tensor, pe: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both projections of every node; ``pe`` has the dimensions of ``x`` or broadcasts to them."""
        source, destination = self.source(x), self.destination(x)
        if pe is None:
            return source, destination
        return source + self.pe_source(pe), destination + self.pe_destination(pe)


def as_node_features(pe: Tensor | None, like: Tensor) -> Tensor | None:
    """View ``pe [N, P]`` as ``[N, 1, ..., P]`` with as many dimensions as ``like [N, *, C]``."""
    return None if pe is None else pe.view(pe.size(0), *[1] * (like.dim() - 2), -1)


def with_positions(x: Tensor, pe: Tensor | None) -> Tensor:
    """``[v | p]`` of every node; ``pe`` broadcasts to the inner dimensions of ``x``."""
    return x if pe is None else torch.cat([x, pe.expand(*x.shape[:-1], -1)], dim=-1)


def _linear(layer: Module) -> Linear:
    """``torch.nn.Linear`` with the parameters of another linear layer."""
    fan_out, fan_in = layer.weight.shape
    plain = Linear(fan_in, fan_out, bias=layer.bias is not None, device="meta")
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


class _PerEdge(MessagePassing):
    """Query and key are projected once per node; messages are made per edge."""

    def __init__(self, layers: StageLayers) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.layers = layers

    def gather(self, x: Tensor, edge_index: Tensor, source: Tensor, destination: Tensor) -> Tensor:
        query, key = self.layers.project(x)
        ends = {"source": source, "destination": destination, "query": query, "key": key}
        return self.layers.update(torch.cat([x, self.propagate(edge_index, **ends)], dim=-1))

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
        attention = softmax((query_i * key_j).sum(dim=-1, keepdim=True), index, ptr, size_i, dim=0)
        return self.messages(source_j, destination_i) * attention


class PlainConv(_PerEdge):
    """Both send layers per edge on ``[v_j | p_j | v_i | p_i]``: the formula as it reads.

    Shapes: x ``[N, *, C]``, pe ``[N, P]``, output ``[N, *, C]``.
    """

    def __init__(self, conv: RSTGConv) -> None:
        super().__init__(ConcatLayers(conv))

    def forward(self, x: Tensor, edge_index: Tensor, pe: Tensor | None = None) -> Tensor:
        node = with_positions(x, as_node_features(pe, x))
        return self.gather(x, edge_index, node, node)

    def messages(self, source: Tensor, destination: Tensor) -> Tensor:
        return self.layers.messages(torch.cat([source, destination], dim=-1))


class SplitConv(_PerEdge):
    """The first send layer as a source and a destination projection per node, the last one per edge.

    Shapes: x ``[N, *, C]``, pe ``[N, P]``, output ``[N, *, C]``.
    """

    def __init__(self, conv: RSTGConv) -> None:
        super().__init__(SplitLayers(conv))

    def forward(self, x: Tensor, edge_index: Tensor, pe: Tensor | None = None) -> Tensor:
        return self.gather(x, edge_index, *self.layers.halves(x, as_node_features(pe, x)))

    def messages(self, source: Tensor, destination: Tensor) -> Tensor:
        return self.layers.end(source + destination)


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


class _Block(Module):
    def __init__(self, rstg: RSTG, space: Module) -> None:
        super().__init__()
        self.num_stages = rstg.num_stages
        self.time = _lstm(rstg.time_stages[0].rnn)
        self.space = space
        self.last = _lstm(rstg.last_time_stage.rnn)

    def gradients(self) -> dict[str, Tensor]:
        """The gradients by the names of the parameters of ``RSTG``."""
        gradients = {f"space_stages.0.{name}": grad for name, grad in self.space.layers.gradients().items()}
        for prefix, rnn in (("time_stages.0", self.time), ("last_time_stage", self.last)):
            gradients |= {f"{prefix}.rnn.{name}": value.grad for name, value in rnn.named_parameters()}
        return gradients


class PlainBlock(_Block):
    """``nn.LSTM`` and :class:`PlainConv`. Shapes: x ``[N, B, T, C]``, output the same."""

    def __init__(self, rstg: RSTG) -> None:
        super().__init__(rstg, PlainConv(rstg.space_stages[0]))

    def forward(self, x: Tensor, edge_index: Tensor, pe: Tensor | None = None) -> Tensor:
        nodes = x.shape[:2]
        for _ in range(self.num_stages):
            x = self.time(x.flatten(0, 1))[0].unflatten(0, nodes)
            x = self.space(x, edge_index, pe=pe)
        return self.last(x.flatten(0, 1))[0].unflatten(0, nodes)


class AuthorsBlock(_Block):
    """``nn.LSTM`` and :class:`DenseConcat`, each over the whole clip. Shapes: x ``[B, N, T, C]``, output the same."""

    def __init__(self, rstg: RSTG, edge_index: Tensor, num_nodes: int) -> None:
        super().__init__(rstg, DenseConcat(rstg.space_stages[0], edge_index, num_nodes))

    def forward(self, x: Tensor, pe: Tensor | None = None) -> Tensor:
        batch, nodes, frames, _ = x.shape
        for _ in range(self.num_stages):
            x = self.time(x.flatten(0, 1))[0].unflatten(0, (batch, nodes))
            x = self.space(x.transpose(1, 2).flatten(0, 1), pe)
            x = x.unflatten(0, (batch, frames)).transpose(1, 2)
        return self.last(x.flatten(0, 1))[0].unflatten(0, (batch, nodes))


def _lstm(rnn: Module) -> LSTM:
    """``torch.nn.LSTM`` with the parameters of another one."""
    hidden, channels = rnn.weight_ih_l0.size(0) // 4, rnn.weight_ih_l0.size(1)
    plain = LSTM(channels, hidden, batch_first=True, device="meta")
    for name, _ in list(plain.named_parameters()):
        setattr(plain, name, getattr(rnn, name))
    return plain
