"""What the space stage computes of every node on its own, before nodes meet.

Shape legend: N nodes, C input channels, H hidden channels, U width of the first update layer, K heads of d channels,
``*`` any inner dimensions.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch_geometric.typing import OptTensor

from rstg_pyg.conv.backend import can_merge_scores, can_merge_update
from rstg_pyg.ops.linear import linear

if TYPE_CHECKING:
    from rstg_pyg.conv.rstg_conv import RSTGConv


class Projections(NamedTuple):
    """Halves of the first send layer ``src, dst [N, *, H]``; the two sides of the score, ``[N, *, K]`` or
    ``[N, *, K, d]``; and where the update is merged with the last send layer, the own half of the first update layer,
    ``own [N, *, U]``."""

    src: Tensor
    dst: Tensor
    query: Tensor
    key: Tensor
    own: OptTensor


def project(conv: "RSTGConv", v: Tensor, pe: OptTensor) -> Projections:
    """Project nodes ``v [N, *, C]`` layer by layer."""
    return Projections(*conv.send(v, pe), *conv.pair_score(v), None)


def project_merged(conv: "RSTGConv", v: Tensor, pe: OptTensor) -> Projections:
    """Project nodes ``v [N, *, C]`` with as few products per row as the identities of
    :class:`~rstg_pyg.conv.attention.PairScore` and :class:`~rstg_pyg.conv.update_mlp.UpdateMLP` leave: one for all that
    start from ``v``."""
    rows = v.shape[:-1].numel()
    own = _own_half(conv, v.size(-1)) if can_merge_update(conv, rows) else None
    if not can_merge_scores(conv, rows):
        return project(conv, v, pe)._replace(own=None if own is None else linear(v, *own))

    layers = [(conv.send.lin_src.weight, None), (conv.send.lin_dst.weight, conv.send.lin_dst.bias)]
    layers.append((conv.pair_score.merged_weight(), None))
    if own is not None:
        layers.append(own)
    widths = [weight.size(0) for weight, _ in layers]
    src, dst, query, *rest = linear(v, *_join(layers)).split(widths, dim=-1)
    key = v.to(query.dtype)
    return Projections(
        *conv.send.with_positions(src, dst, pe), query.unsqueeze(-2), key.unsqueeze(-2), rest[0] if rest else None
    )


def _own_half(conv: "RSTGConv", channels: int) -> tuple[Tensor, OptTensor]:
    first = conv.update_mlp.lins[0]
    return first.weight[:, :channels], first.bias


def _join(layers: list[tuple[Tensor, OptTensor]]) -> tuple[Tensor, OptTensor]:
    """One layer whose output is that of all layers side by side."""
    weight = torch.cat([weight for weight, _ in layers])
    if all(bias is None for _, bias in layers):
        return weight, None
    return weight, torch.cat([one.new_zeros(one.size(0)) if bias is None else bias for one, bias in layers])
