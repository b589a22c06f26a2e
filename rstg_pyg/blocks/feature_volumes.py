"""Features of networks of any kind as volumes, and back.

Shape legend: B clips, C channels, T frames, H x W pixels.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

HF_FEATURES = "last_hidden_state"
"""Where the outputs of transformers' networks hold their features."""

CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"


class Tokens(NamedTuple):
    """The layout ``[B*T, L, C]`` of H x W places row by row, or ``[B, L, C]`` of T x H x W, after ``others`` tokens
    without a place."""

    size: tuple[int, ...]
    others: int = 0


Layout = str | Tokens
"""``"channels_first"``, ``"channels_last"`` or :class:`Tokens`."""


def find_features(output: Any, name: str, layout: Layout | None = None) -> Tensor:
    """Return the feature volume in what the module ``name`` returned.

    That is the output itself, its ``last_hidden_state``, or the one tensor in a tuple, list or dict with as many
    dimensions as the layout (None: any) has.

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
    dims = (3, 4, 5) if layout is None else (3,) if isinstance(layout, Tokens) else (4, 5)
    found = [value for value in _tensors(output) if value.dim() in dims]
    if len(found) != 1:
        wanted = " or ".join(", ".join(map(str, dims)).rsplit(", ", 1))
        raise ValueError(
            f"expected {name!r} to return one feature volume, got {type(output).__name__} with {len(found)} tensors of "
            f"{wanted} dimensions{'; give layout where one of them is meant' if layout is None and found else ''}"
        )
    return found[0]


def _tensors(output: Any) -> Iterator[Tensor]:
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return (value for value in values if isinstance(value, Tensor))


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


def to_volume(features: Tensor, num_frames: int | None, name: str, layout: Layout | None = None) -> Tensor:
    """View the features of the module ``name`` as ``[B, C, T, H, W]``.

    Without a layout they are channels first, if the channels can not be mistaken for the width.

    Raises:
        ValueError: If they have another number of dimensions or tokens, their layout is not clear, or frames are folded
            into the batch and ``num_frames`` is not given or does not divide it.

    Example:
        >>> to_volume(torch.zeros(20, 64, 7, 7), num_frames=10, name="layer3").shape
        torch.Size([2, 64, 10, 7, 7])
        >>> to_volume(torch.zeros(20, 50, 64), num_frames=10, name="blocks.3", layout=Tokens((7, 7), others=1)).shape
        torch.Size([2, 64, 10, 7, 7])
    """
    if isinstance(layout, Tokens):
        length = layout.others + math.prod(layout.size)
        clip, frame = (f"{length}, C", None) if len(layout.size) == 3 else (None, f"{length}, C")
        fits = features.dim() == 3 and features.size(1) == length
        maps = features[:, layout.others :].unflatten(1, layout.size) if fits else None
        hint = "" if fits else "; give class_tokens where tokens without a place come first"
    else:
        clip, frame = ("T, H, W, C", "H, W, C") if layout == CHANNELS_LAST else ("C, T, H, W", "C, H, W")
        maps = features if features.dim() in (4, 5) else None
        hint = "; give layout=(H, W) where they are tokens, [B*T, H*W, C]" if features.dim() == 3 else ""
    if maps is not None and maps.dim() == 4 and num_frames is None:
        hint = f"; give num_frames where frames are folded into the batch, [B*T, {frame}]"
        maps = None
    if maps is None:
        folded = [] if frame is None or (num_frames is None and clip) else [f"[B*{num_frames or 'T'}, {frame}]"]
        wanted = " or ".join([*folded, *([] if clip is None else [f"[B, {clip}]"])])
        raise ValueError(f"expected features of {name!r} of shape {wanted}, got {list(features.shape)}{hint}")
    if layout is None and features.size(1) == features.size(-1):
        raise unclear_layout(features, name)
    if layout not in (None, CHANNELS_FIRST):
        maps = maps.movedim(-1, 1)
    if maps.dim() == 5:
        return maps
    if maps.size(0) % num_frames:
        raise ValueError(
            f"expected features of {name!r} of shape [B*{num_frames}, {frame}], as num_frames is {num_frames}, got "
            f"{list(features.shape)}"
        )
    return maps.unflatten(0, (-1, num_frames)).transpose(1, 2)


def unclear_layout(features: Tensor, name: str) -> ValueError:
    """The error for features of which nothing tells where the channels are."""
    return ValueError(
        f"expected features of {name!r} that show which dimension holds the channels, got {list(features.shape)}: give "
        f"layout={CHANNELS_FIRST!r} or layout={CHANNELS_LAST!r}"
    )


def from_volume(volume: Tensor, features: Tensor, layout: Layout | None = None) -> Tensor:
    """Fold a volume to the shape and the layout in memory that the features had, so that what follows computes alike.

    Example:
        >>> features = torch.zeros(20, 64, 7, 7).to(memory_format=torch.channels_last)
        >>> from_volume(torch.zeros(2, 64, 10, 7, 7), features).stride() == features.stride()
        True
    """
    tokens = isinstance(layout, Tokens)
    is_clip = len(layout.size) == 3 if tokens else features.dim() == 5
    out = volume if is_clip else volume.transpose(1, 2).flatten(0, 1)
    if layout not in (None, CHANNELS_FIRST):
        out = out.movedim(1, -1)
    if tokens:
        out = torch.cat([features[:, : layout.others], out.flatten(1, -2)], 1)
    return out if out.stride() == features.stride() else torch.empty_like(features).copy_(out)
