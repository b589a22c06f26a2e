"""Residual blocks of space-time convolutions."""

from torch import Tensor
from torch.nn import BatchNorm3d, Conv3d, Module
from torch.nn.functional import relu
from torch.nn.init import kaiming_normal_

from rstg_pyg.blocks.zero_start import ZeroBatchNorm3d


class ConvNorm(Module):
    r"""A convolution without bias, a batch normalisation and, if asked for, a ReLU.

    Args:
        in_channels: Channels of the volume.
        out_channels: Channels of the result.
        kernel: Length of the kernel in frames and its side in pixels, both odd; zeros are padded to both.
        stride: Stride in space.
        activation: Whether there is a ReLU.
        norm: The class of the normalisation.

    Shapes:
        - ``[B, C, T, H, W] -> [B, C', T, H / stride, W / stride]``.

    Example:
        >>> import torch
        >>> ConvNorm(8, 16, (3, 1))(torch.rand(2, 8, 4, 7, 7)).shape
        torch.Size([2, 16, 4, 7, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        stride: int = 1,
        activation: bool = True,
        norm: type[BatchNorm3d] = BatchNorm3d,
    ) -> None:
        super().__init__()
        frames, side = kernel
        self.conv = Conv3d(
            in_channels,
            out_channels,
            (frames, side, side),
            stride=(1, stride, stride),
            padding=(frames // 2, side // 2, side // 2),
            bias=False,
        )
        self.norm = norm(out_channels, eps=1e-5)
        self.activation = activation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm.reset_parameters()

    def forward(self, volume: Tensor) -> Tensor:
        out = self.norm(self.conv(volume))
        return relu(out, inplace=True) if self.activation else out


class ResidualBlock(Module):
    r"""A block of "Deep Residual Learning for Image Recognition" (He, Zhang, Ren, Sun, CVPR 2016,
    `arXiv:1512.03385 <https://arxiv.org/abs/1512.03385>`_) whose first convolution may see several frames, as in
    "Non-local Neural Networks" (Wang, Girshick, Gupta, He, CVPR 2018, `arXiv:1711.07971
    <https://arxiv.org/abs/1711.07971>`_).

    .. math::
        \mathbf{F} \leftarrow \mathrm{ReLU}(\mathrm{shortcut}(\mathbf{F}) + c(b(a(\mathbf{F}))))

    The bottleneck has kernels of k x 1 x 1, 1 x 3 x 3 and 1 x 1 x 1 and its stride in the second; the basic block has k
    x 3 x 3 and 1 x 3 x 3, no c, and its stride in the first. The shortcut is a 1 x 1 x 1 convolution where channels or
    stride change. The weight of the last normalisation starts at zero, so a new network is its shortcuts: with ones,
    gradients of a ResNet-50 on few clips are a hundred times as large.

    Args:
        in_channels: Channels of the volume.
        inner_channels: Channels between the convolutions.
        temporal_kernel: Length k of the first kernel in frames.
        stride: Stride in space.
        bottleneck: Whether it is a bottleneck, with four times ``inner_channels`` at its end, or a basic block.

    Shapes:
        - ``[B, C, T, H, W] -> [B, C', T, H / stride, W / stride]``.

    Example:
        >>> import torch
        >>> ResidualBlock(8, 4, 3, stride=2)(torch.rand(2, 8, 4, 8, 8)).shape
        torch.Size([2, 16, 4, 4, 4])
    """

    c: ConvNorm | None
    shortcut: ConvNorm | None

    def __init__(
        self, in_channels: int, inner_channels: int, temporal_kernel: int, stride: int = 1, bottleneck: bool = True
    ) -> None:
        super().__init__()
        self.out_channels = inner_channels * (4 if bottleneck else 1)
        last = {"activation": False, "norm": ZeroBatchNorm3d}
        if bottleneck:
            self.a = ConvNorm(in_channels, inner_channels, (temporal_kernel, 1))
            self.b = ConvNorm(inner_channels, inner_channels, (1, 3), stride)
            self.c = ConvNorm(inner_channels, self.out_channels, (1, 1), **last)
        else:
            self.a = ConvNorm(in_channels, inner_channels, (temporal_kernel, 3), stride)
            self.b = ConvNorm(inner_channels, inner_channels, (1, 3), **last)
            self.c = None
        changes = stride != 1 or in_channels != self.out_channels
        self.shortcut = ConvNorm(in_channels, self.out_channels, (1, 1), stride, activation=False) if changes else None

    def forward(self, volume: Tensor) -> Tensor:
        out = self.b(self.a(volume))
        if self.c is not None:
            out = self.c(out)
        return relu(out + (volume if self.shortcut is None else self.shortcut(volume)), inplace=True)
