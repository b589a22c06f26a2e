"""What a network's modules return, found by running it once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import Module

from rstg_pyg.models.feature_volumes import find_features, to_volume


def dry_run(
    model: Module, modules: Mapping[str, Module], example: Any, num_frames: Optional[int] = None
) -> dict[str, Tensor]:
    """Run a network and return an empty feature volume ``[0, C, T, H, W]`` for each of the modules named.

    It runs in evaluation mode and without gradients, so that weights, statistics and random numbers stay as they are.

    Args:
        model: The network.
        modules: Modules of it by name.
        example: An input: a tensor, a tuple of arguments, or a dict of arguments by name.
        num_frames: Number of frames where they are folded into the batch.

    Raises:
        ValueError: If a module does not run, or its output holds no feature volume.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3), torch.nn.ReLU())
        >>> dry_run(net, {"0": net[0]}, torch.zeros(1, 3, 4, 9, 9))["0"].shape
        torch.Size([0, 8, 2, 7, 7])
    """
    seen: dict[str, Tensor] = {}

    def look(name: str) -> Any:
        def hook(module: Module, args: Any, output: Any) -> None:
            seen[name] = to_volume(find_features(output, name), num_frames, name)[:0].clone()

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in modules.items()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _evaluation(model):
            if isinstance(example, Mapping):
                model(**example)
            elif isinstance(example, tuple):
                model(*example)
            else:
                model(example)
    finally:
        for handle in handles:
            handle.remove()
    missed = [name for name in modules if name not in seen]
    if missed:
        raise ValueError(
            f"expected modules that run when the network does, got {', '.join(map(repr, missed))}, which the example "
            "did not reach"
        )
    return seen


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
