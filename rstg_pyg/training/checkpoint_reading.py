"""Hold what a file has against a model and a run, and say in one sentence what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from rstg_pyg.files import reading, weight_fault
from rstg_pyg.training.torch_file import CheckpointError, listed


def check_weights(state: Mapping[str, Any], module: Module, name: str) -> None:
    """Raise :class:`CheckpointError` unless ``state`` has the names and shapes of the module's parameters and buffers,
    and finite values of their kind.

    Args:
        state: What a file holds.
        module: Which it should fit.
        name: What to call the file.
    """
    expected = module.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} of shape {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if isinstance(value, Tensor) and isinstance(state.get(key), Tensor) and state[key].shape != value.shape
    ]
    found = [f"no {listed(missing)}"] * bool(missing) + [f"{listed(unexpected)} on top"] * bool(unexpected)
    found += [listed(shapes)] * bool(shapes)
    if found:
        raise CheckpointError(
            f"expected {name} to hold the {len(expected)} tensors of this model, got those of another: "
            f"{'; '.join(found)}"
        )
    with reading(name, CheckpointError, "a file of weights"):
        entries = ((key, state[key], value) for key, value in expected.items() if isinstance(value, Tensor))
        faults = [f"{fault} in {key}" for key, entry, value in entries if (fault := weight_fault(entry, value))]
    if faults:
        raise CheckpointError(f"expected {name} to hold finite weights of the model's kind, got {listed(faults)}")


def check_settings(there: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Raise :class:`CheckpointError`, naming every setting that differs, unless both are alike.

    Args:
        there: The settings in a file.
        now: Those asked for.
        name: What to call the file.
    """
    with reading(name, CheckpointError, "a file of settings"):
        before, after = dict(leaves(there)), dict(leaves(now))
        changes = [
            f"{key}={before.get(key, 'nothing')!r} there, {after.get(key, 'nothing')!r} now"
            for key in [*after, *(key for key in before if key not in after)]
            if key not in before or key not in after or before[key] != after[key]
        ]
    if changes:
        raise CheckpointError(f"{name} belongs to a run with other settings ({'; '.join(changes)})")


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name every setting by its path; those of the recipe by their own names."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, "" if key == "recipe" and not prefix else f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn settings into what a file can hold and give back: dicts, lists, strings and finite numbers.

    Raises:
        ValueError: If a value is something else.
    """
    try:
        return json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected 'config' to hold dicts, lists, strings and finite numbers, got: {error}") from None
