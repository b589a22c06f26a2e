"""A recurrence that is linear in its state, for long memories."""

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter

from rstg_pyg.ops.linear import linear
from rstg_pyg.ops.scan import gated_scan
from rstg_pyg.watched import is_bare

DECAYS = (0.9, 0.999)
"""The shortest and the longest memory at the start: 10 and 1,000 frames."""


class LinearRNN(Module):
    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.lin = Linear(channels, 2 * channels, bias=False)
        self.decay = Parameter(torch.empty(channels))
        self.bias = Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.lin.reset_parameters()
        first, last = (1 - decay for decay in DECAYS)
        with torch.no_grad():
            forgotten = first * (last / first) ** torch.linspace(0, 1, self.channels)
            self.decay.copy_(((1 - forgotten) / forgotten).log())
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, state: Tensor | None = None, ptr: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = x if ptr is not None else x.flatten(0, 1)
        bias = torch.cat([self.decay, torch.zeros_like(self.decay) if self.bias is None else self.bias])
        gates = linear(rows, self.lin.weight, bias) if is_bare(self.lin, Linear) else self.lin(rows) + bias
        if state is None:
            count = x.size(0) if ptr is None else ptr.size(0) - 1
            state = gates.new_zeros(count, self.channels, dtype=torch.promote_types(gates.dtype, torch.float32))
        out, state = gated_scan(gates, state, ptr)
        return out.view(x.shape), state
