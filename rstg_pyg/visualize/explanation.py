"""Runs a model on clips and keeps what pictures of them need, its attention above all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle
from torch_geometric.data import Data

from rstg_pyg.authors.block import AuthorsRSTG
from rstg_pyg.blocks.region_block import RegionBlock
from rstg_pyg.models import VideoClassifier, VideoResNet
from rstg_pyg.recurrence import RSTG
from rstg_pyg.recurrence.rstg import SPACE_TIME, TIME
from rstg_pyg.regions import region_graph
from rstg_pyg.regions.cells import Scale
from rstg_pyg.visualize.clip_set import to_pixels


class AttentionRecording:
    """While it is open, keeps the attention of the last space stage of every block of regions that runs.

    A block may run by ``forward`` or by ``step``. A recording may be opened again: it keeps the last attention.

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
        >>> from rstg_pyg.visualize.explanation import AttentionRecording
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
        for module in self._model.modules():
            if isinstance(module, RegionBlock):
                self.scales = module.pool.scales
                # The recurrent graph is what clips and streams both go through.
                self._handles += ask_attention(module.rstg, partial(self._take, module))
            elif isinstance(module, AuthorsRSTG):
                self.scales = module.pool.scales
                self._handles.append(module.attention.register_forward_hook(self._take_pairs(module)))
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _take(self, block: RegionBlock, stages: list[tuple[Tensor, Tensor]]) -> None:
        if stages:
            self.scales, self.alpha = block.pool.scales, _attention_of_stage(block, *stages[-1])

    def _take_pairs(self, block: AuthorsRSTG) -> Any:
        # The edges of the region graph, in its order: by receiver, then sender.
        receiver, sender = block.adjacency.nonzero(as_tuple=True)

        def take(module: Module, args: tuple, alpha: Tensor) -> None:
            self.scales, self.alpha = block.pool.scales, alpha.mean(2)[..., receiver, sender].movedim(-1, 0)

        return take


def ask_attention(rstg: RSTG, keep: Callable[[list[tuple[Tensor, Tensor]]], None]) -> list[RemovableHandle]:
    """Have every call of ``rstg`` make its attention, which ``keep`` gets and the caller only if he asked for it.
    Return the handles of the hooks."""
    asked: list[bool] = []

    def ask(rstg: RSTG, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        asked.append(bool(kwargs.get("return_attention_weights")))
        return args, {**kwargs, "return_attention_weights": True}

    def take(rstg: RSTG, args: tuple, kwargs: dict, out: tuple) -> tuple:
        keep(out[2])
        return out if asked.pop() else out[:2]

    before = rstg.register_forward_pre_hook(ask, with_kwargs=True)
    return [before, rstg.register_forward_hook(take, with_kwargs=True)]


def _attention_of_stage(block: RegionBlock, edge_index: Tensor, alpha: Tensor) -> Tensor:
    """Mean over heads, ``[E, B, T]``; on the space-time graph, of the edges within frames, which stand first."""
    alpha = alpha.mean(-1)
    if [stage for stage in block.rstg.stages if stage != TIME][-1] != SPACE_TIME:
        return alpha
    num_edges, num_nodes = block.edge_index.size(1), block.pool.cells.size(0)
    # T * E + (T - 1) * (E + N) edges in all.
    num_frames = (edge_index.size(1) + num_edges + num_nodes) // (2 * num_edges + num_nodes)
    return alpha[: num_edges * num_frames].unflatten(0, (num_edges, num_frames)).movedim(1, -1)


@dataclass(frozen=True)
class ClipExplanation:
    """What a model made of clips, on the CPU.

    Attributes:
        video: Pixels within 0..1, ``[n, T, H, W]``, or ``[n, T, H, W, 3]`` of clips with three channels.
        graph: The region graph; None for a model without one.
        alpha: Attention of the last space stage, the mean over heads, ``[E, n, T]``; on a space-time graph, of the
            edges within frames; None for a model without space stage.
        probabilities: Of the classes, ``[n, M]``.
        frame_probabilities: The same after each frame, of the frames up to it, ``[n, T, M]``; None unless asked for.
    """

    video: Tensor
    graph: Data | None
    alpha: Tensor | None
    probabilities: Tensor
    frame_probabilities: Tensor | None = None


def explain_clips(model: Module, video: Tensor, every_frame: bool = False) -> ClipExplanation:
    """Run a model on clips and return what :func:`draw_clips` and :func:`animate_clips` show.

    The model runs in evaluation mode, without gradients and uncompiled, on the device where it is; afterwards every
    part of it is in the mode in which it was. Of several region graphs the one that ran last counts.

    Args:
        model: Any module from videos to logits; its attention is found in :class:`~rstg_pyg.RSTGToVec`,
            :class:`~rstg_pyg.RSTGToMap` or :class:`~rstg_pyg.authors.AuthorsRSTG`, wherever it is in the model.
        video: Clips as the model takes them, on any device.
        every_frame: Also return what the model says after each frame: by ``step`` of a
            :class:`~rstg_pyg.VideoClassifier` that has a form for streams, by running the beginnings of the clips with
            any other model.

    Shapes:
        - **video:** ``[n, C, T, H, W]``; with C other than 1 and 3 the picture is the mean over channels.
        - **model(video):** ``[n, M]``.

    Raises:
        ValueError: If ``video`` or what the model returns has another shape, or the model's attention is not of n
            clips.

    Source: "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
        >>> from rstg_pyg.visualize import explain_clips
        >>> net = VideoClassifier(FrameCNN(3, (16, 32)), RSTGToVec(32, 16, scales=(2, 1)), num_classes=5)
        >>> explanation = explain_clips(net, torch.rand(2, 3, 10, 32, 48))
        >>> explanation.video.shape, explanation.alpha.shape, explanation.probabilities.shape
        (torch.Size([2, 10, 32, 48, 3]), torch.Size([16, 2, 10]), torch.Size([2, 5]))
    """
    if video.dim() != 5 or 0 in video.shape:
        raise ValueError(f"expected a video of shape [n, C, T, H, W], got {list(video.shape)}")
    device = next((weight.device for weight in model.parameters()), video.device)
    moved = video.to(device)
    with _evaluation(model):
        with AttentionRecording(model) as recording:
            probabilities = _probabilities(model(moved), video.size(0))
        after_frames = _after_each_frame(model, moved) if every_frame else None
    pixels = to_pixels(video)
    return ClipExplanation(
        pixels.movedim(1, -1) if video.size(1) == 3 else pixels.mean(1),
        None if recording.scales is None else region_graph(recording.scales),
        None if recording.alpha is None else _per_video_frame(recording.alpha, video),
        probabilities,
        after_frames,
    )


@contextmanager
def _evaluation(model: Module) -> Iterator[None]:
    """Evaluation mode without gradients and compiled code, which would run past hooks."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module in training:
            module.training = True


def _after_each_frame(model: Module, video: Tensor) -> Tensor:
    has_stream_form = (
        isinstance(model, VideoClassifier)
        and hasattr(model.block, "step")
        and not getattr(model.backbone, "takes_clips", False)
    )
    said, state = [], None
    for t in range(video.size(2)):
        if has_stream_form:
            logits, state = model.step(video[:, :, t], state)
        else:
            # A single frame counts twice for networks of pairs of frames, as where a video has only one.
            is_single = t == 0 and isinstance(model, VideoResNet)
            logits = model(video[:, :, [0, 0]] if is_single else video[:, :, : t + 1])
        said.append(_probabilities(logits, video.size(0)))
    return torch.stack(said, dim=1)


def _probabilities(logits: Tensor, num_clips: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.size(0) != num_clips:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"expected the model to return logits of shape [{num_clips}, M], got {got}")
    return logits.float().softmax(1).cpu()


def _per_video_frame(alpha: Tensor, video: Tensor) -> Tensor:
    """Attention for every frame of the video, where the graph saw fewer frames, of the one that covers it."""
    if alpha.size(1) != video.size(0):
        raise ValueError(f"expected attention of {video.size(0)} clips, got it of {alpha.size(1)}")
    num_frames = video.size(2)
    return alpha[:, :, torch.arange(num_frames) * alpha.size(2) // num_frames].float().cpu()
