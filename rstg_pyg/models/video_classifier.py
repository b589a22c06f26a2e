"""A whole network: frames -> backbone -> block, such as a recurrent space-time graph -> classes."""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm, Linear, Module, Sequential

from rstg_pyg.arguments import check_positive, describe, num_dims


class VideoClassifier(Module):
    r"""Classify clips by a frame-wise backbone, :class:`~rstg_pyg.RSTGToVec` and a linear layer: the network of
    "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
    `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_), with a layer norm of the clip's vector.

    .. math::
        \mathbf{y} = \mathbf{W} \, \mathrm{LayerNorm}(\mathrm{RSTG}(\mathrm{backbone}(\mathrm{video}))) + \mathbf{b}

    Any other module from a feature volume to a vector can stand in the graph's place, as those of
    :data:`~rstg_pyg.models.ROWS` do.

    Args:
        backbone: A module from frames ``[B, C, H, W]`` to features ``[B, C', H', W']``, or one with an attribute
            ``takes_clips = True`` from clips ``[B, C, T, H, W]`` to ``[B, C', T', H', W']``.
        block: The graph, made for C' channels, or another module from ``[B, C', T', H', W']`` to
            ``[B, block.channels]``. Streams need its ``step(frame, state) -> (vector, state)``.
        num_classes: Number of classes M.

    Shapes:
        - **forward:** video ``[B, C, T, H, W]``, uint8 (mapped to 0..1) or floating point of the weights' type
          ``-> [B, M]``; with ``return_attention_weights``, ``([B, M], [(edge_index, alpha [E, B, T, heads]), ...])``.
        - **step:** frame ``[B, C, H, W]``, state ``-> ([B, M], state)``: the logits of all frames so far.

    Raises:
        ValueError: If ``num_classes`` is not positive, the block has no ``channels``, a video or a frame has another
            number of dimensions, ``step`` is called where backbone or block has no form for streams, or attention is
            asked of a block that has none.

    Example:
        >>> import torch
        >>> from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
        >>> net = VideoClassifier(FrameCNN(1, (16, 32)), RSTGToVec(32, 64), num_classes=46)
        >>> net(torch.rand(2, 1, 10, 32, 32)).shape
        torch.Size([2, 46])
        >>> logits, state = net.step(torch.rand(2, 1, 32, 32), None)
    """

    def __init__(self, backbone: Module, block: Module, num_classes: int) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        if not isinstance(getattr(block, "channels", None), int):
            raise ValueError(f"expected a block with its vector's size as 'channels', got {type(block).__name__}")
        if not isinstance(backbone, Module):
            raise ValueError(f"expected a backbone that is a module, got {describe(backbone)}")
        self.backbone = backbone
        self.block = block
        self.classifier = Sequential(LayerNorm(block.channels), Linear(block.channels, num_classes))

    def forward(self, video: Tensor, return_attention_weights: bool | None = None) -> Any:
        if num_dims(video) != 5:
            raise ValueError(f"expected a video of shape [B, C, T, H, W], got {describe(video)}")
        volume = self._volume(pixels_to_unit(video, weight_dtype(self)))
        if return_attention_weights:
            if not _takes(self.block.forward, "return_attention_weights"):
                raise ValueError(f"expected a block that returns attention weights, got {type(self.block).__name__}")
            vector, attention = self.block(volume, return_attention_weights=True)
            return self.classifier(vector), attention
        return self.classifier(self.block(volume))

    def step(self, frame: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start)."""
        if num_dims(frame) != 4:
            raise ValueError(f"expected a frame of shape [B, C, H, W], got {describe(frame)}")
        if getattr(self.backbone, "takes_clips", False):
            raise ValueError(
                f"expected a backbone that takes single frames, got {type(self.backbone).__name__}, whose features of "
                "a frame depend on later frames: it has no form for streams"
            )
        if not hasattr(self.block, "step"):
            raise ValueError(f"expected a block with a method 'step', got {type(self.block).__name__}")
        vector, state = self.block.step(self.backbone(pixels_to_unit(frame, weight_dtype(self))), state)
        return self.classifier(vector), state

    def _volume(self, clips: Tensor) -> Tensor:
        """The features ``[B, C', T', H', W']`` of ``[B, C, T, H, W]``."""
        if getattr(self.backbone, "takes_clips", False):
            return self.backbone(clips)
        frames = clips.transpose(1, 2)
        return self.backbone(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)


def _takes(function: Any, name: str) -> bool:
    """Whether a function can be called with an argument of that name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def pixels_to_unit(video: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Map uint8 pixels to floats in 0..1, of the default type where none is given; floats stay as they are."""
    return video if video.is_floating_point() else video.to(dtype or torch.get_default_dtype()) / 255


def weight_dtype(module: Module) -> torch.dtype:
    """The type of a module's first weight, or the default where it has none."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
