"""The small convolutional backbones of SyncMNIST: one sees a frame at a time, one the frames of a clip together."""

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
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
from rstg_pyg.models.non_local import NonLocalBlock
from rstg_pyg.models.norm_pool import norm_pool, takes_norm_pool
from rstg_pyg.watched import everything_is_watched, is_bare

MAX_PATCH = 32
"""Patches of up to so many values are worth their moments: kernels of 3 x 3 on frames of three channels are."""


class _SmallCNN(Module):
    """What both backbones check and keep."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], batch_norm: bool, refine: bool, padding_mode: str
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


class FrameCNN(_SmallCNN):
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
        super().__init__(in_channels, widths, batch_norm, refine, padding_mode)
        layers: list[Module] = []
        for number, (before, width) in enumerate(pairwise([in_channels, *widths, *widths[-1:] * refine])):
            pooled = number < len(widths)
            if pooled:
                layers += [Conv2d(before, width, 3, bias=not batch_norm)]
            elif padding_mode == "replicate":
                layers += [RepeatBorderConv2d(before, width, 3, bias=not batch_norm)]
            else:
                layers += [Conv2d(before, width, 3, padding=1, bias=not batch_norm, padding_mode=padding_mode)]
            layers += [BatchNorm2d(width)] if batch_norm else []
            layers += [ReLU()]
            layers += [MaxPool2d(2)] if pooled else []
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
        if folds_on(frames) and can_fold(conv, norm, self.layers):
            maps = folded_norm(frames, conv, norm)
            for layer in rest:
                maps = layer(maps)
            return maps
        return fused(frames, self.layers) if can_fuse(frames, self.layers) else self.layers(frames)


class ClipCNN(_SmallCNN):
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
        non_local: Layers, counted from 0 and the refining one included, that a
            :class:`~rstg_pyg.models.NonLocalBlock` follows.
        padding_mode: What that convolution sees beyond the border of its maps, see :class:`torch.nn.Conv3d`. Beyond the
            first and the last frame every layer sees zeros.

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
        super().__init__(in_channels, widths, batch_norm, refine, padding_mode)
        check_positive(temporal_kernel=temporal_kernel)
        if temporal_kernel % 2 == 0:
            raise ValueError(f"expected 'temporal_kernel' to be odd, got {temporal_kernel}")
        num_layers = len(widths) + refine
        if not isinstance(non_local, (tuple, list)) or not all(layer in range(num_layers) for layer in non_local):
            raise ValueError(f"expected 'non_local' to hold layers from 0 to {num_layers - 1}, got {non_local!r}")
        layers = []
        for number, (before, width) in enumerate(pairwise([in_channels, *widths, *widths[-1:] * refine])):
            pooled = number < len(widths)
            side = 1 if not pooled and padding_mode == "zeros" else 0
            # A border around maps and none around time; zeros are the convolution's own.
            parts: list[Module] = [] if pooled or side else [_PADDINGS[padding_mode]((1, 1, 1, 1, 0, 0))]
            kernel, padding = (temporal_kernel, 3, 3), (temporal_kernel // 2, side, side)
            parts += [Conv3d(before, width, kernel, padding=padding, bias=not batch_norm)]
            parts += [BatchNorm3d(width)] if batch_norm else []
            parts += [ReLU()]
            parts += [MaxPool3d((1, 2, 2))] if pooled else []
            parts += [NonLocalBlock(width)] if number in non_local else []
            layers.append(Sequential(*parts))
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
                state["weight"] = inflated(state["weight"], temporal_kernel)
            new.load_state_dict(state)
        return net.train(frame_cnn.training)

    def forward(self, clips: Tensor) -> Tensor:
        fits = num_dims(clips) == 5 and clips.size(1) == self.in_channels and clips.size(2) > 0
        if not fits or min(clips.shape[-2:]) < self.smallest:
            raise ValueError(
                f"expected clips of shape [B, {self.in_channels}, T, H, W] with H and W of at least {self.smallest} "
                f"and T of at least 1, got {describe(clips)}"
            )
        return self.layers(clips.contiguous(memory_format=torch.channels_last_3d))


def inflated(kernel: Tensor, num_frames: int) -> Tensor:
    """A kernel ``[O, C, H, W]`` for images, repeated over the frames of one for videos and divided by their number."""
    return (kernel / num_frames).unsqueeze(2).expand(-1, -1, num_frames, -1, -1)


def repeat_border(maps: Tensor) -> Tensor:
    """Put one more row and column of the same values around maps ``[N, C, H, W]`` or ``[N, C, T, H, W]``.

    It is :func:`torch.nn.functional.pad` with ``mode="replicate"``, whose gradient comes in another layout than
    compilers are told for maps with channels last, so that compiled networks would stop at it: they join slices.
    """
    if not torch.compiler.is_compiling():
        return F.pad(maps, (1, 1, 1, 1) + (0, 0) * (maps.dim() == 5), mode="replicate")
    for dim in (-2, -1):
        maps = torch.cat((maps.narrow(dim, 0, 1), maps, maps.narrow(dim, -1, 1)), dim)
    return maps


class RepeatBorder(Module):
    """:func:`repeat_border` as a layer."""

    def forward(self, maps: Tensor) -> Tensor:
        return repeat_border(maps)


class RepeatBorderConv2d(Conv2d):
    """A convolution with kernels of 3 x 3 of maps whose border is repeated: they keep their size."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(repeat_border(maps))


_PADDINGS = {"replicate": lambda sides: RepeatBorder(), "reflect": ReflectionPad3d, "circular": CircularPad3d}


_LETTERS = {Conv2d: "c", RepeatBorderConv2d: "c", BatchNorm2d: "n", ReLU: "r", MaxPool2d: "p"}


def can_fuse(frames: Tensor, layers: Sequential) -> bool:
    """Whether :func:`fused` does what the layers of a :class:`FrameCNN` do, and nobody looks at them; compilers fuse
    layers themselves."""
    return (
        frames.is_cpu
        and type(frames) is Tensor
        and not torch.compiler.is_compiling()
        and is_bare(layers, Sequential)
        and all([is_bare(layer, *_LETTERS) for layer in layers])
        and re.fullmatch("(cnrp?)+", "".join([_LETTERS[type(layer)] for layer in layers])) is not None
        and all([layer.kernel_size == layer.stride == 2 for layer in layers if type(layer) is MaxPool2d])
        and all([takes_norm_pool(frames, layer) for layer in layers if type(layer) is BatchNorm2d])
        and not everything_is_watched()
    )


def fused(frames: Tensor, layers: Sequential) -> Tensor:
    """Return ``layers(frames)`` with all that stands between two convolutions in one go, see :func:`norm_pool`."""
    maps, rest = frames, list(layers)
    while rest:
        conv, norm, _, *rest = rest
        pooled = bool(rest) and type(rest[0]) is MaxPool2d
        rest = rest[pooled:]
        border = bool(rest) and type(rest[0]) is RepeatBorderConv2d
        # The border of a RepeatBorderConv2d is there already.
        maps = norm_pool(Conv2d.forward(conv, maps), norm, pooled, border)
    return maps


def folds_on(frames: Tensor) -> bool:
    """Whether folding pays there: on a CPU the moments of the patches cost more than they save."""
    return frames.is_cuda


def can_fold(conv: Module, norm: Module, *around: Module) -> bool:
    """Whether :func:`folded_norm` does what the two layers do, and nobody looks at them or what is ``around`` them."""
    return (
        is_bare(conv, Conv2d)
        and is_bare(norm, BatchNorm2d)
        and all(is_bare(module, type(module)) for module in around)
        and not everything_is_watched()
        and conv.weight[0].numel() <= MAX_PATCH
        and conv.groups == 1
        and conv.padding == (0, 0)
        and conv.bias is None
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


def folded_norm(frames: Tensor, conv: Conv2d, norm: BatchNorm2d) -> Tensor:
    r"""Return ``norm(conv(frames))``, without looking at the convolution's output.

    An output is a product :math:`\mathbf{w}^\top \mathbf{p}` with a patch of the frame, so its mean and variance follow
    from those of the patches,

    .. math::
        \mu = \mathbf{w}^\top \mathrm{E}[\mathbf{p}], \qquad
        \sigma^2 = \mathbf{w}^\top \mathrm{Cov}[\mathbf{p}] \, \mathbf{w},

    and the normalisation :math:`\gamma (\mathbf{w}^\top \mathbf{p} - \mu) / \sigma + \beta` is a convolution with other
    weights: of a layer with few channels in and many out, whose output is the largest tensor of the network, only the
    convolution is left. The moments are computed in float64, for a patch's values are much alike and an edge detector's
    variance is what is left when they cancel.

    Shapes:
        - **frames:** ``[N, C, H, W]``. **output:** ``[N, O, H', W']``.
    """
    with torch.autocast(frames.device.type, enabled=False):
        weight = conv.weight.flatten(1).double()
        if norm.training:
            mean, variance, count = _output_moments(frames, conv, weight)
            with torch.no_grad():
                norm.num_batches_tracked.add_(1)
                unbiased = variance * (count / max(count - 1, 1))
                norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
                norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
        else:
            mean, variance = norm.running_mean.double(), norm.running_var.double()
        scale = norm.weight * (variance + norm.eps).rsqrt()
        folded = (weight * scale.unsqueeze(1)).view_as(conv.weight).to(conv.weight.dtype)
        shift = (norm.bias - mean * scale).to(conv.weight.dtype)
    return F.conv2d(frames, folded, shift, conv.stride, dilation=conv.dilation)


def _output_moments(frames: Tensor, conv: Conv2d, weight: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance ``[O]`` of the outputs of the kernels ``weight [O, C * H * W]``, and how many each has."""
    patches = F.unfold(frames.double(), conv.kernel_size, conv.dilation, stride=conv.stride)
    count = patches.size(0) * patches.size(2)
    mean_patch = patches.mean((0, 2))
    covariance = (patches @ patches.transpose(1, 2)).sum(0) / count - torch.outer(mean_patch, mean_patch)
    variance = ((weight @ covariance) * weight).sum(1).clamp(min=0)
    return weight @ mean_patch, variance, count
