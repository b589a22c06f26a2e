"""The mean of a volume."""

from typing import Any

from torch import Tensor

from rstg_pyg.arguments import check_positive
from rstg_pyg.blocks.frame_vectors import FrameVectorBlock


class VolumePool(FrameVectorBlock):
    r"""Average a volume over space and time: what stands between a network of space-time convolutions and its linear
    layer ("Quo Vadis, Action Recognition?", Carreira and Zisserman, CVPR 2017,
    `arXiv:1705.07750 <https://arxiv.org/abs/1705.07750>`_).

    .. math::
        \mathbf{z} = \frac{1}{THW} \sum_{t,y,x} \mathbf{F}_{t,y,x}

    ``step`` takes a stream's next frame and returns what ``forward`` returns for all frames up to it.

    Args:
        channels: Size C of the volume's features.

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, C]``.
        - **step:** ``[B, C, H, W], state -> ([B, C], state)``.

    Raises:
        ValueError: If ``channels`` is not positive, or a volume or a frame does not fit.

    Example:
        >>> import torch
        >>> from rstg_pyg.blocks import VolumePool
        >>> VolumePool(64)(torch.randn(2, 64, 10, 6, 6)).shape
        torch.Size([2, 64])
    """

    def __init__(self, channels: int) -> None:
        check_positive(channels=channels)
        super().__init__(channels, readout="mean")

    def run(self, volume: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the means ``[B, T, C]`` of a volume's frames; there is no memory."""
        return volume.mean((3, 4)).transpose(1, 2), None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels})"
