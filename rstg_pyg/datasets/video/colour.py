"""Random changes of colour, the same for all frames of a clip."""

from __future__ import annotations

import torch
from torch import Tensor

# Shares of red, green and blue in the brightness of a pixel, after ITU-R BT.601.
GREY = (0.299, 0.587, 0.114)
# Bits behind the point. Sums of 8-bit values times factors below 30 stay within 32 bits.
_BITS = 14


def change_colours(video: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    r"""Scales brightness, contrast and saturation of a clip.

    With the grey :math:`g` of a pixel and the mean grey :math:`\bar g` of the clip,

    .. math::
        x' = b \left( c \, (s \, x + (1 - s) \, g) + (1 - c) \, \bar g \right),

    one affine map of the colours. It is computed in integers, so that the result is the same bytes for any number of
    threads.

    Args:
        video (torch.Tensor): The clip.
        brightness (float): The factor :math:`b`.
        contrast (float): The factor :math:`c`.
        saturation (float): The factor :math:`s`.

    Shapes:
        - **video:** :math:`(3, T, H, W)`, uint8
        - **output:** :math:`(3, T, H, W)`, uint8

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


def jitter_factors(strength: float, positions: tuple[float, float, float]) -> tuple[float, float, float]:
    r"""Factors for :func:`change_colours`, each within :math:`1 \pm \mathrm{strength}`.

    Args:
        strength (float): The largest change.
        positions (tuple): Three numbers in :math:`[0, 1)`.

    Example:
        >>> jitter_factors(0.5, (0.0, 0.5, 0.75))
        (0.5, 1.0, 1.25)
    """
    brightness, contrast, saturation = (1 + strength * (2 * position - 1) for position in positions)
    return brightness, contrast, saturation
