"""Put blocks into any network in one line, and take them out again; a dry run finds where the features are."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList

from rstg_pyg.arguments import check_positive, describe
from rstg_pyg.blocks.inserted_blocks import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    HOLDER,
    InsertedBlocks,
    Layout,
    Tokens,
    as_key,
    find_features,
    to_volume,
    unclear_layout,
)
from rstg_pyg.blocks.to_map import RSTGToMap

Block = Module | Mapping[str, Any] | Callable[[int], Module]
Network = TypeVar("Network", bound=Module)

_WRAPPERS = "DataParallel DistributedDataParallel FSDPModule FullyShardedDataParallel OptimizedModule ScriptModule"


def insert_rstg(
    model: Network,
    blocks: Mapping[str, Block],
    *,
    num_frames: int | None = None,
    example: Any = None,
    layout: str | Sequence[int] | None = None,
    class_tokens: int = 0,
) -> Network:
    r"""Put recurrent space-time graphs into a network, each after one of its modules, as "Recurrent Space-time Graph
    Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, `arXiv:1904.05582
    <https://arxiv.org/abs/1904.05582>`_) does after the stages of a ResNet.

    .. math::
        \mathbf{F} \leftarrow \mathbf{F} + \mathrm{project}(\mathbf{W} \, \mathrm{RSTG}(\mathbf{F}) + \mathbf{b})

    :class:`~rstg_pyg.RSTGToMap` starts with W and b at zero, so the network computes bit for bit what it did before.
    The blocks run from forward hooks, and the network holds them as ``model.rstg_blocks``: they move, train, copy and
    pickle with it. :func:`remove_rstg` gives the network back.

    The names in the network's ``state_dict`` stay; those of the blocks, ``rstg_blocks.<name>.*`` with ``__`` for dots,
    come in addition. Load a checkpoint from before the insertion first, or with :func:`load_host_state_dict`. Insert
    before the network is wrapped for distributed training and before its optimizer is made. What was compiled before is
    compiled anew.

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
            compiled or wrapped. Later from the network: if features have other dimensions, channels or tokens, or their
            number of frames is no multiple of ``num_frames``.

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
    holder = getattr(model, HOLDER, InsertedBlocks(num_frames))
    if not isinstance(holder, InsertedBlocks):
        raise ValueError(f"expected a network without an attribute {HOLDER!r}, got {type(holder).__name__} there")
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
        model.add_module(HOLDER, holder.train(model.training))
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
    names = there if names is None else (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    if not there or not set(names) <= set(there):
        got = ", ".join(map(repr, there)) if there else "none"
        asked = "blocks" if names == there else f"blocks after {', '.join(map(repr, names))}"
        raise ValueError(f"expected a network that holds {asked}, got {type(model).__name__} with {got}")
    blocks = {name: holder.take_out(name) for name in names}
    if not holder.names:
        delattr(model, HOLDER)
    _forget_compiled()
    return blocks


def _check_unwrapped(model: Module) -> None:
    if not isinstance(model, Module):
        raise ValueError(f"expected a network, got {describe(model)}")
    wrapper = {cls.__name__ for cls in type(model).__mro__} & set(_WRAPPERS.split())
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
    keys, taken = set(holder), {id(modules[name]): name for name in holder.names if name in modules}
    for name in blocks:
        if name not in own:
            near = difflib.get_close_matches(str(name), own, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "no name is like it"
            raise ValueError(f"expected the name of a module of {type(model).__name__}, got {name!r} ({hint})")
        if as_key(name) in keys:
            raise ValueError(f"expected a module without a block after it, got {name!r}")
        keys.add(as_key(name))
        other = taken.setdefault(id(modules[name]), name)
        if other != name:
            raise ValueError(f"expected one block after a module, got one after {other!r}, which {name!r} is too")
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
    else:
        made = block(channels) if callable(block) else block
    if not isinstance(made, Module):
        raise ValueError(f"expected a block, a dict of options or a function to a block for {name!r}, got {made!r}")
    return (made if volume is None else made.to(volume.device, volume.dtype)), channels


def dry_run(
    model: Module,
    modules: Mapping[str, Module],
    example: Any,
    num_frames: int | None = None,
    layout: Layout | None = None,
) -> dict[str, tuple[Tensor, Layout]]:
    """Run a network; return an empty feature volume ``[0, C, T, H, W]`` and the layout for each of the modules named.

    Where the layout is not given, the network runs once more, on frames of twice the width: the dimension that grows is
    the width, and the channels stand before the height or after the width.

    It runs in evaluation mode and without gradients, so that weights, statistics and random numbers stay as they are.

    Args:
        modules: Modules of the network by name.
        example: An input: a tensor, a tuple of arguments, or a dict of arguments by name.
        num_frames: Number of frames where they are folded into the batch.
        layout: Of the features of all modules, or None.

    Raises:
        ValueError: If a module does not run, its output holds no feature volume, or its layout is not clear.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3), torch.nn.ReLU())
        >>> volume, layout = dry_run(net, {"0": net[0]}, torch.zeros(1, 3, 4, 9, 9))["0"]
        >>> volume.shape, layout
        (torch.Size([0, 8, 2, 7, 7]), 'channels_first')
    """
    seen: dict[str, Tensor] = {}

    def see(name: str, module: Module, args: Any, output: Any) -> None:
        seen[name] = find_features(output, name, layout)

    handles = [module.register_forward_hook(partial(see, name)) for name, module in modules.items()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            _run(model, example)
            features = dict(seen)
            if layout is None and any(found.dim() > 3 for found in features.values()):
                seen.clear()
                # A network for one size of frames may stop somewhere; what ran before has been seen.
                with suppress(Exception):
                    _run(model, _wider(example))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    missed = [name for name in modules if name not in features]
    if missed:
        raise ValueError(
            f"expected modules that run when the network does, got {', '.join(map(repr, missed))}, which the example "
            "did not reach"
        )
    volumes = {}
    for name, found in features.items():
        its_layout = layout or _recognised(found, seen.get(name), name)
        volumes[name] = to_volume(found, num_frames, name, its_layout)[:0].clone(), its_layout
    return volumes


def _run(model: Module, example: Any) -> None:
    if isinstance(example, Mapping):
        model(**example)
    else:
        model(*(example if isinstance(example, tuple) else (example,)))


def _wider(example: Any) -> Any:
    if isinstance(example, Tensor):
        return torch.cat([example, example], -1) if example.dim() > 3 else example
    if isinstance(example, Mapping):
        return {name: _wider(value) for name, value in example.items()}
    return tuple(map(_wider, example)) if isinstance(example, tuple) else example


def _recognised(features: Tensor, wider: Tensor | None, name: str) -> Layout:
    dims = features.dim()
    if dims not in (4, 5):
        return CHANNELS_FIRST
    if wider is not None and wider.dim() == dims:
        grown = [dim for dim in range(dims) if wider.size(dim) != features.size(dim)]
        if grown in ([dims - 1], [dims - 2]):
            return CHANNELS_FIRST if grown == [dims - 1] else CHANNELS_LAST
    raise unclear_layout(features, name)
