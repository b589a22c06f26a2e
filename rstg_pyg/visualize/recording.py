"""Reads the attention of a model while it runs."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module

from rstg_pyg.authors.block import AuthorsRSTG
from rstg_pyg.blocks.region_block import RegionBlock
from rstg_pyg.recurrence import RSTG
from rstg_pyg.recurrence.rstg import SPACE_TIME, TIME
from rstg_pyg.regions.cells import Scale


class AttentionRecording:
    """While it is open, keeps the attention of the last space stage of every block of regions that runs, by ``forward``
    or by ``step``. It may be opened again: what it kept stays until a block runs.

    Args:
        model: Any module that holds :class:`~rstg_pyg.RSTGToVec`, :class:`~rstg_pyg.RSTGToMap` or
            :class:`~rstg_pyg.authors.AuthorsRSTG`.

    Shapes:
        - **alpha:** of the block that ran last among those with a space stage, ``[E, B, T]`` in the order of
          ``region_graph(scales).edge_index``, the mean over heads; or None. T are the frames of its last
          call, on a space-time graph of a stream with the frame before. **scales:** of that block, or of the last block
          where none has attention, or None without a block.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTGToVec
        >>> from rstg_pyg.visualize.recording import AttentionRecording
        >>> block = RSTGToVec(8, scales=(2, 1))
        >>> with AttentionRecording(block) as recording:
        ...     vector = block(torch.randn(3, 8, 5, 6, 6))
        >>> recording.alpha.shape, recording.scales
        (torch.Size([16, 3, 5]), ((2, 2), (1, 1)))
    """

    def __init__(self, model: Module) -> None:
        self.alpha: Tensor | None = None
        self.scales: tuple[Scale, ...] | None = None
        self._model = model
        self._handles: list[Any] = []

    def __enter__(self) -> AttentionRecording:
        asked: list[bool] = []

        def ask(rstg: RSTG, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            asked.append(bool(kwargs.get("return_attention_weights")))
            return args, {**kwargs, "return_attention_weights": True}

        def take_from(block: RegionBlock) -> Any:
            def take(rstg: RSTG, args: tuple, kwargs: dict, out: tuple) -> tuple:
                if out[2]:
                    self.scales, self.alpha = block.pool.scales, attention_of_stage(block, *out[2][-1])
                return out if asked.pop() else out[:2]

            return take

        for module in self._model.modules():
            if isinstance(module, RegionBlock):
                self.scales = module.pool.scales
                # The recurrent graph is what clips and streams both go through.
                self._handles.append(module.rstg.register_forward_pre_hook(ask, with_kwargs=True))
                self._handles.append(module.rstg.register_forward_hook(take_from(module), with_kwargs=True))
            elif isinstance(module, AuthorsRSTG):
                self.scales = module.pool.scales
                self._handles.append(module.attention.register_forward_hook(self._take_pairs(module)))
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _take_pairs(self, block: AuthorsRSTG) -> Any:
        # The edges of the region graph, in its order: by receiver, then sender.
        receiver, sender = block.adjacency.nonzero(as_tuple=True)

        def take(module: Module, args: tuple, alpha: Tensor) -> None:
            self.scales, self.alpha = block.pool.scales, alpha.mean(2)[..., receiver, sender].movedim(-1, 0)

        return take


def attention_of_stage(block: RegionBlock, edge_index: Tensor, alpha: Tensor) -> Tensor:
    """Mean over heads, ``[E, B, T]``; on the space-time graph, of the edges within frames, which stand first."""
    alpha = alpha.mean(-1)
    if [stage for stage in block.rstg.stages if stage != TIME][-1] != SPACE_TIME:
        return alpha
    num_edges, num_nodes = block.edge_index.size(1), block.pool.cells.size(0)
    # T * E + (T - 1) * (E + N) edges in all.
    num_frames = (edge_index.size(1) + num_edges + num_nodes) // (2 * num_edges + num_nodes)
    within = alpha[: num_edges * num_frames].unflatten(0, (num_edges, num_frames))
    return within.movedim(1, -1)
