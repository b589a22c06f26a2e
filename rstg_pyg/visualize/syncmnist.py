"""What pictures need to know of SyncMNIST: where the digits in step are, and what its classes are called."""

from __future__ import annotations

import torch
from torch import Tensor

from rstg_pyg.arguments import check_positive
from rstg_pyg.datasets.labels import NUM_CLASSES, label_to_pair
from rstg_pyg.datasets.motion import CANVAS, SPRITE


def pair_names() -> list[str]:
    """Name the 46 classes: the two digits, smaller first, or "none".

    Source: the labels of SyncMNIST in "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> from rstg_pyg.visualize import pair_names
        >>> pair_names()[22], pair_names()[45]
        ('1-7', 'none')
    """
    pairs = map(label_to_pair, range(NUM_CLASSES))
    return ["none" if pair is None else f"{pair[1]}-{pair[0]}" for pair in pairs]


def digits_in_step(path: Tensor, sync: Tensor, size: int) -> Tensor:
    r"""Return the boxes of the two digits of a SyncMNIST clip that move in step.

    A sprite of 28 x 28 whose corner is at (y, x) of the 100 x 100 canvas covers, in a frame of ``size`` S, the pixels

    .. math::
        \left[ \tfrac{S}{100} y - \tfrac12,\ \tfrac{S}{100} (y + 28) - \tfrac12 \right], \qquad \text{x alike,}

    where whole numbers are the centres of pixels, as in matplotlib's images.

    Args:
        path: Corners of the sprites on the canvas, ``path`` of a :class:`~rstg_pyg.SyncMNIST` item or batch.
        sync: Which two digits move in step, or -1, ``sync`` of the same.
        size: Height and width of the frames.

    Returns:
        Boxes (y0, x0, y1, x1) in pixels, NaN in clips where no digits move in step.

    Shapes:
        - **path:** ``[B, D, T, 2]``. **sync:** ``[B, 2]``. **output:** ``[B, T, 2, 4]``.

    Raises:
        ValueError: If the shapes do not fit each other, ``sync`` names a digit that is not there, or
            ``size`` is not positive.

    Source: SyncMNIST in "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg.visualize import digits_in_step
        >>> path = torch.tensor([[0, 10], [50, 72]]).view(1, 2, 1, 2)
        >>> digits_in_step(path, torch.tensor([[0, 1]]), size=50)
        tensor([[[[-0.5000,  4.5000, 13.5000, 18.5000],
                  [24.5000, 35.5000, 38.5000, 49.5000]]]])
    """
    if path.dim() != 4 or path.size(-1) != 2 or sync.shape != (path.size(0), 2):
        raise ValueError(f"expected path [B, D, T, 2] and sync [B, 2], got {list(path.shape)} and {list(sync.shape)}")
    if sync.numel() and not -1 <= int(sync.min()) <= int(sync.max()) < path.size(1):
        raise ValueError(f"expected 'sync' to hold digits within 0 to {path.size(1) - 1}, or -1, got {sync.tolist()}")
    check_positive(size=size)
    clip = torch.arange(path.size(0), device=path.device)[:, None]
    corner = path[clip, sync.clamp(min=0)].transpose(1, 2).float()
    box = torch.cat([corner, corner + SPRITE], dim=-1) * size / CANVAS - 0.5
    return torch.where(sync[:, None, :, None] < 0, torch.nan, box)
