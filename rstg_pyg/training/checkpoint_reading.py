"""Read files of weights, and say in one sentence what is wrong with one."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

SHOWN = 3
"""How many names an error lists."""


class CheckpointError(ValueError):
    """A file that is no checkpoint, a damaged one, or one of another model or run."""


def read_file(path: str | os.PathLike) -> dict[str, Any]:
    """Read a dict that torch wrote, onto the CPU, if every byte is as it was written and it holds plain values only.

    Raises:
        CheckpointError: If the file is damaged or of another kind.
        OSError: If it cannot be read at all.
    """
    content = Path(path).read_bytes()
    if not content.startswith(b"PK"):
        found = "a file of another kind" if content else "an empty file"
        raise CheckpointError(f"expected {path} to be a checkpoint, got {found}")
    try:
        # torch does not look at the checksums.
        whole = zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"expected {path} to be a whole checkpoint, got {len(content):,} bytes of a damaged or cut-off one"
        )
    try:
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise CheckpointError(f"expected {path} to be a checkpoint of tensors and plain values, got: {first}") from None
    if not isinstance(held, dict) or not isinstance(held.get("state_dict"), Mapping):
        raise CheckpointError(f"expected {path} to be a checkpoint with a 'state_dict', got {describe(held)}")
    return held


def describe(held: Any) -> str:
    """Name what a file holds instead."""
    return f"a dict of {listed(held) or 'nothing'}" if isinstance(held, dict) else f"a {type(held).__name__}"


def listed(names: Any) -> str:
    """The first few names and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def check_weights(state: Mapping[str, Any], module: Module, name: str) -> None:
    """Raise :class:`CheckpointError` unless ``state`` has the names and shapes of the module's parameters and buffers.

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


def check_settings(there: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Raise :class:`CheckpointError`, naming every setting that differs, unless both are alike.

    Args:
        there: The settings in a file.
        now: Those asked for.
        name: What to call the file.
    """
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
    """Turn settings into what a file can hold and give back: dicts, lists, strings and numbers.

    Raises:
        ValueError: If a value is something else.
    """
    try:
        return json.loads(json.dumps(settings))
    except TypeError as error:
        raise ValueError(f"expected 'config' to hold dicts, lists, strings and numbers, got: {error}") from None
