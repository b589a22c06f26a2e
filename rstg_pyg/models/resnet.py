"""The backbones of real videos: C2D, I3D and Non-Local ResNets, and their residual blocks."""

from collections import OrderedDict
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import BatchNorm3d, Conv3d, Dropout, Linear, MaxPool3d, Module, Sequential
from torch.nn.functional import relu
from torch.nn.init import kaiming_normal_, normal_, zeros_
from torch.nn.modules.batchnorm import _BatchNorm

from rstg_pyg.arguments import check_choice, check_flags, check_positive, check_share, describe, num_dims
from rstg_pyg.blocks.inserted_blocks import HOLDER
from rstg_pyg.blocks.to_map import ZeroBatchNorm3d
from rstg_pyg.blocks.volume_pool import VolumePool
from rstg_pyg.constant_buffers import ConstantBuffers
from rstg_pyg.models.non_local import NonLocalBlock
from rstg_pyg.models.video_classifier import pixels_to_unit

FORMS = ("c2d", "i3d", "nonlocal")
STAGES = ("res2", "res3", "res4", "res5")
NUM_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""Blocks of res2, res3, res4 and res5 by depth."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ConvNorm(Module):
    """A convolution with zero padding and without bias, a batch normalisation of the class ``norm`` and, with
    ``activation``, a ReLU. ``kernel`` is its length in frames and its side in pixels, both odd."""

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
        padding = (frames // 2, side // 2, side // 2)
        self.conv = Conv3d(
            in_channels, out_channels, (frames, side, side), (1, stride, stride), padding=padding, bias=False
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


def temporal_kernels(stage: str, num_blocks: int, form: str) -> tuple[int, ...]:
    """Return the lengths in frames of the first kernels of a stage's blocks.

    Example:
        >>> temporal_kernels("res3", 4, "i3d")
        (3, 1, 3, 1)
    """
    if form == "c2d":
        return (1,) * num_blocks
    if stage == "res2":
        return (3,) * num_blocks
    first, second = (1, 3) if stage == "res5" else (3, 1)
    return tuple(second if number % 2 else first for number in range(num_blocks))


class VideoState(NamedTuple):
    """What :meth:`VideoResNet.step` keeps of the frames so far. Its size does not grow with their number.

    Args:
        shape: Shape of the frames, ``[B, C, H, W]``.
        pending: The features after res2 of a frame whose pair is not whole yet, ``[B, C', 1, H', W']``, or None.
        blocks: The states of inserted blocks, by the modules that they follow.
        pool: The state of the pool.
        logits: Those of all whole pairs, ``[B, M]``, or None before the first is whole.
    """

    shape: torch.Size
    pending: Tensor | None
    blocks: dict[str, Any]
    pool: Any
    logits: Tensor | None


class VideoResNet(ConstantBuffers):
    r"""The ResNets for videos of "Non-local Neural Networks" (Wang, Girshick, Gupta, He, CVPR 2018, `arXiv:1711.07971
    <https://arxiv.org/abs/1711.07971>`_), in which "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta,
    Leordeanu, NeurIPS 2019, `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_) puts its graphs.

    conv1, 3 x 3 max-pooling of every frame, res2, max-pooling of pairs of frames, res3, res4, res5, the mean over space
    and time, dropout, a linear layer. A frame is halved four or five times on the way and T once. The forms:

    - ``"c2d"``: frames are convolved alone; only the pooling after res2 and the last mean mix them.
    - ``"i3d"``: kernels over time, padded with zero frames: 5 in conv1, and in the first convolution of the blocks
      3,3,3 | 3,1,3,1 | 3,1,3,1,3,1 | 1,3,1 in res2 to res5. ResNet-18 has two blocks a stage and takes the first two
      of each: 3,3 | 3,1 | 3,1 | 1,3, in the first 3 x 3 convolution of its basic blocks.
    - ``"nonlocal"``: I3D with a :class:`~rstg_pyg.models.NonLocalBlock` after every second block of res3 and res4.

    All three start from the weights of a ResNet for images with
    :func:`~rstg_pyg.models.load_image_weights`. The defaults are the form of such a ResNet; the authors of RSTG have
    ``res5_stride=1`` and ``pool_padding=0``, which makes a map of 14 x 14 out of 224 x 224.

    In evaluation mode, ``step`` of a ``"c2d"`` takes a stream's next frame, with a mean or a
    :class:`~rstg_pyg.blocks.RSTGPool` at the end and with :class:`~rstg_pyg.RSTGToMap` blocks inserted anywhere. It
    returns what ``forward`` returns for all frames up to it. ``forward`` looks at whole pairs of frames: so the first,
    third, ... frame of a stream changes nothing yet, and the very first has no logits: ``step`` returns None in their
    place. The other forms look at later frames.

    Args:
        form: ``"c2d"``, ``"i3d"`` or ``"nonlocal"``.
        depth: 18 (basic blocks) or 50 (bottlenecks).
        num_classes: Number of classes M.
        in_channels: Channels of a frame.
        width: Channels of conv1, 64 in the papers; those of the other layers go with it.
        dropout: Probability that an entry of the clip's vector is dropped in training.
        frozen_bn: Keep every batch normalisation in evaluation mode, in training too: running mean and variance stay
            and normalise, weight and bias still learn. Right for batches of a few clips on pretrained weights; without
            those there is nothing to normalise by.
        res5_stride: Stride in space of res5, 2 or 1.
        pool_padding: Padding of the max-pooling after conv1, 1 or 0.

    Shapes:
        - **forward:** video ``[B, C, T, H, W] -> [B, M]``. Floating point is taken as it is; uint8 pixels are mapped to
          0..1 and, if they have three channels, normalised by ImageNet's mean and standard deviation.
        - **features:** ``[B, C, T, H, W] -> [B, out_channels, T // 2, H', W']``.
        - **step:** frame ``[B, C, H, W]``, state ``-> ([B, M], state)``, or ``(None, state)`` at the first frame.

    Raises:
        ValueError: If an argument is out of its range, a video or a frame does not fit, or ``step`` is called of a
            network that has no form for streams.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import VideoResNet
        >>> net = VideoResNet("i3d", depth=18, num_classes=174, width=8)
        >>> net(torch.rand(2, 3, 8, 64, 64)).shape, net.features(torch.rand(2, 3, 8, 64, 64)).shape
        (torch.Size([2, 174]), torch.Size([2, 64, 4, 2, 2]))
        >>> net, state = VideoResNet("c2d", depth=18, width=8).eval(), None
        >>> with torch.no_grad():
        ...     for frame in torch.rand(4, 1, 3, 64, 64):
        ...         logits, state = net.step(frame, state)
        >>> logits.shape
        torch.Size([1, 174])
    """

    takes_clips = True
    pixel_mean: Tensor | None
    pixel_std: Tensor | None

    def __init__(
        self,
        form: str = "i3d",
        depth: int = 50,
        num_classes: int = 174,
        in_channels: int = 3,
        width: int = 64,
        dropout: float = 0.0,
        frozen_bn: bool = False,
        res5_stride: int = 2,
        pool_padding: int = 1,
    ) -> None:
        super().__init__()
        check_choice("form", form, FORMS)
        check_positive(num_classes=num_classes, in_channels=in_channels, width=width)
        for name, value, choices in (
            ("depth", depth, tuple(NUM_BLOCKS)),
            ("res5_stride", res5_stride, (2, 1)),
            ("pool_padding", pool_padding, (1, 0)),
        ):
            if not isinstance(value, int) or value not in choices:
                raise ValueError(f"expected {name!r} to be {' or '.join(map(str, choices))}, got {value!r}")
        check_share("dropout", dropout)
        check_flags(frozen_bn=frozen_bn)
        self.form = form
        self.depth = depth
        self.in_channels = in_channels
        self.frozen_bn = frozen_bn
        self.smallest = 1 if pool_padding else 5
        self.conv1 = ConvNorm(in_channels, width, (1 if form == "c2d" else 5, 7), stride=2)
        self.pool1 = MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, pool_padding, pool_padding))
        self.pool2 = MaxPool3d((2, 1, 1))
        self.widths: dict[str, int] = {}
        """Channels after each stage."""
        channels = width
        for number, (stage, num_blocks) in enumerate(zip(STAGES, NUM_BLOCKS[depth], strict=True)):
            stride = (1, 2, 2, res5_stride)[number]
            blocks, channels = self._stage(stage, num_blocks, channels, width * 2**number, stride)
            self.add_module(stage, blocks)
            self.widths[stage] = channels
        self.out_channels = channels
        self.pool = VolumePool(channels)
        self.dropout = Dropout(dropout)
        self.classifier = Linear(channels, num_classes)
        self._reset_classifier()
        self.reset_buffers()
        # The layout that convolution kernels work in: with it, nothing is reordered between the layers.
        self.to(memory_format=torch.channels_last_3d)
        self.train()

    def _stage(
        self, stage: str, num_blocks: int, channels: int, inner_channels: int, stride: int
    ) -> tuple[Sequential, int]:
        """A stage's blocks, and the channels at its end. Non-local blocks have names that shift no other."""
        parts: OrderedDict[str, Module] = OrderedDict()
        for number, kernel in enumerate(temporal_kernels(stage, num_blocks, self.form)):
            block = ResidualBlock(
                channels, inner_channels, kernel, 1 if number else stride, bottleneck=self.depth >= 50
            )
            parts[str(number)] = block
            channels = block.out_channels
            if self.form == "nonlocal" and stage in ("res3", "res4") and number % 2:
                parts[f"non_local{number}"] = NonLocalBlock(channels)
        return Sequential(parts), channels

    def constants(self) -> dict[str, Tensor | None]:
        normalises = self.in_channels == len(IMAGENET_MEAN)
        return {
            name: torch.tensor(values).view(1, -1, 1, 1, 1) if normalises else None
            for name, values in (("pixel_mean", IMAGENET_MEAN), ("pixel_std", IMAGENET_STD))
        }

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters and the constants."""
        for module in reversed(list(self.modules())[1:]):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        self._reset_classifier()
        self.reset_buffers()

    def _reset_classifier(self) -> None:
        normal_(self.classifier.weight, std=0.01)
        zeros_(self.classifier.bias)

    def train(self, mode: bool = True) -> "VideoResNet":
        """Set the mode; with ``frozen_bn``, the batch normalisations of the backbone stay in evaluation mode."""
        super().train(mode)
        if self.frozen_bn:
            for stage in ("conv1", *STAGES):
                for module in getattr(self, stage).modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def features(self, video: Tensor) -> Tensor:
        """The feature volume ``[B, out_channels, T // 2, H', W']`` at the end of res5."""
        fits = num_dims(video) == 5 and video.size(1) == self.in_channels and video.size(2) > 1
        if not fits or min(video.shape[-2:]) < self.smallest:
            raise ValueError(
                f"expected a video of shape [B, {self.in_channels}, T, H, W] with T of at least 2 and H and W of at "
                f"least {self.smallest}, got {describe(video)}"
            )
        return self._pair_features(self._frame_features(video))

    def _frame_features(self, video: Tensor) -> Tensor:
        """Up to res2, with as many frames as the video has."""
        volume = self._normalised(video).contiguous(memory_format=torch.channels_last_3d)
        return self.res2(self.pool1(self.conv1(volume)))

    def _pair_features(self, volume: Tensor) -> Tensor:
        """From the pooling of pairs on."""
        return self.res5(self.res4(self.res3(self.pool2(volume))))

    def forward(self, video: Tensor) -> Tensor:
        return self._logits(self.pool(self.features(video)))

    def _logits(self, vector: Tensor) -> Tensor:
        return self.classifier(self.dropout(vector))

    def step(self, frame: Tensor, state: VideoState | None = None) -> tuple[Tensor | None, VideoState]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start).

        Returns the logits of all whole pairs of frames so far, None at the first frame, and the new state.
        """
        self._check_stream(frame, state)
        state = VideoState(frame.shape, None, {}, None, None) if state is None else state
        inserted = getattr(self, HOLDER, None)
        with nullcontext({}) if inserted is None else inserted.streaming(state.blocks) as blocks:
            volume = self._frame_features(frame.unsqueeze(2))
            if state.pending is None:
                return state.logits, state._replace(pending=volume, blocks=blocks)
            volume = self._pair_features(torch.cat([state.pending, volume], 2))
            vector, pool = self.pool.step(volume.squeeze(2), state.pool)
        logits = self._logits(vector)
        return logits, VideoState(frame.shape, None, blocks, pool, logits.clone())

    def _check_stream(self, frame: Tensor, state: Any) -> None:
        if self.form != "c2d":
            raise ValueError(
                f"expected a network of the form 'c2d', got {self.form!r}, which looks at later frames: it has no form "
                "for streams; slide a window of frames over the video and call forward"
            )
        if not hasattr(self.pool, "step"):
            raise ValueError(f"expected a pool with a method 'step', got {type(self.pool).__name__}")
        if num_dims(frame) != 4 or frame.size(1) != self.in_channels or min(frame.shape[-2:]) < self.smallest:
            raise ValueError(
                f"expected a frame of shape [B, {self.in_channels}, H, W] with H and W of at least {self.smallest}, "
                f"got {describe(frame)}"
            )
        if state is not None and not isinstance(state, VideoState):
            raise ValueError(f"expected the state that 'step' returned, or None, got {type(state).__name__}")
        if state is not None and state.shape != frame.shape:
            raise ValueError(f"expected a frame of shape {list(state.shape)} as before it, got {describe(frame)}")

    def _normalised(self, video: Tensor) -> Tensor:
        if video.is_floating_point():
            return video
        video = pixels_to_unit(video)
        if self.pixel_mean is not None:
            video = (video - self.pixel_mean) / self.pixel_std
        return video.to(self.conv1.conv.weight.dtype)
