"""Which frames of a video make a clip, how many clips a video gives, and how their logits become one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from torch import Tensor

from rstg_pyg.arguments import check_positive

Choose = Callable[[int], np.ndarray]
"""From the number of frames of a video to the numbers of those that are wanted, in any shape."""

# Of videos whose frames come unevenly: how often a second it is looked which one is shown, at least, and how many
# seconds one frame counts for, at most, whatever a damaged file says.
_RATE, _LONGEST = 30, 60


class View(NamedTuple):
    r"""What clips are taken from a video.

    Attributes:
        samplings: Choices of frames.
        crops: Crops along the longer side, for each of them.
        random: Whether frames and crop are random, and colours and sides are changed.
    """

    samplings: int
    crops: int
    random: bool


VIEWS = {"train": View(1, 1, True), "centre": View(1, 1, False), "22": View(2, 11, False)}
"""The clips of a video: one at random, one from the centre, or the 2 x 11 of the paper's evaluation."""


def every_frame(count: int) -> np.ndarray:
    r"""Choose all frames."""
    return np.arange(count)


def random_indices(count: int, positions: np.ndarray) -> np.ndarray:
    r"""One random frame from each of T equal segments of a video.

    .. math::
        i_k = \lfloor (k + u_k) \, N / T \rfloor, \qquad k = 0, \ldots, T - 1

    The segments cover the video and do not overlap, so the frames are in order, and of a video with fewer than T
    frames some are repeated. Source: Wang et al., "Temporal Segment Networks", ECCV 2016.

    Args:
        count: Number N of frames of the video.
        positions: Where in its segment every frame lies, u in [0, 1).

    Shapes:
        - **positions:** ``[T]``. **output:** ``[T]`` int64.

    Example:
        >>> random_indices(8, np.array([0.0, 0.9, 0.5, 0.2])).tolist()
        [0, 3, 5, 6]
    """
    length = len(positions)
    chosen = np.floor((np.arange(length) + positions) * count / length).astype(np.int64)
    # A product just below the number of frames may be rounded up to it.
    return np.minimum(chosen, count - 1)


def spread_indices(count: int, num_frames: int, samplings: int = 1) -> np.ndarray:
    r"""Fixed frames of T equal segments of a video, in S ways.

    .. math::
        i_{s, k} = \left\lfloor \left( k + \frac{2 s + 1}{2 S} \right) \frac{N}{T} \right\rfloor

    With one sampling these are the centres of the segments, with two the points at a quarter and at three quarters.

    Args:
        count: Number N of frames of the video.
        num_frames: Number T of frames of a clip.
        samplings: Number S of clips.

    Shapes:
        - **output:** ``[S, T]`` int64.

    Example:
        >>> spread_indices(16, 4).tolist()
        [[2, 6, 10, 14]]
        >>> spread_indices(16, 4, samplings=2).tolist()
        [[1, 5, 9, 13], [3, 7, 11, 15]]
    """
    place = 2 * np.arange(samplings, dtype=np.int64)[:, None] + 1
    segment = 2 * samplings * np.arange(num_frames, dtype=np.int64)
    return (segment + place) * count // (2 * samplings * num_frames)


def even_times(times: Sequence[float | None], promised: Fraction | None = None) -> tuple[Fraction | None, np.ndarray]:
    r"""Which frame of a video is shown at even times.

    Frames that come evenly, each less than half the time between two away from its place, stand for themselves, once
    each. Of others, such as a browser's or a screen's recording, each stands there for as long as it is shown, and the
    last for as long as they do on average: what is spread over the result is spread over time.

    .. math::
        j_k = \max \{ i : t_i - t_0 \le (k + 1 / 2) / r \}, \qquad r = \max(30, (N - 1) / (t_{N - 1} - t_0))

    Args:
        times: When the N frames begin, t, in seconds. Where one has none, or they are not in order, frames count as
            even.
        promised: Frames a second r that the file promises. It counts where frames keep to it.

    Returns:
        The rate r, or None if nothing tells it, and the numbers j of the frames.

    Example:
        >>> even_times([0.0, 0.083, 0.167, 0.25], Fraction(12))
        (Fraction(12, 1), array([0, 1, 2, 3]))
        >>> rate, shown = even_times([0.0, 0.1, 0.5])
        >>> rate, np.bincount(shown).tolist()
        (Fraction(30, 1), [3, 12, 7])
    """
    each = np.arange(len(times))
    if len(times) < 2 or None in times:
        return promised, each
    gaps = np.diff(np.array(times, dtype=np.float64))
    if not (gaps >= 0).all() or not gaps.any():
        return promised, each
    starts = np.append(0, gaps.clip(max=_LONGEST).cumsum())
    mean = Fraction(each[-1] / starts[-1]).limit_denominator(1000)
    for rate in (promised, mean):
        if rate and np.abs(starts - each / float(rate)).max() < 0.5 / float(rate):
            return rate, each
    rate = max(Fraction(_RATE), mean)
    count = round(len(times) / each[-1] * starts[-1] * float(rate))
    return rate, np.searchsorted(starts, (np.arange(count) + 0.5) / float(rate), side="right") - 1


def average_views(logits: Tensor, views: int) -> Tensor:
    r"""The mean logits of every video, from those of its clips, which are folded into the batch.

    Source: the evaluation with 22 clips of `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_.

    Args:
        logits: The logits of all clips; the clips of a video lie one after the other.
        views: Clips V of a video.

    Shapes:
        - **logits:** ``[B * V, M]``. **output:** ``[B, M]``.

    Raises:
        ValueError: If the number of clips is no multiple of ``views``.

    Example:
        >>> import torch
        >>> average_views(torch.tensor([[0.0, 2.0], [2.0, 2.0], [1.0, 0.0], [1.0, 4.0]]), views=2)
        tensor([[1., 2.],
                [1., 2.]])
    """
    check_positive(views=views)
    if logits.dim() != 2 or logits.size(0) % views:
        raise ValueError(f"expected logits of shape [B * {views}, M], got {list(logits.shape)}")
    return logits.unflatten(0, (-1, views)).mean(1) if logits.size(0) else logits
