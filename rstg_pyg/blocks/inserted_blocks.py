"""The blocks that stand in a network which knows nothing of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from torch import Tensor
from torch.nn import Module, ModuleDict
from torch.utils.hooks import RemovableHandle

from rstg_pyg.blocks.feature_volumes import Layout, find_features, from_volume, swap, to_volume


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
        self._channels: dict[str, int | None] = {}
        self._layouts: dict[str, Layout | None] = {}
        # Pickled with the network, the handles keep the ids of its hooks from being given out once more.
        self._handles: dict[str, RemovableHandle] = {}
        # By thread, of the calls that are running now.
        self._streams: dict[int, _Stream] = {}

    def insert(
        self, name: str, module: Module, block: Module, channels: int | None, layout: Layout | None = None
    ) -> None:
        """Run ``block`` after ``module``, whose features have so many channels in such a layout (None: not known)."""
        self[as_key(name)] = block
        self._channels[name] = channels
        self._layouts[name] = layout
        self._handles[name] = module.register_forward_hook(_RunBlock(self, name))

    def take_out(self, name: str) -> Module:
        """Remove and return the block after the module ``name``."""
        self._handles.pop(name).remove()
        del self._channels[name], self._layouts[name]
        return self.pop(as_key(name))

    @property
    def names(self) -> tuple[str, ...]:
        """The modules that a block follows."""
        return tuple(self._handles)

    @contextmanager
    def streaming(self, states: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """While it is open, the network takes a stream's next frame in this thread, and its blocks run by ``step``.

        The network is called once within it, with one frame: features of 4 dimensions are ``[B, C, H, W]``. Nothing of
        the stream stays on the modules.

        Args:
            states: The blocks' states after the frame before, by the names of the modules that they follow; empty at
                the start. They are not changed.

        Shapes:
            - **yields:** the states after the frame. A block that did not run keeps the one it had.

        Raises:
            ValueError: From the network, if a block has no ``step``, runs twice, or gets more than one frame.

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
        thread = get_ident()
        if thread in self._streams:
            raise ValueError("expected one stream of a network at a time in a thread, got one within another")
        stream = self._streams[thread] = _Stream(states)
        try:
            yield stream.states
        finally:
            del self._streams[thread]

    def run(self, name: str, output: Any) -> Any:
        """What the module ``name`` returned, with its features replaced by what the block makes of them."""
        stream = self._streams.get(get_ident()) if self._streams else None
        layout = self._layouts[name]
        features = find_features(output, name, layout)
        volume = to_volume(features, self.num_frames if stream is None else 1, name, layout)
        channels = self._channels[name]
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


class _Stream:
    """The states of all blocks before a frame, and more and more those after it."""

    def __init__(self, states: Mapping[str, Any]) -> None:
        self.states = dict(states)
        self._done: set[str] = set()

    def step(self, name: str, block: Module, volume: Tensor) -> Tensor:
        if not hasattr(block, "step"):
            raise ValueError(f"expected a block with a method 'step' after {name!r}, got {type(block).__name__}")
        if volume.size(2) != 1:
            raise ValueError(f"expected features of {name!r} of one frame of a stream, got {volume.size(2)} frames")
        if name in self._done:
            raise ValueError(f"expected {name!r} to run once for a frame of a stream, got a second run")
        self._done.add(name)
        out, self.states[name] = block.step(volume.squeeze(2), self.states.get(name))
        return out.unsqueeze(2)


class _RunBlock:
    """A forward hook. As an object with references it can be copied and pickled, which a closure cannot."""

    def __init__(self, blocks: InsertedBlocks, name: str) -> None:
        self.blocks = blocks
        self.name = name

    def __call__(self, module: Module, args: Any, output: Any) -> Any:
        return self.blocks.run(self.name, output)


def as_key(name: str) -> str:
    """The key of the block after the module ``name``: keys of modules have no dots.

    Example:
        >>> as_key("encoder.stages.2")
        'encoder__stages__2'
    """
    return name.replace(".", "__")
