"""How a network goes through a stream of frames: one after the other, or by windows.

Shape legend: M classes, S x S pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module

from rstg_pyg.blocks.frame_vectors import next_mean
from rstg_pyg.datasets.video import spread_indices


class StepStream:
    r"""Logits of all frames so far, by the ``step`` of a network.

    Args:
        model: A network with ``step(frame [1, 3, S, S], state) -> (logits [1, M] or None, state)``.

    Example:
        >>> from rstg_pyg.models import VideoResNet
        >>> stream = StepStream(VideoResNet("c2d", 18, num_classes=5, width=4).eval())
        >>> for frame in torch.rand(4, 1, 3, 32, 32):
        ...     stream.push(frame)
        >>> stream.logits.shape
        torch.Size([1, 5])
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


class WindowStream:
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

    Example:
        >>> from rstg_pyg.models import VideoResNet
        >>> stream = WindowStream(VideoResNet("i3d", 18, num_classes=5, width=4).eval(), window=4, stride=2)
        >>> for frame in torch.rand(6, 1, 3, 32, 32):
        ...     stream.push(frame)
        >>> stream.logits.shape, stream.count
        (torch.Size([1, 5]), 2)
    """

    def __init__(self, model: Module, window: int, stride: int) -> None:
        if window < 2:
            raise ValueError(f"expected 'window' to be at least 2, got {window}")
        if not 1 <= stride <= window:
            raise ValueError(f"expected 'stride' to be within 1 and the window, {window}, got {stride}")
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
