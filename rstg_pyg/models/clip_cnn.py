"""A small convolutional backbone that sees the frames of a clip together."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import (
    BatchNorm2d,
    BatchNorm3d,
    CircularPad3d,
    Conv2d,
    Conv3d,
    MaxPool2d,
    MaxPool3d,
    Module,
    ReflectionPad3d,
    ReLU,
    Sequential,
)

from rstg_pyg.arguments import check_choice, check_flags, check_positive, describe, num_dims
from rstg_pyg.models.border import RepeatBorder
from rstg_pyg.models.frame_cnn import FrameCNN
from rstg_pyg.models.non_local import NonLocalBlock

SIDES = (1, 1, 1, 1, 0, 0)
PADDINGS = {
    "replicate": RepeatBorder,
    "reflect": lambda: ReflectionPad3d(SIDES),
    "circular": lambda: CircularPad3d(SIDES),
}
"""Layers that put a border around maps and none around time; zeros are the convolution's own."""


class ClipCNN(Module):
    r"""The layers of :class:`~rstg_pyg.FrameCNN` with convolutions over time as well, as in I3D of "Quo Vadis, Action
    Recognition? A New Model and the Kinetics Dataset" (Carreira, Zisserman, CVPR 2017,
    `arXiv:1705.07750 <https://arxiv.org/abs/1705.07750>`_).

    .. math::
        \mathbf{F} \leftarrow \mathrm{pool}_{1 \times 2 \times 2}(\mathrm{ReLU}(\mathrm{norm}(\mathbf{W} * \mathbf{F})))

    with kernels of k x 3 x 3, padded with zero frames: the volume keeps its length, its maps get the sizes that
    :class:`~rstg_pyg.FrameCNN` gives them. A frame's features depend on later frames, so there is no form for streams.

    Args:
        in_channels: Channels of a frame.
        widths: Filters of each convolution.
        temporal_kernel: Length k of the kernels in frames, odd.
        batch_norm: Put a batch normalisation before each ReLU.
        refine: Add a convolution of the last width with padding, a ReLU and no pooling.
        padding_mode: What that convolution sees beyond the border of its maps, see :class:`torch.nn.Conv3d`. Beyond the
            first and the last frame every layer sees zeros.
        non_local: Layers, counted from 0 and the refining one included, that a
            :class:`~rstg_pyg.models.NonLocalBlock` follows.

    Shapes:
        - **input:** clips ``[B, C, T, H, W]``.
        - **output:** features ``[B, widths[-1], T, H', W']``.

    Raises:
        ValueError: If an argument is out of its range, or the clip is of other channels or too small.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import ClipCNN
        >>> ClipCNN(1, widths=(16, 32), non_local=(1,))(torch.rand(2, 1, 10, 32, 32)).shape
        torch.Size([2, 32, 10, 6, 6])
    """

    takes_clips = True

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (512, 512, 512),
        temporal_kernel: int = 3,
        batch_norm: bool = False,
        refine: bool = False,
        non_local: Sequence[int] = (),
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        check_flags(batch_norm=batch_norm, refine=refine)
        if not isinstance(widths, (tuple, list)) or len(widths) == 0:
            raise ValueError(f"expected 'widths' to hold at least one width, got {describe(widths)}")
        check_choice("padding_mode", padding_mode, ("zeros", *PADDINGS))
        check_positive(
            in_channels=in_channels,
            temporal_kernel=temporal_kernel,
            **{f"widths[{i}]": width for i, width in enumerate(widths)},
        )
        if temporal_kernel % 2 == 0:
            raise ValueError(f"expected 'temporal_kernel' to be odd, got {temporal_kernel}")
        num_layers = len(widths) + refine
        if not isinstance(non_local, (tuple, list)) or not all(layer in range(num_layers) for layer in non_local):
            raise ValueError(f"expected 'non_local' to hold layers from 0 to {num_layers - 1}, got {non_local!r}")
        self.in_channels = in_channels
        self.out_channels = widths[-1]
        self.smallest = 3 * 2 ** len(widths) - 2

        def layer(number: int, before: int, width: int) -> Sequential:
            pooled = number < len(widths)
            side = 1 if not pooled and padding_mode == "zeros" else 0
            parts: list[Module] = [] if pooled or side else [PADDINGS[padding_mode]()]
            parts += [
                Conv3d(
                    before,
                    width,
                    (temporal_kernel, 3, 3),
                    padding=(temporal_kernel // 2, side, side),
                    bias=not batch_norm,
                )
            ]
            parts += [BatchNorm3d(width)] if batch_norm else []
            parts += [ReLU()]
            parts += [MaxPool3d((1, 2, 2))] if pooled else []
            parts += [NonLocalBlock(width)] if number in non_local else []
            return Sequential(*parts)

        sizes = [in_channels, *widths, *([widths[-1]] if refine else [])]
        layers = [layer(number, *pair) for number, pair in enumerate(pairwise(sizes))]
        # The layout that convolution kernels work in: with it, nothing is reordered between the layers.
        self.layers = Sequential(*layers).to(memory_format=torch.channels_last_3d)

    @classmethod
    def inflate(cls, frame_cnn: FrameCNN, temporal_kernel: int = 3, non_local: Sequence[int] = ()) -> "ClipCNN":
        r"""Start from the weights of a network of frames.

        .. math::
            \mathbf{W}^{3D}_{\tau} = \frac{1}{k} \, \mathbf{W}^{2D}, \qquad \tau = 1, \ldots, k

        On a clip whose frames are all alike, every frame that lies far enough from both ends gets the features that
        ``frame_cnn`` gives it. Biases and normalisations are copied.
        """
        before = [m for m in frame_cnn.layers if isinstance(m, (Conv2d, BatchNorm2d))]
        convolutions = [m for m in before if isinstance(m, Conv2d)]
        num_pools = sum(isinstance(m, MaxPool2d) for m in frame_cnn.layers)
        net = cls(
            frame_cnn.in_channels,
            [m.out_channels for m in convolutions[:num_pools]],
            temporal_kernel,
            batch_norm=len(before) > len(convolutions),
            refine=len(convolutions) > num_pools,
            non_local=non_local,
            padding_mode=frame_cnn.padding_mode,
        ).to(convolutions[0].weight)
        after = [m for layer in net.layers for m in layer if isinstance(m, (Conv3d, BatchNorm3d))]
        for old, new in zip(before, after, strict=True):
            state = old.state_dict()
            if isinstance(old, Conv2d):
                weight = state["weight"].unsqueeze(2) / temporal_kernel
                state["weight"] = weight.expand(-1, -1, temporal_kernel, -1, -1)
            new.load_state_dict(state)
        return net.train(frame_cnn.training)

    def forward(self, clips: Tensor) -> Tensor:
        if (
            num_dims(clips) != 5
            or clips.size(1) != self.in_channels
            or clips.size(2) < 1
            or min(clips.shape[-2:]) < self.smallest
        ):
            raise ValueError(
                f"expected clips of shape [B, {self.in_channels}, T, H, W] with H and W of at least {self.smallest} "
                f"and T of at least 1, got {describe(clips)}"
            )
        return self.layers(clips.contiguous(memory_format=torch.channels_last_3d))
