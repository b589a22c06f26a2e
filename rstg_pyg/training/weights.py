"""The weights of a model and what they are of, in a file that is as it was written, to the last bit.

It is the zip file that ``torch.save`` writes, so that other programs read it too. The comment at its end has the
SHA-256 of everything before the digest: the checksums that a zip file has of its own say nothing of the names, sizes
and places in its directory, and torch does not look at them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from rstg_pyg.files import FileError, listed, naming, open_file, reading, replace_file, weight_fault

MARK = b"rstg_pyg sha256 "
PREFIX = "model."
"""What a :class:`RunModule` puts before the names of its model."""

_DIGEST = 64
_END, _END_SIZE = b"PK\5\6", 22
"""Of a zip file without a comment: how its last record begins, and that record's size."""

Settings = TypeVar("Settings")


class CheckpointError(FileError):
    """A file that is no checkpoint, a damaged one, or one of another model or run."""


class SavedWeights:
    r"""What a file of :func:`save_weights`, or a checkpoint of a :class:`RunModule`, holds; read once.

    Args:
        path: The file.

    Attributes:
        config: What it says of its model and how that was trained.

    Raises:
        CheckpointError: If the file is damaged or of another kind.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        held = read_file(path)
        self.config: Mapping[str, Any] = held.get("config", {})
        self._state = held["state_dict"]
        self._is_of_run = "pytorch-lightning_version" in held

    def put_into(self, model: Module) -> None:
        """Give a model the weights, in the data types that it has.

        Raises:
            CheckpointError: If they are of another model, complex or not finite; the model is as it was.
        """
        with reading(self.path, CheckpointError, "a file of this model's weights"):
            if self._is_of_run:
                consume_prefix_in_state_dict_if_present(self._state, PREFIX)
            check_weights(self._state, model, str(self.path))
            model.load_state_dict(self._state)

    def setting(self, name: str, kind: type) -> Any:
        """Return one entry of the settings.

        Raises:
            ValueError: If there is none, or one of another type.
        """
        value = self.config.get(name)
        if not isinstance(value, kind):
            got = f"{type(value).__name__}" if name in self.config else "none"
            raise ValueError(f"expected its settings to hold {name!r} of type {kind.__name__}, got {got}")
        return value

    def made(self, name: str, kind: type[Settings]) -> Settings:
        """Make a dataclass, as the sizes of a network or a recipe, of one entry of the settings.

        Raises:
            CheckpointError: If there is no such entry, or a part of it is not of this version or out of its range.
        """
        with reading(self.path, CheckpointError, f"of a {kind.__name__} that this version knows"):
            settings = self.setting(name, Mapping)
            known = [field.name for field in fields(kind)]
            if unknown := [option for option in settings if option not in known]:
                raise ValueError(f"expected options of it, got {listed(unknown)}, which a later version may know")
            return kind(**settings)


def save_weights(
    model: Module,
    path: str | os.PathLike,
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model's parameters and buffers, and settings that say what they are.

    Args:
        model: Whose weights.
        path: The file; one that is there is replaced once the new one is whole.
        config: Dicts, lists, strings and finite numbers.
        dtype: Of the floating-point values in the file, as ``torch.float16`` for half the size (default: the model's).

    Raises:
        ValueError: If ``config`` holds something else, or a value is not finite or does not fit into ``dtype``.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from rstg_pyg.training import load_model_weights, save_weights
        >>> layer, path = torch.nn.Linear(2, 2), tempfile.mkdtemp() + "/weights.pt"
        >>> save_weights(layer, path, {"seed": 0}, dtype=torch.float16)
        >>> load_model_weights(path, torch.nn.Linear(2, 2))
        {'seed': 0}
    """
    state = model.state_dict()
    for name, value in list(state.items()):
        if not isinstance(value, Tensor):
            raise ValueError(f"expected tensors as weights, got {name} as {describe(value)}")
        stored = dtype if dtype is not None and value.is_floating_point() else value.dtype
        state[name] = value.detach().to(device="cpu", dtype=stored, copy=True)
        if not value.isfinite().all():
            raise ValueError(f"expected finite weights, got others in {name}")
        if not state[name].isfinite().all():
            raise ValueError(f"expected values that fit into {dtype}, got larger ones in {name}")
    write_file(path, {"config": plain(config or {}), "state_dict": state})


def load_model_weights(path: str | os.PathLike, model: Module) -> dict[str, Any]:
    """Put the weights of a file of :func:`save_weights`, or of a checkpoint of a :class:`RunModule`, into a model.

    Args:
        path: The file.
        model: What gets the weights, in the data types that it has.

    Returns:
        The settings that the file holds.

    Raises:
        CheckpointError: If the file is damaged or of another kind; its weights have other names or shapes than the
            model's, are of another formula (such as other ``heads``, ``stages`` or ``scales``), complex or not finite.
            The model is as it was.
        OSError: If it cannot be read.
    """
    saved = SavedWeights(path)
    saved.put_into(model)
    return saved.config


def write_file(path: str | os.PathLike, held: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values, with a digest.

    Raises:
        OSError: If the file cannot be written. What was there before is still there.
    """
    content = io.BytesIO()
    torch.save(held, content)
    # The last two bytes are the length of the comment.
    content.seek(-2, os.SEEK_END)
    content.write(struct.pack("<H", len(MARK) + _DIGEST) + MARK)
    content.write(hashlib.sha256(content.getbuffer()).hexdigest().encode())
    replace_file(path, content.getbuffer())


def read_file(path: str | os.PathLike) -> dict[str, Any]:
    """Read what :func:`write_file` wrote, onto the CPU, if every bit is as it was written and all values are plain.

    Files without a digest, of ``torch.save`` alone, are held against the checksums of their records. A file with a
    digest that is damaged does not pass for one of them: these end without a comment.

    Raises:
        CheckpointError: If the file is damaged or of another kind.
        OSError: If it cannot be read at all.
    """
    with naming(path), open_file(path) as file:
        content = file.read()
    if not content.startswith(b"PK"):
        found = "a file of another kind" if content else "an empty file"
        raise CheckpointError(f"expected {path} to be a checkpoint, got {found}")
    sealed = content[-_DIGEST - len(MARK) :].startswith(MARK)
    if sealed:
        whole = hashlib.sha256(memoryview(content)[:-_DIGEST]).hexdigest().encode() == content[-_DIGEST:]
    else:
        whole = content[-_END_SIZE:].startswith(_END) and content.endswith(b"\0\0")
    if not whole:
        raise CheckpointError(
            f"expected {path} to be a whole checkpoint, got {len(content):,} bytes of a damaged or cut-off one"
        )
    with reading(path, CheckpointError, "a checkpoint of tensors and plain values"):
        archive = zipfile.ZipFile(io.BytesIO(content))
        # torch compresses nothing: a file holds no more than its size.
        if sum(record.file_size for record in archive.infolist()) > len(content):
            raise CheckpointError(f"expected {path} to be a checkpoint as torch writes it, got a compressed one")
        held = torch.load(io.BytesIO(content) if sealed else _copy(archive), map_location="cpu", weights_only=True)
    if not isinstance(held, dict) or not isinstance(held.get("state_dict"), Mapping):
        raise CheckpointError(f"expected {path} to be a checkpoint with a 'state_dict', got {describe(held)}")
    if not isinstance(held.get("config", {}), Mapping):
        raise CheckpointError(f"expected {path} to hold a dict as 'config', got a {type(held['config']).__name__}")
    return held


def _copy(archive: zipfile.ZipFile) -> io.BytesIO:
    """A zip file anew from its records, each held against its checksum. In the directory as it was, a flipped bit can
    make a record pass for a folder, and torch then takes memory that nothing was written to for a weight."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as anew:
        for record in archive.infolist():
            anew.writestr(record.filename, archive.read(record))
    copy.seek(0)
    return copy


def check_weights(state: Mapping[str, Any], module: Module, name: str) -> None:
    """Raise :class:`CheckpointError` unless ``state``, of a file of that name, has the names and shapes of the module's
    parameters and buffers, and finite values of their kind."""
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
    """Raise :class:`CheckpointError`, naming every setting that differs, unless the settings in a file of that name are
    those asked for."""
    with reading(name, CheckpointError, "a file of settings"):
        before, after = dict(_leaves(there)), dict(_leaves(now))
        changes = [
            f"{key}={before.get(key, 'nothing')!r} there, {after.get(key, 'nothing')!r} now"
            for key in [*after, *(key for key in before if key not in after)]
            if key not in before or key not in after or before[key] != after[key]
        ]
    if changes:
        raise CheckpointError(f"{name} belongs to a run with other settings ({'; '.join(changes)})")


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name every setting by its path; those of the recipe by their own names."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, "" if key == "recipe" and not prefix else f"{prefix}{key}.")
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


def describe(held: Any) -> str:
    """Name what a file holds instead."""
    return f"a dict of {listed(held) or 'nothing'}" if isinstance(held, dict) else f"a {type(held).__name__}"
