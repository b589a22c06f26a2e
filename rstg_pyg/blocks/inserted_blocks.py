"""Blocks that stand in a network which knows nothing of them, and that network's features as volumes and back.

Shape legend: B clips, C channels, T frames, H x W pixels.
"""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict
from torch.utils.hooks import RemovableHandle

from rstg_pyg.arguments import check_positive

HOLDER = "rstg_blocks"
"""The attribute of a network that holds the blocks, and what their names in its ``state_dict`` start with."""

CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"


class Tokens(NamedTuple):
    """The layout ``[B*T, L, C]`` of H x W places row by row, or ``[B, L, C]`` of T x H x W, after ``others`` tokens
    without a place."""

    size: tuple[int, ...]
    others: int = 0


Layout = str | Tokens
"""``"channels_first"``, ``"channels_last"`` or :class:`Tokens`."""


class InsertedBlocks(ModuleDict):
    """The blocks that :func:`~rstg_pyg.blocks.insert_rstg` put into a network, which holds them as ``rstg_blocks``.

    A block's key is the name of the module that it follows, with ``__`` for dots. Each runs from a forward hook of that
    module. Copies and pickles of the network hold hooks that run the blocks of the copy.

    A network whose other layers look at single frames takes a stream frame by frame within :meth:`streaming`.

    Args:
        num_frames: Number T of frames where they are folded into the batch, or None. It may be set to another at any
            time.
    """

    def __init__(self, num_frames: int | None = None) -> None:
        super().__init__()
        self.num_frames = num_frames
        # Pickled with the network, the handles keep the ids of its hooks from being given out once more.
        self._places: dict[str, tuple[int | None, Layout | None, RemovableHandle]] = {}
        self._streams: dict[int, _Stream] = {}  # By thread, of the calls that are running now.

    def insert(
        self, name: str, module: Module, block: Module, channels: int | None, layout: Layout | None = None
    ) -> None:
        """Run ``block`` after ``module``, whose features have so many channels in such a layout (None: not known)."""
        self[as_key(name)] = block
        # A partial of a method is copied and pickled with the network, which a closure can not be.
        self._places[name] = channels, layout, module.register_forward_hook(partial(self.run, name))

    def take_out(self, name: str) -> Module:
        """Remove and return the block after the module ``name``."""
        self._places.pop(name)[-1].remove()
        return self.pop(as_key(name))

    @property
    def names(self) -> tuple[str, ...]:
        """The modules that a block follows."""
        return tuple(self._places)

    @contextmanager
    def streaming(self, states: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """While it is open, the network takes a stream's next frame in this thread, and its blocks run by ``step``.

        The network is called once within it, with one frame: features of 4 dimensions are ``[B, C, H, W]``. Nothing of
        the stream stays on the modules.

        Args:
            states: The blocks' states after the frame before, by module name; none at the start. They stay as is, so
                take the new ones: ``with ... as states``.

        Shapes:
            - **yields:** the states after the frame. A block that did not run keeps the one it had.

        Raises:
            ValueError: If a state is of no block; from the network, if a block has no ``step``, runs twice, or gets
                more than one frame.

        Example:
            >>> import torch
            >>> from rstg_pyg.blocks import insert_rstg
            >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU())
            >>> _ = insert_rstg(net, {"0": {"in_channels": 16}}, num_frames=8)
            >>> states = {}
            >>> for frame in torch.randn(8, 2, 3, 16, 16):
            ...     with net.rstg_blocks.streaming(states) as states:
            ...         features = net(frame)
            >>> features.shape
            torch.Size([2, 16, 14, 14])
        """
        states = {} if states is None else dict(states)
        unknown = [name for name in states if as_key(name) not in self]
        if unknown:
            raise ValueError(f"expected states of {', '.join(self._places)}, got one of {unknown[0]!r}")
        thread = get_ident()
        if thread in self._streams:
            raise ValueError("expected one stream of a network at a time in a thread, got one within another")
        stream = self._streams[thread] = _Stream(states)
        try:
            yield stream.states
        finally:
            del self._streams[thread]

    def run(self, name: str, module: Module, args: Any, output: Any) -> Any:
        """The hook of the module ``name``: its output, with the features replaced by what the block makes of them."""
        stream = self._streams.get(get_ident()) if self._streams else None
        channels, layout, _ = self._places[name]
        features = find_features(output, name, layout)
        volume = to_volume(features, self.num_frames if stream is None else 1, name, layout)
        if channels is not None and volume.size(1) != channels:
            hint = "; give layout='channels_last'" if layout is None and features.size(-1) == channels else ""
            raise ValueError(f"expected features of {name!r} of {channels} channels, got {list(features.shape)}{hint}")
        block = self[as_key(name)]
        out = block(volume) if stream is None else stream.step(name, block, volume)
        if out.shape != volume.shape:
            raise ValueError(
                f"expected the block after {name!r} to keep the shape {list(volume.shape)}, got {list(out.shape)}"
            )
        return swap(output, features, from_volume(out, features, layout))

    def forward(self, x: Any) -> Any:
        """Return ``x``: networks such as ``Sequential`` run all that they hold."""
        return x

    def extra_repr(self) -> str:
        return f"num_frames={self.num_frames}"


@dataclass
class _Stream:
    """The states of all blocks before a frame, and more and more those after it."""

    states: dict[str, Any]
    done: set[str] = field(default_factory=set)

    def step(self, name: str, block: Module, volume: Tensor) -> Tensor:
        if not hasattr(block, "step"):
            raise ValueError(f"expected a block with a method 'step' after {name!r}, got {type(block).__name__}")
        if volume.size(2) != 1:
            raise ValueError(f"expected features of {name!r} of one frame of a stream, got {volume.size(2)} frames")
        if name in self.done:
            raise ValueError(f"expected {name!r} to run once for a frame of a stream, got a second run")
        self.done.add(name)
        out, self.states[name] = block.step(volume.squeeze(2), self.states.get(name))
        return out.unsqueeze(2)


_TAKEN = frozenset(dir(InsertedBlocks()))


def as_key(name: str) -> str:
    """The key of the block after the module ``name``: keys of modules have no dots, and are no attributes of what holds
    them, such as ``"update"``."""
    return f"{name}__" if name in _TAKEN else name.replace(".", "__")


def host_state_dict(model: Module) -> dict[str, Tensor]:
    """Return the ``state_dict`` of a network without the blocks that it holds.

    Example:
        >>> from rstg_pyg.blocks import host_state_dict, insert_rstg
        >>> net = insert_rstg(torch.nn.Sequential(torch.nn.Conv3d(3, 16, 3)), {"0": {"in_channels": 16}})
        >>> list(host_state_dict(net))
        ['0.weight', '0.bias']
    """
    state = model.state_dict()
    for name in _block_names(model, state):
        del state[name]
    return state


def load_host_state_dict(model: Module, state_dict: Mapping[str, Any]) -> None:
    """Load a checkpoint of a network from before blocks came in; they keep their weights.

    Raises:
        RuntimeError: As ``load_state_dict`` does, if the checkpoint lacks a name of the network's own, or has one that
            the network lacks, or another shape.

    Example:
        >>> from rstg_pyg.blocks import insert_rstg, load_host_state_dict
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 16, 3))
        >>> before = net.state_dict()
        >>> load_host_state_dict(insert_rstg(net, {"0": {"in_channels": 16}}), before)
    """
    state = model.state_dict()
    merged = OrderedDict((name, state[name]) for name in _block_names(model, state))
    merged.update(state_dict)
    if hasattr(state_dict, "_metadata"):
        merged._metadata = state_dict._metadata
    model.load_state_dict(merged)


def _block_names(model: Module, state: Mapping[str, Any]) -> list[str]:
    holders = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, InsertedBlocks))
    return [name for name in state if name.startswith(holders)]


def find_features(output: Any, name: str, layout: Layout | None = None) -> Tensor:
    """Return the feature volume in what the module ``name`` returned.

    That is the output itself, its ``last_hidden_state``, or the one tensor in a tuple, list or dict with as many
    dimensions as the layout (None: any) has; anything else raises a ValueError.
    """
    if isinstance(output, Mapping) and isinstance(output.get("last_hidden_state"), Tensor):
        output = output["last_hidden_state"]  # Of transformers.
    if isinstance(output, Tensor):
        return output
    dims = (3, 4, 5) if layout is None else (3,) if isinstance(layout, Tokens) else (4, 5)
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    found = [value for value in values if isinstance(value, Tensor) and value.dim() in dims]
    if len(found) != 1:
        wanted = " or ".join(", ".join(map(str, dims)).rsplit(", ", 1))
        raise ValueError(
            f"expected {name!r} to return one feature volume, got {type(output).__name__} with {len(found)} tensors of "
            f"{wanted} dimensions{'; give layout where one of them is meant' if layout is None and found else ''}"
        )
    return found[0]


def swap(output: Any, old: Tensor, new: Tensor) -> Any:
    """Return an output of the same make with ``new`` wherever ``old`` stood."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        items = {key: swap(value, old, new) for key, value in output.items()}
        if is_dataclass(output):  # Of transformers.
            return type(output)(**items)
        # Other keys than strings can not be arguments.
        return defaultdict(output.default_factory, items) if type(output) is defaultdict else type(output)(items)
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
    if num_frames is not None:
        check_positive(num_frames=num_frames)
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
        wanted = [f"[B*{num_frames or 'T'}, {frame}]"] if frame and (num_frames or not clip) else []
        wanted += [f"[B, {clip}]"] if clip else []
        shapes = " or ".join(wanted)
        raise ValueError(f"expected features of {name!r} of shape {shapes}, got {list(features.shape)}{hint}")
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
    """Fold a volume to the shape and the memory layout of the features, so that what follows computes alike."""
    tokens = isinstance(layout, Tokens)
    is_clip = len(layout.size) == 3 if tokens else features.dim() == 5
    out = volume if is_clip else volume.transpose(1, 2).flatten(0, 1)
    if layout not in (None, CHANNELS_FIRST):
        out = out.movedim(1, -1)
    if tokens:
        out = torch.cat([features[:, : layout.others], out.flatten(1, -2)], 1)
    return out if out.stride() == features.stride() else torch.empty_like(features).copy_(out)
