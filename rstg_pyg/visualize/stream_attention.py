"""Reads the attention of one block of regions while it runs, by clips or by the frames of a stream."""

from __future__ import annotations

from typing import Any, Optional

from torch import Tensor

from rstg_pyg.models.region_block import RegionBlock
from rstg_pyg.visualize.recording import attention_of_stage


class StreamAttention:
    """While it is open, keeps the attention of a block's last space stage, from ``forward`` and from ``step``.

    Args:
        block: :class:`~rstg_pyg.RSTGToVec` or :class:`~rstg_pyg.RSTGToMap`.

    Shapes:
        - **alpha:** of the last frame that the block saw, ``[E, B]`` in the order of
          ``region_graph(scales).edge_index``, the mean over heads; None before the first frame, or of a block without
          a space stage. **clip_alpha:** of all frames of its last call, ``[E, B, T]``.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTGToVec
        >>> from rstg_pyg.visualize.stream_attention import StreamAttention
        >>> block, state = RSTGToVec(8, scales=(2, 1)), None
        >>> with StreamAttention(block) as attention:
        ...     for frame in torch.randn(5, 3, 8, 6, 6):
        ...         vector, state = block.step(frame, state)
        >>> attention.alpha.shape
        torch.Size([16, 3])
    """

    def __init__(self, block: RegionBlock) -> None:
        self.clip_alpha: Optional[Tensor] = None
        self._block = block
        self._handles: list[Any] = []

    @property
    def alpha(self) -> Optional[Tensor]:
        return None if self.clip_alpha is None else self.clip_alpha[:, :, -1]

    def __enter__(self) -> StreamAttention:
        asked: list[bool] = []

        def ask(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            asked.append(bool(kwargs.get("return_attention_weights")))
            return args, {**kwargs, "return_attention_weights": True}

        def take(module: Any, args: tuple, kwargs: dict, out: tuple) -> tuple:
            if out[2]:
                self.clip_alpha = attention_of_stage(self._block, *out[2][-1])
            return out if asked.pop() else out[:2]

        # The recurrent graph is what clips and streams both go through.
        self._handles = [
            self._block.rstg.register_forward_pre_hook(ask, with_kwargs=True),
            self._block.rstg.register_forward_hook(take, with_kwargs=True),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
