"""Weights of ResNets for images, taken over time."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from rstg_pyg.files import weight_fault
from rstg_pyg.models.cnn import inflated
from rstg_pyg.models.resnet import VideoResNet


class ImageWeights(NamedTuple):
    """What :func:`load_image_weights` did.

    Args:
        placed: Names in the network's ``state_dict`` that took a weight.
        kept: Names that did not: the classifier, non-local and graph blocks.
        left_out: Names of the images' weights that went nowhere: their classifier.
    """

    placed: tuple[str, ...]
    kept: tuple[str, ...]
    left_out: tuple[str, ...]


def load_image_weights(model: VideoResNet, state_dict: Mapping[str, Tensor]) -> ImageWeights:
    r"""Start a ResNet for videos from the weights of one for images, as "Quo Vadis, Action Recognition?" (Carreira,
    Zisserman, CVPR 2017, `arXiv:1705.07750 <https://arxiv.org/abs/1705.07750>`_) does.

    .. math::
        \mathbf{W}^{3D}_{\tau} = \frac{1}{k} \, \mathbf{W}^{2D}, \qquad \tau = 1, \ldots, k

    On a clip whose frames are all alike, every frame that lies far enough from both ends gets the features that the
    network for images gives it; in C2D every frame does. The classifier is not taken over. Bottlenecks are expected to
    have their stride in the second convolution, as those of torchvision and timm do, and those of transformers unless
    ``downsample_in_bottleneck`` is set: weights do not tell.

    Args:
        model: The network; its weights are changed in place.
        state_dict: The ``state_dict`` of a ResNet of the same depth, with the names of torchvision, timm or
            transformers, under any prefix.

    Raises:
        ValueError: If names or shapes are not those of such a ResNet, if one that the network needs is not there, if
            one has no place in it, or is complex or not finite; nothing is loaded then.

    Example:
        >>> from rstg_pyg.models import VideoResNet, load_image_weights
        >>> net = VideoResNet("i3d", depth=18)
        >>> load_image_weights(net, {"0.weight": net.classifier.weight})
        Traceback (most recent call last):
        ValueError: expected weights of a ResNet with the names of torchvision, timm or transformers, got 0.weight
    """
    prefix = _prefix(state_dict)
    own = model.state_dict()
    backbone = [name for name in own if re.match(r"(conv1|res\d\.\d+)\.", name)]
    placed: dict[str, Tensor] = {}
    left_out, problems = [], []
    for key, value in state_dict.items():
        name = _place(key.removeprefix(prefix))
        if name == "classifier":
            left_out.append(key)
        elif name is None or name not in own:
            problems.append(f"{key} has no place in the network")
        elif fault := weight_fault(value, own[name]):
            problems.append(f"{fault} in {key}")
        else:
            is_kernel = value.dim() == 4 and own[name].dim() == 5
            weight = inflated(value, own[name].size(2)) if is_kernel else value
            if weight.shape == own[name].shape:
                placed[name] = weight
            else:
                problems.append(f"{key} is of shape {list(value.shape)}, which {name} {list(own[name].shape)} is not")
    counters = ".num_batches_tracked"
    problems += [f"{name} gets nothing" for name in backbone if name not in placed and not name.endswith(counters)]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"expected weights of a ResNet-{model.depth} for images that fit the network, got: "
            f"{'; '.join(problems[:5])}{more}"
        )
    model.load_state_dict(placed, strict=False)
    return ImageWeights(tuple(placed), tuple(name for name in own if name not in placed), tuple(left_out))


_LAYERS = {
    r"conv1\.(weight)": "conv1.conv.{}",
    r"bn1\.(\w+)": "conv1.norm.{}",
    r"layer(\d)\.(\d+)\.conv(\d)\.(weight)": "res{}.{}.{}.conv.{}",
    r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)": "res{}.{}.{}.norm.{}",
    r"layer(\d)\.(\d+)\.downsample\.0\.(weight)": "res{}.{}.shortcut.conv.{}",
    r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)": "res{}.{}.shortcut.norm.{}",
}
"""Names of torchvision and timm, which count stages and convolutions from 1."""

_TRANSFORMERS = {
    r"embedder\.embedder\.convolution\.(weight)": "conv1.conv.{}",
    r"embedder\.embedder\.normalization\.(\w+)": "conv1.norm.{}",
    r"encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution\.(weight)": "res{}.{}.{}.conv.{}",
    r"encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.normalization\.(\w+)": "res{}.{}.{}.norm.{}",
    r"encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.convolution\.(weight)": "res{}.{}.shortcut.conv.{}",
    r"encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.normalization\.(\w+)": "res{}.{}.shortcut.norm.{}",
}
"""Names of transformers, which count both from 0."""

_HEADS = re.compile(r"(fc|head\.fc|classifier|classifier\.1)\.(weight|bias)")
_FIRST = ("layer1.0.conv1.weight", "encoder.stages.0.layers.0.layer.0.convolution.weight")


def _prefix(state_dict: Mapping[str, Tensor]) -> str:
    """What stands in front of all names but perhaps the classifier's."""
    for key in state_dict:
        for first in _FIRST:
            if key == first or key.endswith(f".{first}"):
                return key.removesuffix(first)
    got = ", ".join(list(state_dict)[:3]) or "none"
    raise ValueError(f"expected weights of a ResNet with the names of torchvision, timm or transformers, got {got}")


def _place(key: str) -> str | None:
    """Where a weight goes: a name in the network, "classifier", or None."""
    if _HEADS.fullmatch(key):
        return "classifier"
    for table, first in ((_LAYERS, 1), (_TRANSFORMERS, 0)):
        for pattern, name in table.items():
            found = re.fullmatch(pattern, key)
            if found:
                parts = list(found.groups())
                if len(parts) > 1:
                    parts[0] = str(int(parts[0]) - first + 2)
                if len(parts) == 4:
                    layer = int(parts[2]) - first
                    parts[2] = "abc"[layer] if layer in (0, 1, 2) else parts[2]
                return name.format(*parts)
    return None
