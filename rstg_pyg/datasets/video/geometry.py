"""Sizes and crops of frames."""

from __future__ import annotations

import torch
from torch import Tensor


def short_side_to(height: int, width: int, short: int) -> tuple[int, int]:
    r"""Height and width after a resize that makes the shorter side :obj:`short` and keeps the shape.

    Args:
        height (int): Height.
        width (int): Width.
        short (int): The shorter side afterwards.

    Example:
        >>> short_side_to(100, 176, 256)
        (256, 451)
    """
    low, high = min(height, width), max(height, width)
    long = (2 * high * short + low) // (2 * low)
    return (short, long) if height <= width else (long, short)


def crop_offsets(length: int, size: int, count: int) -> list[int]:
    r"""Where :obj:`count` crops begin that are spread evenly over a side, from its one end to the other.

    .. math::
        o_j = \mathrm{round} \left( \frac{j \, (L - S)}{n - 1} \right), \qquad
        o_0 = \mathrm{round} \left( \frac{L - S}{2} \right) \ \text{if} \ n = 1

    Halves are rounded up.

    Args:
        length (int): The side :math:`L`.
        size (int): Size of the crops :math:`S`, at most :math:`L`.
        count (int): How many crops :math:`n`.

    Example:
        >>> crop_offsets(451, 256, 1), crop_offsets(451, 256, 3)
        ([98], [0, 98, 195])
    """
    room = length - size
    if count == 1:
        return [(room + 1) // 2]
    return [(2 * j * room + count - 1) // (2 * (count - 1)) for j in range(count)]


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    r"""Resizes frames, with antialiasing where they become smaller.

    Args:
        frames (torch.Tensor): The frames, channels last, as decoders give them.
        height (int): Height of the output.
        width (int): Width of the output.

    Shapes:
        - **frames:** :math:`(T, H, W, 3)`, uint8
        - **output:** :math:`(T, 3, H', W')`, uint8

    Example:
        >>> resize(torch.zeros(2, 10, 20, 3, dtype=torch.uint8), 5, 8).shape
        torch.Size([2, 3, 5, 8])
    """
    frames = frames.permute(0, 3, 1, 2)
    if frames.shape[2:] == (height, width):
        return frames
    return torch.nn.functional.interpolate(frames, (height, width), mode="bilinear", antialias=True)


def spread_crops(video: Tensor, size: int, count: int) -> Tensor:
    r"""Square crops along the longer side of a clip, as :func:`crop_offsets` places them; centred on the other.

    Args:
        video (torch.Tensor): The clip.
        size (int): Height and width of the crops :math:`S`.
        count (int): How many crops :math:`n`.

    Shapes:
        - **video:** :math:`(3, T, H, W)`
        - **output:** :math:`(n, 3, T, S, S)`

    Raises:
        ValueError: If the clip is smaller than the crops.

    Example:
        >>> spread_crops(torch.rand(3, 4, 8, 14), size=8, count=11).shape
        torch.Size([11, 3, 4, 8, 8])
    """
    height, width = video.shape[2:]
    if min(height, width) < size:
        raise ValueError(f"expected a video of at least {size} x {size}, got {height} x {width}")
    along_width = width >= height
    tops = crop_offsets(height, size, 1 if along_width else count)
    lefts = crop_offsets(width, size, count if along_width else 1)
    return torch.stack([video[:, :, top : top + size, left : left + size] for top in tops for left in lefts])


def random_crop(frames: Tensor, size: int, short: float, positions: tuple[float, float]) -> Tensor:
    r"""The square that a crop of :obj:`size` would show after a resize of the shorter side to :obj:`short`.

    Only that square is resized. Its side in the video is :math:`\mathrm{size} / \mathrm{short}` of the shorter side.

    Args:
        frames (torch.Tensor): The frames.
        size (int): Height and width of the output :math:`S`.
        short (float): The shorter side, at least :math:`S`.
        positions (tuple): Where the square lies, from 0 (top, left) to 1.

    Shapes:
        - **frames:** :math:`(T, H, W, 3)`, uint8
        - **output:** :math:`(T, 3, S, S)`, uint8

    Example:
        >>> frames = torch.arange(8 * 8).to(torch.uint8).view(1, 8, 8, 1).expand(1, 8, 8, 3)
        >>> random_crop(frames, size=4, short=8, positions=(0.0, 0.99))[0, 0, 0]
        tensor([4, 5, 6, 7], dtype=torch.uint8)
    """
    height, width = frames.shape[1:3]
    side = max(1, round(min(height, width) * size / short))
    top, left = (
        min(int(place * (length - side + 1)), length - side)
        for place, length in zip(positions, (height, width), strict=True)
    )
    return resize(frames[:, top : top + side, left : left + side], size, size)
