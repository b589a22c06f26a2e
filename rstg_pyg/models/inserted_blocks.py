"""The blocks that stand in a network which knows nothing of them."""

from typing import Any, Optional

from torch.nn import Module, ModuleDict
from torch.utils.hooks import RemovableHandle

from rstg_pyg.models.feature_volumes import find_features, from_volume, swap, to_volume


class InsertedBlocks(ModuleDict):
    """The blocks that :func:`~rstg_pyg.models.insert_rstg` put into a network, which holds them as ``rstg_blocks``.

    A block's key is the name of the module that it follows, with ``__`` for dots. Each runs from a forward hook of that
    module. Copies and pickles of the network hold hooks that run the blocks of the copy.

    Args:
        num_frames: Number T of frames where they are folded into the batch, or None. It may be set to another at any
            time.
    """

    def __init__(self, num_frames: Optional[int] = None) -> None:
        super().__init__()
        self.num_frames = num_frames
        self._channels: dict[str, Optional[int]] = {}
        # Pickled with the network, the handles keep the ids of its hooks from being given out once more.
        self._handles: dict[str, RemovableHandle] = {}

    def insert(self, name: str, module: Module, block: Module, channels: Optional[int]) -> None:
        """Run ``block`` after ``module``, whose features have the given number of channels (None: not known)."""
        self[as_key(name)] = block
        self._channels[name] = channels
        self._handles[name] = module.register_forward_hook(_RunBlock(self, name))

    def take_out(self, name: str) -> Module:
        """Remove and return the block after the module ``name``."""
        self._handles.pop(name).remove()
        del self._channels[name]
        return self.pop(as_key(name))

    @property
    def names(self) -> tuple[str, ...]:
        """The modules that a block follows."""
        return tuple(self._handles)

    def run(self, name: str, output: Any) -> Any:
        """What the module ``name`` returned, with its features replaced by what the block makes of them."""
        features = find_features(output, name)
        volume = to_volume(features, self.num_frames, name)
        channels = self._channels[name]
        if channels is not None and volume.size(1) != channels:
            raise ValueError(f"expected features of {name!r} of {channels} channels, got {list(features.shape)}")
        out = self[as_key(name)](volume)
        if out.shape != volume.shape:
            raise ValueError(
                f"expected the block after {name!r} to keep the shape {list(volume.shape)}, got {list(out.shape)}"
            )
        return swap(output, features, from_volume(out, features))

    def forward(self, x: Any) -> Any:
        """Return ``x``: networks such as ``Sequential`` run all that they hold."""
        return x

    def extra_repr(self) -> str:
        return f"num_frames={self.num_frames}"


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
