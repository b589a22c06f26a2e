"""The update MLP, which takes a node's features and what it gathered."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import ModuleList
from torch_geometric.nn.models import MLP
from torch_geometric.typing import OptTensor

from rstg_pyg.conv.linear import Linear
from rstg_pyg.conv.message_mlp import MessageMLP
from rstg_pyg.ops.linear import linear


class UpdateMLP(MLP):
    r""":math:`\mathrm{MLP}([\mathbf{v}_i \, \Vert \, \mathbf{g}_i])`; a call takes the two concatenated.

    With :math:`\mathbf{W} = [\mathbf{W}_v \, \Vert \, \mathbf{W}_g]` the first layer and :math:`\mathbf{W}_s` the
    linear last layer of the send MLP,

    .. math::
        \mathbf{W} [\mathbf{v}_i \, \Vert \, \mathbf{W}_s \textstyle\sum_j \alpha_{ji} \mathbf{h}_{ji}]
            = \mathbf{W}_v \mathbf{v}_i + (\mathbf{W}_g \mathbf{W}_s) \textstyle\sum_j \alpha_{ji} \mathbf{h}_{ji},

    so with many rows (nodes times frames) one product of weights replaces one product per row:
    :meth:`forward_from_sum`.
    """

    def __init__(self, channel_list: Sequence[int], act: str | Callable | None, bias: bool, plain_last: bool) -> None:
        super().__init__(list(channel_list), act=act, norm=None, bias=bias, plain_last=plain_last)
        self.lins = ModuleList(Linear(lin.in_channels, lin.out_channels, bias=bias) for lin in self.lins)

    def forward_from_sum(self, own: Tensor, summed: Tensor, total: OptTensor, send: MessageMLP) -> Tensor:
        """Return the output from the own half of the first layer ``own [N, *, U]``, bias included, and the weighted sum
        of hidden channels ``summed [N, *, H]`` of one head, whose weights add up to ``total [N, *, 1]`` (None:
        to 1)."""
        last = send.lin_last
        with torch.autocast(own.device.type, enabled=False):
            of_gathered = self.lins[0].weight[:, -last.weight.size(0) :]
            of_sum = of_gathered @ last.weight
            of_bias = None if last.bias is None else of_gathered @ last.bias
        h = own + linear(summed, of_sum, of_bias if total is None else None)
        if of_bias is not None and total is not None:
            h = h + total * of_bias
        for number, norm in enumerate(self.norms, start=1):
            h = norm(h) if self.act is None else self.act(norm(h))
            if number < len(self.lins):
                h = self.lins[number](h)
        return h
