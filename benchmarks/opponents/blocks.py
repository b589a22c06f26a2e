"""The whole block, K space stages between K + 1 time stages, with the function and the weights of an ``RSTG``."""

from __future__ import annotations

from torch import Tensor
from torch.nn import LSTM, Module

from opponents.dense import DenseConcat
from opponents.per_edge import PlainConv
from rstg_pyg import RSTG


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
