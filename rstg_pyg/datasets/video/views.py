"""How many clips are taken from a video, and how their logits become one answer."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rstg_pyg.arguments import check_positive


class View(NamedTuple):
    r"""What clips are taken from a video.

    Attributes:
        samplings (int): Choices of frames.
        crops (int): Crops along the longer side, for each of them.
        random (bool): Whether frames and crop are random, and colours and sides are changed.
    """

    samplings: int
    crops: int
    random: bool


VIEWS = {"train": View(1, 1, True), "centre": View(1, 1, False), "22": View(2, 11, False)}
"""The clips of a video: one at random, one from the centre, or the 2 x 11 of the paper's evaluation."""


def average_views(logits: Tensor, views: int) -> Tensor:
    r"""The mean logits of every video, from those of its clips, which are folded into the batch.

    .. math::
        \bar z_b = \frac{1}{V} \sum_{v} z_{b V + v}

    Evaluation with 22 clips is that of `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_.

    Args:
        logits (torch.Tensor): The logits of all clips; the clips of a video lie one after the other.
        views (int): Clips per video :math:`V`.

    Shapes:
        - **logits:** :math:`(B V, M)`
        - **output:** :math:`(B, M)`

    Raises:
        ValueError: If the clips are not a multiple of :obj:`views`.

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
