"""Frames as a network takes them in evaluation."""

from __future__ import annotations

from torch import Tensor

from rstg_pyg.datasets.video import crop_offsets, resize, short_side_to, spread_crops


def to_square(frames: Tensor, size: int) -> Tensor:
    r"""The central squares of frames after a resize of the shorter side: the evaluation's centre clip.

    Args:
        frames: Frames of a video.
        size: Height and width of the result S.

    Shapes:
        - **frames:** ``[T, H, W, 3]`` uint8. **output:** ``[3, T, S, S]`` uint8.

    Example:
        >>> import torch
        >>> to_square(torch.zeros(4, 20, 30, 3, dtype=torch.uint8), 8).shape
        torch.Size([3, 4, 8, 8])
    """
    video = resize(frames, *short_side_to(*frames.shape[1:3], size)).transpose(0, 1)
    return spread_crops(video, size, 1)[0]


def square_box(height: int, width: int, size: int) -> tuple[float, float, float, float]:
    r"""Where in a frame the square of :func:`to_square` lies: top, left, bottom, right, in pixels of the frame.

    Example:
        >>> square_box(20, 30, 8)
        (0.0, 5.0, 20.0, 25.0)
    """
    resized = short_side_to(height, width, size)
    spans = []
    for length, shown in zip((height, width), resized, strict=True):
        offset = crop_offsets(shown, size, 1)[0]
        spans.append((offset * length / shown, (offset + size) * length / shown))
    (top, bottom), (left, right) = spans
    return top, left, bottom, right
