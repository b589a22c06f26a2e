"""The layers of the space stage: send MLP, attention score, update MLP, computed per node as far as algebra allows.

Shape legend: as in :mod:`rstg_pyg.conv.rstg_conv`; U is the width of the first update layer.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.nn import GLU, Identity, LogSoftmax, Module, ModuleList, ReLU, RReLU, Softmax, Softmax2d, Softmin
from torch_geometric.nn.dense import linear as pyg
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import OptTensor

from rstg_pyg.ops.linear import linear
from rstg_pyg.ops.plain import Message
from rstg_pyg.ops.stages import SpaceWeights, are_plain
from rstg_pyg.watched import is_bare

ATTENTION = ("dot", "additive", "mean")
_ALONG_A_DIMENSION = GLU, LogSoftmax, Softmax, Softmax2d, Softmin


class Linear(pyg.Linear):
    """PyG's linear layer, lazy initialisation included, whose products take the faster library."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


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
        for child in self.children():
            reset(child)

    @property
    def has_linear_last(self) -> bool:
        """Whether a linear layer of its own ends the MLP, which then commutes with a weighted sum."""
        return self.lin_last is not None and not self.act_last

    @property
    def commutes(self) -> bool:
        """Whether that layer is nobody else's, so that it may be called once per node."""
        return self.has_linear_last and is_bare(self.lin_last, Linear)

    @property
    def form(self) -> str:
        """The form of the message in :class:`~rstg_pyg.ops.GatherSpec`."""
        if self.lin_last is None or len(self.lins) > 0 or type(self.act) is not ReLU:
            return "function"
        return "product" if self.act_last else "relu"

    def message(self) -> Message:
        """The message of an edge from the first layer on; of a linear last layer, its input."""
        if self.form == "relu":
            return Message()
        ends_linear, act, own = self.has_linear_last, self.act, dict(self.act.named_parameters())
        layers = [*self.lins] if ends_linear or self.lin_last is None else [*self.lins, self.lin_last]
        num_weights = 2 * len(layers)

        def function(h: Tensor, *tensors: Tensor | None) -> Tensor:
            given = dict(zip(own, tensors[num_weights:], strict=True))

            def activated(h: Tensor) -> Tensor:
                return functional_call(act, given, (h,)) if given else act(h)

            for weight, bias in zip(tensors[:num_weights:2], tensors[1:num_weights:2], strict=True):
                h = linear(activated(h), weight, bias)
            h = activated(h) if ends_linear or self.act_last else h
            return h.unsqueeze(-2) if ends_linear else h.unflatten(-1, (self.heads, -1))

        weights = [(layer.weight, layer.bias) for layer in layers]
        return Message(function, [*chain.from_iterable(weights), *own.values()])

    def forward(self, v: Tensor, pe: OptTensor) -> tuple[Tensor, Tensor]:
        src, dst = self.lin_src(v), self.lin_dst(v)
        if pe is None:
            return src, dst
        pe = _with_ones(pe if pe.dtype == src.dtype else pe.to(src.dtype), src.dim())
        return src + self.lin_pe_src(pe), dst + self.lin_pe_dst(pe)

    def hidden(self, src_j: Tensor, dst_i: Tensor, edge_attr: OptTensor) -> Tensor:
        h = src_j + dst_i
        edge = self.edge_term(edge_attr, h.dim(), h.dtype)
        return self.hidden_from_first(h if edge is None else h + edge)

    def edge_term(self, edge_attr: OptTensor, num_dims: int, dtype: torch.dtype) -> OptTensor:
        """What edge features add to the first layer, with ``num_dims`` dimensions."""
        if self.lin_edge is None:
            return None
        return self.lin_edge(_with_ones(edge_attr.to(dtype), num_dims))

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


def _with_ones(value: Tensor, num_dims: int) -> Tensor:
    """View ``[rows, width]`` as ``[rows, 1, ..., width]`` with ``num_dims`` dimensions."""
    if value.dim() == 2 and num_dims > 2:
        return value.view(value.size(0), *[1] * (num_dims - 2), value.size(-1))
    return value


def join_frames(value: OptTensor, inner: torch.Size) -> OptTensor:
    """View ``[rows, *, width]`` as ``[rows, F, width]``, and what has no inner dimensions as ``[rows, 1, width]``."""
    if value is None or value.dim() < 2:
        return value
    if value.dim() == 2:
        return value.unsqueeze(1)
    given = value.shape[1:-1]
    if given != inner and any([size > 1 for size in given]):
        value = value.expand(-1, *inner, -1)
    return value if len(inner) == 1 else value.flatten(1, -2)


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
        by_head = (*query.shape[:-1], self.heads, query.size(-1) // self.heads)
        return query.view(by_head) / math.sqrt(by_head[-1]), key.view(by_head)

    def merges(self, rows: int) -> bool:
        """Whether, for a dot score, one product of weights is cheaper than the key's projection of so many rows."""
        if self.heads > 1:
            return False
        width, channels = self.lin_dst.weight.shape
        return rows * (2 * width - channels) >= 2 * channels * width

    def merged_weight(self) -> Tensor:
        """The matrix that takes nodes to queries whose keys are the nodes themselves, for one head ``[C, C]``."""
        with torch.autocast(self.lin_dst.weight.device.type, enabled=False):
            scale = 1 / math.sqrt(self.lin_dst.weight.size(0))
            return (self.lin_src.weight * scale).t() @ self.lin_dst.weight

    def combine(self, query_i: Tensor, key_j: Tensor) -> Tensor:
        if self.attention == "dot":
            return (query_i * key_j).sum(dim=-1)
        return F.leaky_relu(query_i + key_j, self.negative_slope)


class UpdateMLP(Module):
    r""":math:`\mathrm{MLP}([\mathbf{v}_i \, \Vert \, \mathbf{g}_i])`; a call takes the two concatenated.

    With :math:`\mathbf{W} = [\mathbf{W}_v \, \Vert \, \mathbf{W}_g]` the first layer and :math:`\mathbf{W}_s` the
    linear last layer of the send MLP,

    .. math::
        \mathbf{W} [\mathbf{v}_i \, \Vert \, \mathbf{W}_s \textstyle\sum_j \alpha_{ji} \mathbf{h}_{ji}]
            = \mathbf{W}_v \mathbf{v}_i + (\mathbf{W}_g \mathbf{W}_s) \textstyle\sum_j \alpha_{ji} \mathbf{h}_{ji},

    so with many rows (nodes times frames) one product of weights replaces one product per row:
    :meth:`forward_from_sum`.
    """

    def __init__(self, widths: Sequence[int], act: str | Callable | None, act_last: bool, bias: bool) -> None:
        super().__init__()
        self.act = Identity() if act is None else activation_resolver(act)
        self.act_last = act_last
        self.lins = ModuleList(Linear(*ends, bias=bias) for ends in pairwise(widths))

    def reset_parameters(self) -> None:
        for child in self.children():
            reset(child)

    def forward(self, x: Tensor) -> Tensor:
        return self._from_first(self.lins[0](x))

    def _from_first(self, h: Tensor) -> Tensor:
        """Take the first layer, before its activation, up to the output."""
        for lin in list(self.lins)[1:]:
            h = lin(self.act(h))
        return self.act(h) if self.act_last else h

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
        return self._from_first(h)


class Projections(NamedTuple):
    """Halves of the first send layer ``src, dst [N, *, H]``; the two sides of the score, ``[N, *, K]`` or
    ``[N, *, K, d]``; and where the update is merged with the last send layer, the own half of the first update layer,
    ``own [N, *, U]``."""

    src: Tensor
    dst: Tensor
    query: Tensor
    key: Tensor
    own: OptTensor = None


def project(send: MessageMLP, score: PairScore, update: UpdateMLP, v: Tensor, pe: OptTensor) -> Projections:
    """Project nodes ``v [N, *, C]`` with as few products as the identities of :class:`PairScore` and
    :class:`UpdateMLP` leave, where weights may be read."""
    rows, channels = v.shape[:-1].numel(), v.size(-1)
    own = None
    if send.has_linear_last and send.heads == 1 and is_bare(update, UpdateMLP) and is_bare(update.lins[0], Linear):
        first = update.lins[0]
        if rows >= 2 * first.out_channels:
            own = linear(v, first.weight[:, :channels], first.bias)
    bare = score.attention == "dot" and is_bare(score.lin_dst, Linear) and is_bare(score.lin_src, Linear)
    if bare and score.merges(rows):
        query = linear(v, score.merged_weight())
        query, key = query.unsqueeze(-2), v.to(query.dtype).unsqueeze(-2)
    else:
        query, key = score(v)
    return Projections(*send(v, pe), query, key, own)


def may_be_read(send: MessageMLP, score: PairScore) -> bool:
    """Whether backends may read the children's weights, and call their activation on blocks of edges, with all inner
    dimensions in one, and again in the backward pass. PyTorch's own can be called so, but for those that draw numbers
    or look along a dimension."""
    act = send.act
    return (
        is_bare(send, MessageMLP)
        and is_bare(score, PairScore)
        and type(act).__module__ in (ReLU.__module__, Identity.__module__)
        and not isinstance(act, (RReLU, *_ALONG_A_DIMENSION))
        and getattr(act, "num_parameters", 1) == 1  # PReLU: one for each entry of the second dimension.
        and is_bare(act, type(act))
        and all([is_bare(lin, Linear) for lin in send.lins])
        and (send.lin_last is None or is_bare(send.lin_last, Linear))
    )


def space_weights(send: MessageMLP, score: PairScore, update: UpdateMLP) -> SpaceWeights | None:
    """What one call for few rows reads; None where the stage has another form, or a call of a layer does more than its
    product."""
    if send.form != "relu" or score.attention != "dot" or send.lin_edge is not None or not is_bare(update, UpdateMLP):
        return None
    # From the dictionaries: a Module's own way to its children takes as long as the products of a few rows.
    of_send, of_score, of_update = send._modules, score._modules, update._modules
    layers = [of_send.get(name) for name in ("lin_src", "lin_dst", "lin_pe_src", "lin_pe_dst", "lin_last")]
    layers += [of_score["lin_dst"], of_score["lin_src"], *of_update["lins"]]
    if len(layers) > 9 or not is_bare(of_update["act"], ReLU):
        return None
    if not all([layer is None or is_bare(layer, Linear) for layer in layers]):
        return None
    values = [{} if layer is None else layer._parameters for layer in (*layers, None)]
    src, dst, pe_src, pe_dst, last, query, key, first, second, *_ = values
    weights = SpaceWeights(
        *(src["weight"], dst["weight"], dst["bias"], pe_src.get("weight"), pe_dst.get("weight")),
        *(query["weight"], key["weight"], last["weight"], last["bias"]),
        *(first["weight"], first["bias"], second.get("weight"), second.get("bias")),
    )
    return weights if are_plain(weights) else None
