"""The layers of a space stage, as plain torch modules with the weights of an ``RSTGConv``."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Linear, Module, ReLU, Sequential

from rstg_pyg import RSTGConv


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
