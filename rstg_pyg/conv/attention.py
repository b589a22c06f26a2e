"""Scores of pairs of nodes, from one projection per node."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from rstg_pyg.conv.linear import Linear

ATTENTION = ("dot", "additive", "mean")


class PairScore(Module):
    r"""Attention score :math:`s(\mathbf{v}_j, \mathbf{v}_i)` of source j and destination i, for each of K heads.

    ``"dot"``: :math:`(\mathbf{W}_q \mathbf{v}_i)^\top (\mathbf{W}_k \mathbf{v}_j) / \sqrt{d}` with d channels per head;
    ``"additive"``: :math:`\mathrm{LeakyReLU}(\mathbf{w}_1^\top \mathbf{v}_i + \mathbf{w}_2^\top \mathbf{v}_j)`;
    ``"mean"``: 0, which a softmax turns into uniform weights.

    Calling the module projects nodes ``[N, *, C]`` to a query and a key; :meth:`combine` scores gathered pairs of them,
    ``[E, *, K]``. With one head, a dot product needs one projection only,

    .. math::
        (\mathbf{W}_q \mathbf{v}_i)^\top (\mathbf{W}_k \mathbf{v}_j)
            = (\mathbf{W}_k^\top \mathbf{W}_q \mathbf{v}_i)^\top \mathbf{v}_j,

    so with many rows one product of weights replaces one product per row: :meth:`merged_weight`.
    """

    def __init__(self, in_channels: int, channels: int, heads: int, attention: str, negative_slope: float) -> None:
        super().__init__()
        self.attention = attention
        self.heads = heads
        self.negative_slope = negative_slope
        out_channels = {"dot": channels, "additive": heads, "mean": 0}[attention]
        self.lin_dst = Linear(in_channels, out_channels, bias=False) if out_channels else None
        self.lin_src = Linear(in_channels, out_channels, bias=False) if out_channels else None

    def reset_parameters(self) -> None:
        if self.lin_dst is not None:
            self.lin_dst.reset_parameters()
            self.lin_src.reset_parameters()

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.attention == "mean":
            zero = v.new_zeros(v.size(0), *[1] * (v.dim() - 2), self.heads)
            return zero, zero
        query, key = self.lin_dst(v), self.lin_src(v)
        if self.attention == "additive":
            return query, key
        query, key = query.unflatten(-1, (self.heads, -1)), key.unflatten(-1, (self.heads, -1))
        return query / math.sqrt(query.size(-1)), key

    def merged_weight(self) -> Tensor:
        """The matrix that takes nodes to queries whose keys are the nodes themselves, for one head ``[C, C]``."""
        with torch.autocast(self.lin_dst.weight.device.type, enabled=False):
            scale = 1 / math.sqrt(self.lin_dst.weight.size(0))
            return (self.lin_src.weight * scale).t() @ self.lin_dst.weight

    def combine(self, query_i: Tensor, key_j: Tensor) -> Tensor:
        if self.attention == "dot":
            return (query_i * key_j).sum(dim=-1)
        return F.leaky_relu(query_i + key_j, self.negative_slope)
