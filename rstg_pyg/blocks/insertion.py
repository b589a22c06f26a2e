"""Blocks put into any network in one line, and taken out again."""

import difflib
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList

from rstg_pyg.arguments import check_positive, describe
from rstg_pyg.blocks.dry_run import dry_run
from rstg_pyg.blocks.feature_volumes import CHANNELS_FIRST, CHANNELS_LAST, Layout, Tokens
from rstg_pyg.blocks.inserted_blocks import InsertedBlocks, as_key
from rstg_pyg.blocks.to_map import RSTGToMap

HOLDER = "rstg_blocks"
"""The attribute of a network that holds the blocks, and what their names in its ``state_dict`` start with."""

Block = Module | Mapping[str, Any] | Callable[[int], Module]

_WRAPPERS = {
    "DataParallel",
    "DistributedDataParallel",
    "FSDPModule",
    "FullyShardedDataParallel",
    "OptimizedModule",
    "ScriptModule",
}


def insert_rstg(
    model: Module,
    blocks: Mapping[str, Block],
    *,
    num_frames: int | None = None,
    example: Any = None,
    layout: str | Sequence[int] | None = None,
    class_tokens: int = 0,
) -> Module:
    r"""Put recurrent space-time graphs into a network, each after one of its modules, as "Recurrent Space-time Graph
    Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, `arXiv:1904.05582
    <https://arxiv.org/abs/1904.05582>`_) does after the stages of a ResNet.

    .. math::
        \mathbf{F} \leftarrow \mathbf{F} + \mathrm{project}(\mathbf{W} \, \mathrm{RSTG}(\mathbf{F}) + \mathbf{b})

    :class:`~rstg_pyg.RSTGToMap` starts with W and b at zero, so the network computes bit for bit what it did before.
    The blocks run from forward hooks, and the network holds them as ``model.rstg_blocks``: they move, train, copy and
    pickle with it. :func:`remove_rstg` gives the network back.

    All names in the network's ``state_dict`` stay as they were; those of the blocks, ``rstg_blocks.<name>.*`` with
    ``__`` for dots, come in addition. A strict ``load_state_dict`` therefore misses them in a checkpoint from before:
    load that first, or with :func:`load_host_state_dict`. Insert before the network is wrapped for distributed training
    and before its optimizer is made. What was compiled before is compiled anew.

    Args:
        model: The network; it is changed in place.
        blocks: By the name of a module of the network (as ``model.named_modules()`` says it), what follows it: a block
            (a module from ``[B, C, T, H, W]`` to the same shape); a dict of options of :class:`~rstg_pyg.RSTGToMap`;
            or a function, such as a class, from the number of channels C to a block.
        num_frames: Number T of frames where the network takes them folded into the batch, clip by clip. It may be
            changed later as ``model.rstg_blocks.num_frames``.
        example: An input for a dry run: a tensor, a tuple of arguments or a dict of them. It tells the number of
            channels and where they stand, and checks that every module runs and returns features. Without it, options
            have to hold ``in_channels`` and nothing is checked before the first clip.
        layout: ``"channels_first"``, ``"channels_last"``, or, for features that are tokens, the sizes ``(H, W)`` or
            ``(T, H, W)`` of the map that they are row by row. By default the dry run tells the first two apart, or
            raises. Places of another layout take another call.
        class_tokens: Number of tokens before those of the map; they pass as they are.

    Shapes:
        - **features of a module:** ``[B, C, T, H, W]``, or with ``num_frames`` ``[B*T, C, H, W]``; channels last
          ``[B, T, H, W, C]`` or ``[B*T, H, W, C]``; tokens ``[B*T, class_tokens + H*W, C]`` or ``[B, class_tokens +
          T*H*W, C]``. By themselves, as the ``last_hidden_state`` of an output of transformers, or as the only tensor
          of so many dimensions in a tuple, list or dict.
        - **returns:** ``model``.

    Raises:
        ValueError: If a name is not that of a module, already has a block, or is of a module that does not run; a
            number of channels or their place is not known; a function makes no module; or the network is already
            compiled or wrapped.
            From the network, when it runs: if features have other dimensions, channels or tokens, or their number of
            frames is no multiple of ``num_frames``.

    Example:
        >>> import torch
        >>> from rstg_pyg.blocks import insert_rstg
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv3d(16, 8, 3))
        >>> clips = torch.randn(2, 3, 8, 16, 16)
        >>> before = net(clips)
        >>> torch.equal(insert_rstg(net, {"1": {"channels": 32}}, example=clips)(clips), before)
        True
    """
    _check_unwrapped(model)
    if not isinstance(blocks, Mapping):
        raise ValueError(f"expected 'blocks' to be a dict by the names of modules, got {describe(blocks)}")
    if num_frames is not None:
        check_positive(num_frames=num_frames)
    layout = _checked_layout(layout, class_tokens)
    holder = getattr(model, HOLDER, None)
    if holder is not None and not isinstance(holder, InsertedBlocks):
        raise ValueError(f"expected a network without an attribute {HOLDER!r}, got {type(holder).__name__} there")
    holder = InsertedBlocks(num_frames) if holder is None else holder
    if num_frames is not None and holder.num_frames != num_frames:
        raise ValueError(f"expected num_frames={holder.num_frames} as for the blocks there, got {num_frames}")

    targets = _targets(model, blocks, holder)
    volumes = {} if example is None else dry_run(model, targets, example, holder.num_frames, layout)
    made = {name: _make(name, block, volumes.get(name, (None, None))[0]) for name, block in blocks.items()}
    for name, (block, channels) in made.items():
        if name not in volumes and not isinstance(blocks[name], Module):
            near = chain(targets[name].parameters(), model.parameters())
            parameter = next((p for p in near if p.is_floating_point()), None)
            block = block if parameter is None else block.to(parameter)
        holder.insert(name, targets[name], block.train(model.training), channels, volumes.get(name, (None, layout))[1])
    if made:
        model.add_module(HOLDER, holder)
        _forget_compiled()
    return model


def remove_rstg(model: Module, names: str | Sequence[str] | None = None) -> dict[str, Module]:
    r"""Take blocks that :func:`insert_rstg` put into a network out again.

    Args:
        model: The network; it is changed in place. Without its last block it is as it was before the first.
        names: The modules whose blocks go (default: all).

    Shapes:
        - **returns:** the blocks with their weights, by the names of the modules that they followed, as
          :func:`insert_rstg` takes them.

    Raises:
        ValueError: If the network holds no such block.

    Source: the insertion is that of RSTG-to-map, `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_.

    Example:
        >>> import torch
        >>> from rstg_pyg.blocks import insert_rstg, remove_rstg
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 16, 3))
        >>> remove_rstg(insert_rstg(net, {"0": {"in_channels": 16}}))
        {'0': RSTGToMap(16, 16, scales=((3, 3), (2, 2), (1, 1)))}
    """
    holder = getattr(model, HOLDER, None)
    there = holder.names if isinstance(holder, InsertedBlocks) else ()
    if not isinstance(names, (str, tuple, list, type(None))):
        raise ValueError(f"expected 'names' to be names of modules, got {describe(names)}")
    names = there if names is None else (names,) if isinstance(names, str) else tuple(names)
    if not there or not set(names) <= set(there):
        got = ", ".join(map(repr, there)) if there else "none"
        asked = "blocks" if names == there else f"blocks after {', '.join(map(repr, names))}"
        raise ValueError(f"expected a network that holds {asked}, got {type(model).__name__} with {got}")
    blocks = {name: holder.take_out(name) for name in names}
    if not holder.names:
        delattr(model, HOLDER)
    _forget_compiled()
    return blocks


def host_state_dict(model: Module) -> dict[str, Tensor]:
    """Return the ``state_dict`` of a network without the blocks that it holds.

    Example:
        >>> import torch
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
        >>> import torch
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


def _check_unwrapped(model: Module) -> None:
    if not isinstance(model, Module):
        raise ValueError(f"expected a network, got {describe(model)}")
    wrapper = {cls.__name__ for cls in type(model).__mro__} & _WRAPPERS
    if wrapper:
        raise ValueError(f"expected a network before it is compiled or wrapped, got {wrapper.pop()}")


def _checked_layout(layout: Any, class_tokens: Any) -> Layout | None:
    if not isinstance(class_tokens, int) or class_tokens != 0:
        check_positive(class_tokens=class_tokens)
    if isinstance(layout, (tuple, list)) and len(layout) in (2, 3):
        check_positive(**{f"layout[{number}]": size for number, size in enumerate(layout)})
        return Tokens(tuple(layout), class_tokens)
    if not isinstance(layout, (str, type(None))) or layout not in (None, CHANNELS_FIRST, CHANNELS_LAST):
        raise ValueError(
            f"expected 'layout' to be {CHANNELS_FIRST!r}, {CHANNELS_LAST!r}, or the sizes (H, W) or (T, H, W) of the "
            f"map that tokens are, got {layout!r}"
        )
    if class_tokens:
        raise ValueError(f"expected the sizes of a map as 'layout' with class_tokens={class_tokens}, got {layout!r}")
    return layout


def _forget_compiled() -> None:
    """Compiled code has no guard on hooks: what was compiled without the blocks would go on without them."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _targets(model: Module, blocks: Mapping[str, Block], holder: InsertedBlocks) -> dict[str, Module]:
    """The modules that the names stand for."""
    modules = dict(model.named_modules(remove_duplicate=False))
    own = [name for name in modules if name and not f"{name}.".startswith(f"{HOLDER}.")]
    keys = set(holder)
    for name in blocks:
        if name not in own:
            near = difflib.get_close_matches(str(name), own, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "no name is like it"
            raise ValueError(f"expected the name of a module of {type(model).__name__}, got {name!r} ({hint})")
        if as_key(name) in keys:
            raise ValueError(f"expected a module without a block after it, got {name!r}")
        keys.add(as_key(name))
        if isinstance(modules[name], (ModuleList, ModuleDict)):
            raise ValueError(
                f"expected a module that runs, got {name!r}, a {type(modules[name]).__name__}: name one that it holds"
            )
    return {name: modules[name] for name in blocks}


def _make(name: str, block: Block, volume: Tensor | None) -> tuple[Module, int | None]:
    """A block, and the number of channels that its features must have (None: not known)."""
    found = None if volume is None else volume.size(1)
    own = block.get("in_channels") if isinstance(block, Mapping) else getattr(block, "in_channels", None)
    if found is not None and own is not None and found != own:
        raise ValueError(f"expected a block of {found} channels after {name!r}, got one of {own}")
    channels = found if own is None else own
    if isinstance(block, Module):
        return block, channels
    if channels is None:
        raise ValueError(
            f"expected 'example', an input for a dry run, or 'in_channels' among the options of the block after "
            f"{name!r}, got neither"
        )
    if isinstance(block, Mapping):
        made: Any = RSTGToMap(**{**block, "in_channels": channels})
    elif callable(block):
        made = block(channels)
    else:
        made = block
    if not isinstance(made, Module):
        raise ValueError(f"expected a block, a dict of options or a function to a block for {name!r}, got {made!r}")
    return (made if volume is None else made.to(volume.device, volume.dtype)), channels
