"""A small convolutional backbone that sees one frame at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, MaxPool2d, Module, ReLU, Sequential

from rstg_pyg.arguments import check_choice, check_flags, check_positive, describe, num_dims
from rstg_pyg.models.border import RepeatBorderConv2d
from rstg_pyg.models.folded_norm import can_fold, folded_norm


class FrameCNN(Module):
    r"""The backbone of SyncMNIST in "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu,
    NeurIPS 2019, `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_): 3 x 3 convolutions without padding, each
    followed by a ReLU and 2 x 2 max-pooling.

    .. math::
        \mathbf{F} \leftarrow \mathrm{pool}_{2 \times 2}(\mathrm{ReLU}(\mathrm{norm}(\mathbf{W} * \mathbf{F})))

    Args:
        in_channels: Channels of a frame.
        widths: Filters of each convolution; three of 512 in the paper.
        batch_norm: Put a batch normalisation before each ReLU. The paper has none.
        refine: Add a 3 x 3 convolution of the last width with padding, a ReLU and no pooling, which lets a place of the
            map see its neighbours. The paper has none.
        padding_mode: What that convolution sees beyond the border, see :class:`torch.nn.Conv2d`. Zeros tell a place
            that it lies at the border.

    Shapes:
        - **input:** frames ``[B, C, H, W]``.
        - **output:** features ``[B, widths[-1], H', W']``; 64 x 64 becomes 6 x 6 after three convolutions, 32 x 32
          becomes 6 x 6 after two.

    Raises:
        ValueError: If an argument is out of its range, or the frame is of other channels or too small.

    Example:
        >>> import torch
        >>> from rstg_pyg import FrameCNN
        >>> FrameCNN(1, widths=(16, 32))(torch.rand(8, 1, 32, 32)).shape
        torch.Size([8, 32, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (512, 512, 512),
        batch_norm: bool = False,
        refine: bool = False,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        check_flags(batch_norm=batch_norm, refine=refine)
        if not isinstance(widths, (tuple, list)) or len(widths) == 0:
            raise ValueError(f"expected 'widths' to hold at least one width, got {describe(widths)}")
        check_choice("padding_mode", padding_mode, ("zeros", "replicate", "reflect", "circular"))
        check_positive(in_channels=in_channels, **{f"widths[{i}]": width for i, width in enumerate(widths)})
        self.in_channels = in_channels
        self.out_channels = widths[-1]
        self.padding_mode = padding_mode
        self.smallest = 3 * 2 ** len(widths) - 2

        bias = not batch_norm

        def convolution(before: int, width: int, padded: bool) -> list[Module]:
            if not padded:
                conv = Conv2d(before, width, 3, bias=bias)
            elif padding_mode == "replicate":
                conv = RepeatBorderConv2d(before, width, 3, bias=bias)
            else:
                conv = Conv2d(before, width, 3, padding=1, bias=bias, padding_mode=padding_mode)
            return [conv, *([BatchNorm2d(width)] if batch_norm else []), ReLU()]

        layers: list[Module] = []
        for before, width in zip([in_channels, *widths], widths, strict=False):
            layers += [*convolution(before, width, padded=False), MaxPool2d(2)]
        if refine:
            layers += convolution(widths[-1], widths[-1], padded=True)
        # The layout that convolution kernels work in: with it, nothing is reordered between the layers.
        self.layers = Sequential(*layers).to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> Tensor:
        if num_dims(frames) != 4 or frames.size(1) != self.in_channels or min(frames.shape[-2:]) < self.smallest:
            raise ValueError(
                f"expected frames of shape [B, {self.in_channels}, H, W] with H and W of at least {self.smallest}, "
                f"got {describe(frames)}"
            )
        frames = frames.contiguous(memory_format=torch.channels_last)
        conv, norm, *rest = self.layers
        if not folds_on(frames) or not can_fold(conv, norm, self.layers):
            return self.layers(frames)
        maps = folded_norm(frames, conv, norm)
        for layer in rest:
            maps = layer(maps)
        return maps


def folds_on(frames: Tensor) -> bool:
    """Whether folding pays there: on a CPU the moments of the patches cost more than they save."""
    return frames.is_cuda


def pixels_to_unit(video: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Map uint8 pixels to floats in 0..1, of the default type where none is given; floats stay as they are."""
    return video if video.is_floating_point() else video.to(dtype or torch.get_default_dtype()) / 255


def weight_dtype(module: Module) -> torch.dtype:
    """The type of a module's first weight, or the default where it has none."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
