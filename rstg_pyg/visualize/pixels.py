"""Videos as what a picture shows."""

import torch
from torch import Tensor


def to_pixels(video: Tensor) -> Tensor:
    """Turn clips into pixels within 0..1: uint8 by 255; floats within 0..1 stay as they are; any other clip is
    stretched from its smallest to its largest value.

    Shapes:
        - **video:** ``[n, *]``. **output:** ``[n, *]`` float, on the CPU.

    Example:
        >>> import torch
        >>> from rstg_pyg.visualize.pixels import to_pixels
        >>> to_pixels(torch.tensor([[-1.0, 0.0, 3.0], [0.0, 0.5, 0.5]]))
        tensor([[0.0000, 0.2500, 1.0000],
                [0.0000, 0.5000, 0.5000]])
    """
    pixels = video.detach().cpu()
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    pixels = pixels.float()
    if pixels.numel() == 0:
        return pixels
    shape = (-1, *[1] * (pixels.dim() - 1))
    low, high = (extreme.view(shape) for extreme in pixels.flatten(1).aminmax(dim=1))
    stretched = (pixels - low) / (high - low).clamp(min=1e-12)
    return stretched.where((low < 0) | (high > 1), pixels)


def channels_to_picture(video: Tensor) -> Tensor:
    """Turn ``[n, C, T, H, W]`` into ``[n, T, H, W, 3]`` where C is 3, and into grey ``[n, T, H, W]`` by the mean over
    channels elsewhere."""
    return video.movedim(1, -1) if video.size(1) == 3 else video.mean(1)
