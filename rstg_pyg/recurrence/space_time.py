"""The homogeneous stage: message passing within frames and from each frame to the next."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import is_sparse

from rstg_pyg.arguments import check_memory
from rstg_pyg.conv import RSTGConv
from rstg_pyg.regions.spacetime import spacetime_edge_index


def space_time_stage(
    conv: RSTGConv,
    x: Tensor,
    edge_index: Adj,
    edge_attr: OptTensor,
    pe: OptTensor,
    past: Tensor | None,
    return_attention_weights: bool | None,
) -> Any:
    r"""Run a convolution on the space-time graph of a sequence.

    A node hears its neighbours of the same frame and of the frame before, and itself of the frame before. So the last
    input of an earlier call is all the memory that a stream needs: it goes in as one more frame in front, whose output
    is dropped.

    Shapes:
        - **x:** ``[N, *, T, C]``. **past:** ``[N, *, C]`` or None.
        - **output:** ``[N, *, T, C]``, or with ``return_attention_weights`` a pair of it and the convolution's
          ``(edge_index, alpha)`` on the space-time graph (of T + 1 frames after an earlier call).
    """
    if edge_attr is not None or is_sparse(edge_index):
        raise ValueError(
            "expected a homogeneous stage to get edges as a tensor [2, num_edges] and no 'edge_attr': the edges "
            "between frames are made from them"
        )
    if past is not None:
        check_memory("the state of a homogeneous stage", past, ["a tensor"], [*x.shape[:-2], x.size(-1)])
        x = torch.cat([past.to(x.dtype).unsqueeze(-2), x], dim=-2)
    num_nodes, num_frames = x.size(0), x.size(-2)
    out = conv(
        x.movedim(-2, 1).flatten(0, 1),
        spacetime_edge_index(edge_index, num_nodes, num_frames),
        pe=pe if pe is None else pe.repeat_interleave(num_frames, dim=0),
        return_attention_weights=return_attention_weights,
    )
    out, attention = out if return_attention_weights else (out, None)
    out = out.unflatten(0, (num_nodes, num_frames)).movedim(1, -2)
    if past is not None:
        out = out[..., 1:, :]
    return (out, attention) if return_attention_weights else out
