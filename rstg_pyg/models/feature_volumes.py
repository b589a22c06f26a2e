"""Features of networks of any kind as volumes, and back.

Shape legend: B clips, C channels, T frames, H x W pixels.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Optional

import torch
from torch import Tensor

HF_FEATURES = "last_hidden_state"
"""Where the outputs of transformers' networks hold their features."""


def find_features(output: Any, name: str) -> Tensor:
    """Return the feature volume in what the module ``name`` returned.

    That is the output itself, its ``last_hidden_state``, or the one tensor of 4 or 5 dimensions in a tuple, list or
    dict.

    Raises:
        ValueError: If there is none, or more than one.

    Example:
        >>> find_features((torch.zeros(2, 3, 4, 7, 7), None), "layer3").shape
        torch.Size([2, 3, 4, 7, 7])
    """
    if isinstance(output, Mapping) and isinstance(output.get(HF_FEATURES), Tensor):
        output = output[HF_FEATURES]
    if isinstance(output, Tensor):
        return output
    found = list(_volumes(output))
    if len(found) != 1:
        raise ValueError(
            f"expected {name!r} to return one feature volume, got {type(output).__name__} with {len(found)} tensors of "
            "4 or 5 dimensions"
        )
    return found[0]


def _volumes(output: Any) -> Iterator[Tensor]:
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return (value for value in values if isinstance(value, Tensor) and value.dim() in (4, 5))


def swap(output: Any, old: Tensor, new: Tensor) -> Any:
    """Return an output of the same make with ``new`` wherever ``old`` stood.

    Example:
        >>> old, new = torch.zeros(1), torch.ones(1)
        >>> swap({"last": old, "all": (old, None)}, old, new)
        {'last': tensor([1.]), 'all': (tensor([1.]), None)}
    """
    if output is old:
        return new
    if isinstance(output, Mapping):
        return type(output)(**{key: swap(value, old, new) for key, value in output.items()})
    if isinstance(output, (tuple, list)):
        items = [swap(value, old, new) for value in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    return output


def to_volume(features: Tensor, num_frames: Optional[int], name: str) -> Tensor:
    """Unfold the features ``[B*T, C, H, W]`` or ``[B, C, T, H, W]`` of the module ``name`` to ``[B, C, T, H, W]``.

    Raises:
        ValueError: If they have another number of dimensions, or frames are folded into the batch and ``num_frames`` is
            not given or does not divide it.

    Example:
        >>> to_volume(torch.zeros(20, 64, 7, 7), num_frames=10, name="layer3").shape
        torch.Size([2, 64, 10, 7, 7])
    """
    if features.dim() == 5:
        return features
    if features.dim() != 4 or num_frames is None:
        hint = "; give num_frames where frames are folded into the batch, [B*T, C, H, W]" if features.dim() == 4 else ""
        wanted = "[B, C, T, H, W]" if num_frames is None else f"[B*{num_frames}, C, H, W] or [B, C, T, H, W]"
        raise ValueError(f"expected features of {name!r} of shape {wanted}, got {list(features.shape)}{hint}")
    if features.size(0) % num_frames:
        raise ValueError(
            f"expected features of {name!r} of shape [B*{num_frames}, C, H, W], as num_frames is {num_frames}, got "
            f"{list(features.shape)}"
        )
    return features.unflatten(0, (-1, num_frames)).transpose(1, 2)


def from_volume(volume: Tensor, features: Tensor) -> Tensor:
    """Fold a volume to the shape and the layout in memory that the features had, so that what follows computes alike.

    Example:
        >>> features = torch.zeros(20, 64, 7, 7).to(memory_format=torch.channels_last)
        >>> from_volume(torch.zeros(2, 64, 10, 7, 7), features).stride() == features.stride()
        True
    """
    out = volume if features.dim() == 5 else volume.transpose(1, 2).flatten(0, 1)
    return out if out.stride() == features.stride() else torch.empty_like(features).copy_(out)
