"""Streams of frames, given one by one: which are looked at, how a network goes through them, and what it then says.

Shape legend: M classes, S x S pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from rstg_pyg.arguments import describe, num_dims, whole_number
from rstg_pyg.blocks.volume_pool import next_mean
from rstg_pyg.datasets.video import spread_indices
from rstg_pyg.predict.source import to_square
from rstg_pyg.visualize.explanation import AttentionRecording


@dataclass(frozen=True, eq=False)
class Prediction:
    r"""What a network says of a video after one of its frames.

    Args:
        index: The number of the frame, from 0.
        frame: The frame itself, as it came.
        logits: Of all frames so far; None as long as the network has not seen enough of them.
        attention: Of the edges of the graph, of the last frame that it was computed for; None for networks without a
            graph, and as ``logits``.
        classes: The names of the classes.

    Shapes:
        - **frame:** ``[H, W, 3]`` uint8. **logits, probabilities:** ``[M]``. **attention:** ``[E]`` in the order of
          ``region_graph(scales).edge_index``. All but the frame on the CPU.

    Example:
        >>> import torch
        >>> frame = torch.zeros(8, 8, 3, dtype=torch.uint8)
        >>> prediction = Prediction(0, frame, torch.tensor([0.0, 2.0, 1.0]), None, ("up", "down", "left"))
        >>> [(name, round(probability, 3)) for name, probability in prediction.top(2)]
        [('down', 0.665), ('left', 0.245)]
    """

    index: int
    frame: Tensor = field(repr=False)
    logits: Tensor | None
    attention: Tensor | None = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)

    @property
    def probabilities(self) -> Tensor | None:
        return None if self.logits is None else self.logits.softmax(0)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The classes of the highest probabilities, with these, best first; empty without logits."""
        if self.logits is None:
            return []
        values, places = self.probabilities.topk(min(count, len(self.classes)))
        return [(self.classes[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True)]


class LiveStream:
    r"""What :meth:`Predictor.open` returns: frames go in one by one, each gives a prediction.

    Args:
        way: How the network goes through the frames.
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
        way: FrameByFrame | SlidingWindows,
        sampler: FrameSampler,
        classes: tuple[str, ...],
        size: int,
        device: torch.device,
        attention: AttentionRecording | None,
    ) -> None:
        self._way = way
        self._sampler = sampler
        self._classes = classes
        self._size = size
        self._device = device
        self._attention = attention
        self._last: Prediction | None = None
        self._sampled = self._finished = False

    def push(self, frame: Tensor | np.ndarray) -> Prediction:
        r"""Take the next frame, ``[H, W, 3]`` uint8, red first, and say what happens in the video so far.

        Raises:
            ValueError: If the frame has another shape, type or size than those before, or comes after the last.
        """
        if self._finished:
            raise ValueError("expected no frame after the last, got one")
        if isinstance(frame, np.ndarray):
            frame = torch.from_numpy(np.array(frame))
        elif isinstance(frame, Tensor):
            frame = frame.clone()  # cameras write the next one into the same memory
        if num_dims(frame) != 3 or frame.size(2) != 3 or 0 in frame.shape or frame.dtype != torch.uint8:
            raise ValueError(f"expected a frame of shape [H, W, 3], uint8, got {describe(frame, typed=True)}")
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
                self._way.finish()
        return self._said(self._last.index, self._last.frame)

    def _look(self, frame: Tensor) -> None:
        square = to_square(frame[None], self._size).transpose(0, 1).to(self._device)
        with torch.no_grad(), self._attention or nullcontext():
            self._way.push(square)
        self._sampled = True

    def _said(self, index: int, frame: Tensor) -> Prediction:
        logits = self._way.logits
        alpha = None if self._attention is None else self._attention.alpha
        self._last = Prediction(
            index,
            frame,
            None if logits is None else logits[0].float().cpu(),
            None if alpha is None else alpha[:, 0, -1].float().cpu(),
            self._classes,
        )
        return self._last


class FrameSampler:
    r"""Take frames of a stream at a fixed rate, each where its span of time has its middle.

    .. math::
        i_k = \left\lfloor \left( k + \frac{1}{2} \right) r \right\rfloor

    with r frames of the stream per frame taken. With :math:`r = N / T` these are the T frames that
    :func:`~rstg_pyg.datasets.video.spread_indices` takes of a video of N frames. With r below 1, frames are taken more
    than once, as they are in training from videos of fewer frames than a clip has.

    Args:
        ratio: Frames of the stream per frame taken, r.

    Raises:
        ValueError: If the ratio is not above 0.

    Example:
        >>> sampler = FrameSampler(Fraction(3, 2))
        >>> [sampler.times() for _ in range(9)]
        [1, 0, 1, 1, 0, 1, 1, 0, 1]
    """

    def __init__(self, ratio: Fraction) -> None:
        if not ratio > 0:
            raise ValueError(f"expected 'ratio' to be above 0, got {ratio}")
        self._ratio = Fraction(ratio)
        self._frames = self._taken = 0

    def times(self) -> int:
        """How many times the next frame of the stream is taken."""
        self._frames += 1
        # All k with (k + 1/2) r below the number of frames so far.
        reached = self._frames / self._ratio - Fraction(1, 2)
        before, self._taken = self._taken, max(self._taken, -(-reached.numerator // reached.denominator))
        return self._taken - before


class FrameByFrame:
    r"""Logits of all frames so far, by the ``step`` of a network.

    Args:
        model: A network with ``step(frame [1, 3, S, S], state) -> (logits [1, M] or None, state)``.
    """

    def __init__(self, model: Module) -> None:
        self.logits: Tensor | None = None
        self._model = model
        self._state = None
        self._only: Tensor | None = None
        self._count = 0

    def push(self, frame: Tensor) -> None:
        """Take the next frame."""
        self._count += 1
        self._only = frame if self._count == 1 else None
        self.logits, self._state = self._model.step(frame, self._state)

    def finish(self) -> None:
        """Say that there are no more frames. A single one counts twice: the network looks at pairs."""
        if self._only is not None:
            self.push(self._only)


class SlidingWindows:
    r"""The mean logits of windows that slide over the frames.

    .. math::
        \bar z = \frac{1}{n} \sum_{w=1}^{n} f(x_{(w - 1) s + 1}, \ldots, x_{(w - 1) s + T})

    A last window ends with the last frame, unless the one before did. Fewer frames than a window has are spread over
    one, as they are in training.

    Args:
        model: A network from clips ``[1, 3, T, S, S]`` to logits ``[1, M]``.
        window: Number of frames T of a window.
        stride: Number of frames s from a window to the next.

    Raises:
        ValueError: If the window has less than 2 frames, or the stride is not within 1 to the window.
    """

    def __init__(self, model: Module, window: int, stride: int) -> None:
        window = whole_number("window", window, 2)
        stride = whole_number("stride", stride, 1, window)
        self.logits: Tensor | None = None
        self.count = 0
        self._model = model
        self._stride = stride
        self._mean: Sequence[Tensor] = ()
        self._frames: deque[Tensor] = deque(maxlen=window)
        self._new = 0

    def push(self, frame: Tensor) -> None:
        """Take the next frame."""
        self._frames.append(frame)
        self._new += 1
        if len(self._frames) == self._frames.maxlen and (self.count == 0 or self._new == self._stride):
            self._run(list(self._frames))

    def finish(self) -> None:
        """Say that there are no more frames."""
        if self._new:
            places = spread_indices(len(self._frames), self._frames.maxlen)[0]
            self._run([self._frames[place] for place in places.tolist()])

    def _run(self, frames: list[Tensor]) -> None:
        logits = self._model(torch.stack(frames, 2))
        self.count += 1
        self._new = 0
        self.logits, *self._mean = next_mean(logits, *self._mean)
