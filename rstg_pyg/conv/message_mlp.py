"""The send MLP, computed per node as far as algebra allows.

Shape legend: as in :mod:`rstg_pyg.conv.rstg_conv`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Identity, Module, ModuleList
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import OptTensor

from rstg_pyg.conv.linear import Linear


class MessageMLP(Module):
    r"""The message of an edge, in parts.

    .. math::
        \mathbf{m}_{ji} = \mathrm{MLP}\left( [\mathbf{v}_j \, \Vert \, \mathbf{p}_j \, \Vert \, \mathbf{v}_i \, \Vert \,
            \mathbf{p}_i \, \Vert \, \mathbf{e}_{ji}] \right)

    Calling the module gives the first layer's source and destination halves per node, whose sum over an edge's two ends
    is that layer; :meth:`hidden` takes gathered halves up to the last layer's input; :meth:`last` ends it per edge, and
    :meth:`last_of_sum` per node, after a weighted sum over the neighbours: with a linear last layer

    .. math::
        \sum_j \alpha_{ji} (\mathbf{W} \mathbf{h}_{ji} + \mathbf{b})
            = \mathbf{W} \sum_j \alpha_{ji} \mathbf{h}_{ji} + \mathbf{b} \sum_j \alpha_{ji}
    """

    def __init__(
        self,
        in_channels: int,
        pe_channels: int,
        edge_dim: int | None,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        act: str | Callable | None,
        act_last: bool,
        heads: int,
        bias: bool,
    ) -> None:
        super().__init__()
        self.edge_dim = edge_dim
        self.heads = heads
        self.act_last = act_last
        self.act = Identity() if act is None else activation_resolver(act)
        first = hidden_channels if num_layers > 1 else out_channels
        self.lin_src = Linear(in_channels, first, bias=False)
        self.lin_dst = Linear(in_channels, first, bias=bias)
        self.lin_pe_src = Linear(pe_channels, first, bias=False) if pe_channels else None
        self.lin_pe_dst = Linear(pe_channels, first, bias=False) if pe_channels else None
        self.lin_edge = Linear(edge_dim, first, bias=False) if edge_dim else None
        self.lins = ModuleList(Linear(hidden_channels, hidden_channels, bias=bias) for _ in range(num_layers - 2))
        self.lin_last = Linear(hidden_channels, out_channels, bias=bias) if num_layers > 1 else None

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    @property
    def has_linear_last(self) -> bool:
        """Whether a linear layer of its own ends the MLP, which then commutes with a weighted sum."""
        return self.lin_last is not None and not self.act_last

    def forward(self, v: Tensor, pe: OptTensor) -> tuple[Tensor, Tensor]:
        return self.with_positions(self.lin_src(v), self.lin_dst(v), pe)

    def with_positions(self, src: Tensor, dst: Tensor, pe: OptTensor) -> tuple[Tensor, Tensor]:
        """Add what the positions contribute to both halves of the first layer."""
        if pe is None:
            return src, dst
        pe = _with_inner_dims(pe.to(src.dtype), src.dim())
        return src + self.lin_pe_src(pe), dst + self.lin_pe_dst(pe)

    def hidden(self, src_j: Tensor, dst_i: Tensor, edge_attr: OptTensor) -> Tensor:
        h = src_j + dst_i
        edge = self.edge_term(edge_attr, h.dim(), h.dtype)
        return self.hidden_from_first(h if edge is None else h + edge)

    def edge_term(self, edge_attr: OptTensor, num_dims: int, dtype: torch.dtype) -> OptTensor:
        """What edge features add to the first layer, with ``num_dims`` dimensions."""
        if self.lin_edge is None:
            return None
        if edge_attr is None:
            raise ValueError(f"expected 'edge_attr' or a sparse matrix with values of width {self.edge_dim}, got none")
        edge_attr = edge_attr.unsqueeze(-1) if edge_attr.dim() == 1 else edge_attr
        return self.lin_edge(_with_inner_dims(edge_attr.to(dtype), num_dims))

    def hidden_from_first(self, h: Tensor) -> Tensor:
        """Take the first layer, before its activation, up to the last layer's input."""
        for lin in self.lins:
            h = lin(self.act(h))
        return h if self.lin_last is None else self.act(h)

    def last(self, h: Tensor) -> Tensor:
        if self.lin_last is not None:
            h = self.lin_last(h)
        return self.act(h) if self.act_last else h

    def last_of_sum(self, summed: Tensor, total: OptTensor) -> Tensor:
        """Apply the linear last layer to ``summed [N, *, K * H]``, each head's weighted sum of hidden channels, whose
        weights add up to ``total [N, *, K]`` (None: to 1); head k makes the k-th slice of the output ``[N, *, O]``."""
        if self.heads == 1:
            out = self.lin_last(summed)
            if total is None or self.lin_last.bias is None:
                return out
            return out + (total - 1) * self.lin_last.bias.to(out.dtype)
        weight = self.lin_last.weight.unflatten(0, (self.heads, -1))
        out = torch.einsum("...kh,koh->...ko", summed.unflatten(-1, (self.heads, -1)), weight).flatten(-2)
        if self.lin_last.bias is None:
            return out
        if total is None:
            return out + self.lin_last.bias.to(out.dtype)
        bias = self.lin_last.bias.to(out.dtype).unflatten(0, (self.heads, -1))
        return out + (total.unsqueeze(-1) * bias).flatten(-2)


def _with_inner_dims(value: Tensor, num_dims: int) -> Tensor:
    """View ``[rows, width]`` as ``[rows, 1, ..., width]`` with ``num_dims`` dimensions."""
    if value.dim() == 2 and num_dims > 2:
        return value.view(value.size(0), *[1] * (num_dims - 2), value.size(-1))
    return value
