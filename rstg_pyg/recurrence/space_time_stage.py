"""The stage of the homogeneous form: message passing on the space-time graph, past frames and present ones alike.

Shape legend: as in :mod:`rstg_pyg.recurrence.rstg`; M rows, see :class:`~rstg_pyg.ops.FrameIndex`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.typing import Adj, OptTensor

from rstg_pyg.arguments import check_memory, num_dims
from rstg_pyg.ops.frames import FrameIndex, with_inner_dims
from rstg_pyg.ops.index import GraphIndex


def space_time_stage(
    conv: Module,
    x: Tensor,
    unrolled: Adj | GraphIndex,
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
    if past is not None:
        check_memory("the state of a homogeneous stage", past, ["a tensor"], [*x.shape[:-2], x.size(-1)], x.device)
        x = torch.cat([past.to(x.dtype).unsqueeze(-2), x], dim=-2)
    num_nodes, num_frames = x.size(0), x.size(-2)
    out = conv(
        x.movedim(-2, 1).flatten(0, 1),
        unrolled,
        pe=pe if pe is None else pe.repeat_interleave(num_frames, dim=0),
        return_attention_weights=return_attention_weights,
    )
    out, attention = out if return_attention_weights else (out, None)
    out = out.unflatten(0, (num_nodes, num_frames)).movedim(1, -2)
    if past is not None:
        out = out[..., 1:, :]
    return (out, attention) if return_attention_weights else out


class WithPast:
    r"""The space-time graph of a graph that changes, with the last frame of an earlier call in front.

    A node hears itself and its neighbours of the frame before where they were there; an edge of a frame leads from both
    frames into its own.

    Args:
        frames: The frames of this call.
        channels: Size C of a node's features.
        pe: Positional encodings ``[N, P]``, ``[N, T, P]`` or ``[N, *, T, P]``, or None.
        past: The state of any space-time stage, None at the start of a stream.
        index_for: Gives what the stages take for edges from a :class:`~rstg_pyg.ops.GraphIndex` and its nodes.
    """

    def __init__(
        self,
        frames: FrameIndex,
        channels: int,
        pe: OptTensor,
        past: Any,
        index_for: Callable[[GraphIndex, int], Adj | GraphIndex],
    ) -> None:
        self.frames, self.node_shape, self.channels = frames, frames.shape[:-1], channels
        self.moves = num_dims(pe) > 2
        self.pe = pe if pe is None else with_inner_dims(pe, len(frames.shape) + 1) if self.moves else pe
        self.last_pe = self.pe[..., -1, :].expand(*self.node_shape, -1).clone() if self.moves else None
        self.there = frames.there()
        self.whole = frames
        if past is not None:
            _, there, past_pe = self._parts(past)
            mask = torch.cat([there.unsqueeze(-1), self.there], dim=-1)
            edge_time = None if frames.edge_time is None else frames.edge_time + 1
            self.whole = FrameIndex(mask.shape, frames.graph, edge_time, mask)
            if self.moves or past_pe is not None:
                if past_pe is None:
                    raise ValueError("expected the state of a homogeneous stage to hold the last encodings, got none")
                now = self.pe if self.moves else pe.view(pe.size(0), *[1] * len(frames.shape[1:]), pe.size(1))
                now = now.expand(*frames.shape, -1)
                self.pe = torch.cat([past_pe.to(now.dtype).unsqueeze(-2), now], dim=-2)
        self.index = index_for(self.whole.spacetime_index, self.whole.num_rows)

    def _parts(self, past: Any) -> tuple[Tensor, Tensor, OptTensor]:
        """The last input, who was there, and the last encodings."""
        name, shape = "the state of a homogeneous stage", [*self.node_shape, self.channels]
        device = self.there.device
        if not isinstance(past, tuple):
            check_memory(name, past, ["a tensor"], shape, device)
            return past, torch.ones(self.node_shape, dtype=torch.bool, device=past.device), None
        x, there, pe = (*past, None, None)[:3]
        if len(past) not in (2, 3) or getattr(there, "dtype", None) != torch.bool or there.shape != self.node_shape:
            check_memory(name, past, ["a tensor"], shape, device)
        check_memory(name, x, ["a tensor"], shape, device)
        if pe is not None and self.pe is not None:
            check_memory(
                f"the last encodings in {name}", pe, ["a tensor"], [*self.node_shape, self.pe.size(-1)], device
            )
        return x, there, pe

    def run(self, conv: Module, rows: Tensor, past: Any, return_attention_weights: bool | None) -> tuple[Any, Any]:
        """Give what ``conv`` makes of the rows of this call, ``[M, C]``, and the next state."""
        x = self.frames.put(rows)
        entry = x[..., -1, :].clone(), self.there[..., -1].clone(), *([] if self.last_pe is None else [self.last_pe])
        if past is not None:
            x = torch.cat([self._parts(past)[0].to(x.dtype).unsqueeze(-2), x], dim=-2)
        pe = self.whole.take_pe(self.pe)
        out = conv(self.whole.take(x), self.index, pe=pe, return_attention_weights=return_attention_weights)
        out, attention = out if return_attention_weights else (out, None)
        out = self.frames.take(self.whole.put(out)[..., x.size(-2) - self.frames.shape[-1] :, :])
        return ((out, attention) if return_attention_weights else out), entry
