"""What a network's modules return, found by running it once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from rstg_pyg.blocks.feature_volumes import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    Layout,
    find_features,
    to_volume,
    unclear_layout,
)


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
        model: The network.
        modules: Modules of it by name.
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

    def look(name: str) -> Any:
        def hook(module: Module, args: Any, output: Any) -> None:
            seen[name] = find_features(output, name, layout)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in modules.items()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _evaluation(model):
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
    elif isinstance(example, tuple):
        model(*example)
    else:
        model(example)


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


@contextmanager
def _evaluation(model: Module) -> Iterator[None]:
    """Evaluation mode, then for every module the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
