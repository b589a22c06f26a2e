"""What is done to the pixels of a clip: a resize and crops, and in training changes of colour and left-right flips."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

FLIPS = ("undirected", "swap", "never")
"""Which clips are flipped left to right in training, see :class:`~rstg_pyg.datasets.SomethingSomething`."""

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness of a pixel, after ITU-R BT.601."""

# Bits behind the point. Sums of 8-bit values times factors below 30 stay within 32 bits.
_BITS = 14
_SIDES = {"left": "right", "right": "left"}


def short_side_to(height: int, width: int, short: int) -> tuple[int, int]:
    r"""Height and width after a resize that makes the shorter side ``short`` and keeps the shape.

    Example:
        >>> short_side_to(100, 176, 256)
        (256, 451)
    """
    low, high = min(height, width), max(height, width)
    long = (2 * high * short + low) // (2 * low)
    return (short, long) if height <= width else (long, short)


def crop_offsets(length: int, size: int, count: int) -> list[int]:
    r"""Where crops begin that are spread evenly over a side, from its one end to the other; a single one is central.

    Crop j of n begins at j (L - S) / (n - 1), a single one at (L - S) / 2; halves are rounded up.

    Args:
        length: The side L.
        size: Size S of the crops, at most L.
        count: Their number n.

    Example:
        >>> crop_offsets(451, 256, 1), crop_offsets(451, 256, 3)
        ([98], [0, 98, 195])
    """
    room = length - size
    if count == 1:
        return [(room + 1) // 2]
    return [(2 * j * room + count - 1) // (2 * (count - 1)) for j in range(count)]


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    r"""Resize frames, with antialiasing where they become smaller, and put the channels before height and width.

    Shapes:
        - **frames:** ``[T, H, W, 3]`` uint8, as decoders give them. **output:** ``[T, 3, height, width]`` uint8.

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
        video: The clip.
        size: Height and width S of the crops.
        count: Their number n.

    Shapes:
        - **video:** ``[3, T, H, W]``. **output:** ``[n, 3, T, S, S]``.

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
    r"""The square that a crop would show after a resize of the shorter side. Only that square is resized.

    Args:
        frames: The frames.
        size: Height and width S of the crop.
        short: The shorter side after the resize, at least S.
        positions: Where the square lies, from 0 (top, left) to 1.

    Shapes:
        - **frames:** ``[T, H, W, 3]`` uint8. **output:** ``[T, 3, S, S]`` uint8.

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


def change_colours(video: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    r"""Multiply brightness b, contrast c and saturation s of a clip, in all of its frames alike.

    .. math::
        x' = b \left( c \, (s \, x + (1 - s) \, g) + (1 - c) \, \bar g \right)

    with the grey g of the pixel and the mean grey of the clip. It is computed in integers: any number of threads gives
    the same bytes.

    Shapes:
        - **video:** ``[3, T, H, W]`` uint8. **output:** the same.

    Example:
        >>> video = torch.randint(256, (3, 4, 8, 8), dtype=torch.uint8)
        >>> torch.equal(change_colours(video, 1.0, 1.0, 1.0), video)
        True
    """
    sums = [int(channel.sum(dtype=torch.int64)) for channel in video]
    mean = sum(weight * total for weight, total in zip(GREY, sums, strict=True)) / video[0].numel()
    # Half a unit makes the shift below round to the nearest.
    offset = round((brightness * (1 - contrast) * mean + 0.5) * 2**_BITS)
    wide = video.to(torch.int32)
    out = torch.empty_like(video)
    for row in range(3):
        total = torch.full_like(wide[0], offset)
        for column in range(3):
            share = brightness * contrast * ((row == column) * saturation + (1 - saturation) * GREY[column])
            total += wide[column] * round(share * 2**_BITS)
        out[row] = (total >> _BITS).clamp_(0, 255)
    return out


def mirror_classes(classes: Sequence[str]) -> list[int | None]:
    r"""The number of what every class is when the clip is flipped left to right; None if that is no class.

    A class whose name has neither the word "left" nor the word "right" stays what it is ("upright" is another word).
    Any other becomes the one whose name has the two words exchanged: "Pushing something from left to right" becomes
    "Pushing something from right to left".

    Example:
        >>> mirror_classes(["From left to right", "From right to left", "Moving up", "Turning left", "Upright"])
        [1, 0, 2, None, 4]
    """
    numbers = {name.casefold(): number for number, name in enumerate(classes)}
    mirrored = (re.sub(r"(?i)\b(left|right)\b", lambda side: _SIDES[side[0].lower()], name) for name in classes)
    return [numbers.get(name.casefold()) for name in mirrored]
