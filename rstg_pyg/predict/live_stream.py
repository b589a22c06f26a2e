"""A stream of frames, given one by one."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from rstg_pyg.predict.clip_streams import StepStream, WindowStream
from rstg_pyg.predict.frame_rate import FrameSampler
from rstg_pyg.predict.frames import to_square
from rstg_pyg.predict.prediction import Prediction
from rstg_pyg.visualize.explanation import AttentionRecording


class LiveStream:
    r"""What :meth:`Predictor.open` returns: frames go in one by one, each gives a prediction.

    Args:
        clip_stream: How the network goes through the frames.
        sampler: Which frames it looks at.
        classes: The names of the classes.
        size: Height and width of what it looks at.
        device: Where it runs.
        attention: What reads the attention of its graph, or None.

    Source: evaluation and clips are those of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019,
    arXiv:1904.05582; going through a stream by states or windows is this package's.

    Example:
        >>> from rstg_pyg.models import build_video_row
        >>> from rstg_pyg.predict import Predictor
        >>> predictor = Predictor(build_video_row("c2d"), [str(n) for n in range(174)], num_frames=8, size=32)
        >>> live = predictor.open(source_rate=4)
        >>> for frame in torch.zeros(6, 48, 64, 3, dtype=torch.uint8):
        ...     prediction = live.push(frame)
        >>> prediction.index, len(live.finish().top(5))
        (5, 5)
    """

    def __init__(
        self,
        clip_stream: StepStream | WindowStream,
        sampler: FrameSampler,
        classes: tuple[str, ...],
        size: int,
        device: torch.device,
        attention: AttentionRecording | None,
    ) -> None:
        self._clip_stream = clip_stream
        self._sampler = sampler
        self._classes = classes
        self._size = size
        self._device = device
        self._attention = attention
        self._last: Prediction | None = None
        self._sampled = self._finished = False

    def push(self, frame: Tensor) -> Prediction:
        r"""Take the next frame, ``[H, W, 3]`` uint8, and say what happens in the video so far.

        Raises:
            ValueError: If the frame has another shape, type or size than those before, or comes after the last.
        """
        if self._finished:
            raise ValueError("expected no frame after the last, got one")
        if frame.dim() != 3 or frame.size(2) != 3 or 0 in frame.shape or frame.dtype != torch.uint8:
            raise ValueError(f"expected a frame of shape [H, W, 3], uint8, got {list(frame.shape)}, {frame.dtype}")
        if self._last is not None and frame.shape != self._last.frame.shape:
            before, after = (" x ".join(map(str, each.shape[:2])) for each in (self._last.frame, frame))
            raise ValueError(f"expected frames of one size, got {before} and {after}")
        for _ in range(self._sampler.times()):
            self._look(frame)
        index = 0 if self._last is None else self._last.index + 1
        return self._said(index, frame)

    def finish(self) -> Prediction:
        r"""Say what happened in the whole video, after its last frame.

        Raises:
            ValueError: If there was no frame.
        """
        if self._last is None:
            raise ValueError("expected frames before the end, got none")
        if not self._finished:
            self._finished = True
            if not self._sampled:
                # Shorter than the time between two frames that are looked at.
                self._look(self._last.frame)
            with torch.no_grad(), self._attention or nullcontext():
                self._clip_stream.finish()
        return self._said(self._last.index, self._last.frame)

    def _look(self, frame: Tensor) -> None:
        square = to_square(frame[None], self._size).transpose(0, 1).to(self._device)
        with torch.no_grad(), self._attention or nullcontext():
            self._clip_stream.push(square)
        self._sampled = True

    def _said(self, index: int, frame: Tensor) -> Prediction:
        logits = self._clip_stream.logits
        alpha = None if self._attention is None else self._attention.alpha
        self._last = Prediction(
            index,
            frame,
            None if logits is None else logits[0].float().cpu(),
            None if alpha is None else alpha[:, 0, -1].float().cpu(),
            self._classes,
        )
        return self._last
