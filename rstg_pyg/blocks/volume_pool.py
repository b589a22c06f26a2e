"""Blocks that make a vector of every frame and read the clip's vector off them, and the simplest one, the mean.

Shape legend: B clips, C channels of the volume, T frames, H x W pixels, G channels of a vector.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.typing import OptTensor

from rstg_pyg.arguments import check_choice, check_like, check_mean, check_positive, describe, num_dims
from rstg_pyg.norm import Norm, resolve_norm
from rstg_pyg.ops.frames import check_mask


class FrameVectorBlock(Module):
    r"""From ``[B, C, T, H, W]`` to ``[B, G]`` by way of a vector per frame, made of it and the frames before it.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the vectors (default: C).
        readout: ``"last"`` or ``"mean"`` over time.
        input_norm: Normalisation of the features that ``run`` works on, see :class:`~rstg_pyg.RSTGConv`.
    """

    def __init__(
        self, in_channels: int, channels: int | None = None, readout: str = "last", input_norm: Norm = None
    ) -> None:
        super().__init__()
        channels = in_channels if channels is None else channels
        check_positive(in_channels=in_channels, channels=channels)
        check_choice("readout", readout, ("last", "mean"))
        self.in_channels = in_channels
        self.channels = channels
        self.readout = readout
        self.input_norm = resolve_norm(input_norm, in_channels, "input_norm")

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters."""
        for child in self.children():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()

    def run(self, volume: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the vectors ``[B, T, G]`` of a volume's frames and the state after the last of them."""
        raise NotImplementedError

    def forward(self, volume: Tensor) -> Tensor:
        check_volume(self, volume)
        vectors, _ = self.run(volume)
        return vectors[:, -1] if self.readout == "last" else vectors.mean(1)

    def step(self, frame: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start).

        With ``readout="mean"`` the state is that of ``run``, the mean and the number of frames, see :func:`next_mean`.
        """
        clip = as_clip(self, frame)
        check_like("frame", frame, self)
        return self._vector(clip, state) if self.readout == "last" else step_mean(self, clip, state)

    def _vector(self, clip: Tensor, state: Any, mask: OptTensor = None) -> tuple[Tensor, Any]:
        """Of a clip of one frame; ``mask [B, 1]`` is of no matter to blocks without memory, which alone get one."""
        vectors, state = self.run(clip, state)
        return vectors[:, -1], state

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.channels}, readout={self.readout!r})"


class VolumePool(FrameVectorBlock):
    r"""From a feature volume to its mean over space and time: what stands between a network of space-time convolutions
    and its linear layer ("Quo Vadis, Action Recognition?", Carreira and Zisserman, CVPR 2017,
    `arXiv:1705.07750 <https://arxiv.org/abs/1705.07750>`_).

    .. math::
        \mathbf{z} = \frac{1}{THW} \sum_{t,y,x} \mathbf{F}_{t,y,x}

    ``step`` takes a stream's next frame and returns what ``forward`` returns for all frames up to it.

    Args:
        channels: Size C of the volume's features.

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, C]``; with a ``mask [B, T]``, bool, of the frames that each clip has.
        - **step:** ``[B, C, H, W], state -> ([B, C], state)``, with a ``mask [B]`` of the clips that have the frame.

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

    def forward(self, volume: Tensor, mask: OptTensor = None) -> Tensor:
        if mask is None:
            return super().forward(volume)
        check_volume(self, volume)
        vectors, _ = self.run(volume)
        return masked_readout(vectors, check_mask(mask, vectors.shape[:2], vectors), self.readout)

    def step(self, frame: Tensor, state: Any = None, mask: OptTensor = None) -> tuple[Tensor, Any]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start)."""
        clip = as_clip(self, frame)
        check_like("frame", frame, self)
        return step_mean(self, clip, state, mask)

    def run(self, volume: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the means ``[B, T, C]`` of a volume's frames; there is no memory."""
        return volume.mean((3, 4)).transpose(1, 2), None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels})"


def check_volume(block: Any, volume: Tensor) -> None:
    """Raise unless ``volume`` is a feature volume that a block takes."""
    if num_dims(volume) != 5 or volume.size(1) != block.in_channels or 0 in volume.shape[2:]:
        raise ValueError(
            f"expected a feature volume of shape [B, {block.in_channels}, T, H, W] with T, H and W of at least 1, "
            f"got {describe(volume)}"
        )
    check_like("volume", volume, block)


def as_clip(block: Any, frame: Tensor) -> Tensor:
    """View a frame that a block takes as a clip of one."""
    if num_dims(frame) != 4 or frame.size(1) != block.in_channels or 0 in frame.shape[2:]:
        raise ValueError(
            f"expected a frame of shape [B, {block.in_channels}, H, W] with H and W of at least 1, "
            f"got {describe(frame)}"
        )
    return frame.unsqueeze(2)


def masked_readout(vectors: Tensor, mask: Tensor, readout: str) -> Tensor:
    """The last, or the mean, of the vectors ``[B, T, G]`` of the frames that each clip has by ``mask [B, T]``; 0 of
    none."""
    vectors = torch.where(mask.unsqueeze(-1), vectors, 0)
    if readout == "mean":
        wide = torch.promote_types(vectors.dtype, torch.float32)
        return (vectors.sum(1, dtype=wide) / mask.sum(1, keepdim=True).clamp(min=1)).to(vectors.dtype)
    last = (mask * torch.arange(mask.size(1), device=mask.device)).amax(1)
    return vectors[torch.arange(mask.size(0), device=mask.device), last]


def step_mean(block: Any, clip: Tensor, state: Any, mask: OptTensor = None) -> tuple[Tensor, Any]:
    """Take the next frame of a stream, a clip of one, into the mean of what the block's ``_vector`` makes of each."""
    check_mean(state, [clip.size(0), block.channels], clip.device)
    mask = None if mask is None else check_mask(mask, clip.shape[:1], clip)
    state, *memory = (None,) if state is None else state
    vector, state = block._vector(clip, state, None if mask is None else mask.unsqueeze(1))
    mean, *memory = next_mean(vector, *memory, mask=mask)
    return mean, (state, *memory)


def next_mean(
    value: Tensor, mean: Tensor | None = None, count: Tensor | None = None, *, mask: OptTensor = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Take the next value of a stream into its mean.

    .. math::
        \bar x_n = \bar x_{n-1} + \frac{x_n - \bar x_{n-1}}{n}

    A sum would outgrow the digits of its type: of ones in bfloat16 it ends at 256.

    Shapes:
        - **value, mean:** alike. **count:** ``[]``, int64: how many values ``mean`` is of, or ``[B, 1]``, of each row.
        - **mask:** ``[B]`` bool, the rows of ``value [B, G]`` that count; what the others hold does not matter.
        - **output:** the mean in the type of ``value``; ``mean``, in float32 or wider, and ``count`` for the next call.

    Example:
        >>> import torch
        >>> _, *memory = next_mean(torch.tensor([1.0]))
        >>> next_mean(torch.tensor([3.0]), *memory)
        (tensor([2.]), tensor([2.]), tensor(2))
    """
    wide = value.to(torch.promote_types(value.dtype, torch.float32))
    if mean is None:
        mean, count = torch.zeros_like(wide), torch.zeros((), dtype=torch.int64, device=value.device)
    if mask is None:
        count = count + 1
        mean = mean + (wide - mean) / count
    else:
        there = mask.unsqueeze(-1)
        count = count + there
        mean = mean + torch.where(there, wide - mean, 0) / count.clamp(min=1)
    return mean.to(value.dtype, copy=True), mean, count
