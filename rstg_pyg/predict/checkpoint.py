"""Networks of Something-Something from the files that training writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

from rstg_pyg.arguments import check_name, check_positive
from rstg_pyg.files import reading
from rstg_pyg.models import VIDEO_ROWS, VideoNetwork, VideoResNet
from rstg_pyg.training.torch_file import CheckpointError, listed, read_file
from rstg_pyg.training.weights import load_model_weights

TASK = "something-something"
"""What ``examples/something_something.py`` writes into its files."""

Settings = TypeVar("Settings")


class TrainedNetwork(NamedTuple):
    r"""A trained network and what it was trained for.

    Attributes:
        model: The network, in evaluation mode.
        row: Its name in :data:`~rstg_pyg.models.VIDEO_ROWS`.
        classes: The names of the classes, in the order of the logits.
        num_frames: Number of frames T of the clips that it was trained on.
        size: Height and width of those clips.
    """

    model: VideoResNet
    row: str
    classes: tuple[str, ...]
    num_frames: int
    size: int


def load_trained_network(path: str | os.PathLike) -> TrainedNetwork:
    r"""Build the network that a file of weights or a checkpoint of a run says it holds, and load it.

    Args:
        path: A file of :func:`~rstg_pyg.training.save_weights`, or a run's ``last.ckpt``.

    Raises:
        CheckpointError: If the file is damaged, of another kind, of another task, or of a version that knows more.
        OSError: If it cannot be read.

    Example:
        >>> from rstg_pyg.predict import load_trained_network
        >>> load_trained_network("none.pt")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'none.pt'
    """
    config = read_settings(path)
    row, classes, num_frames, size = (config[name] for name in _ENTRIES)
    with reading(path, CheckpointError, _OWN):
        check_name("the name of a row", row, VIDEO_ROWS)
        check_positive(size=size)
        if num_frames < 2:
            raise ValueError(f"expected clips of at least 2 frames, got {num_frames}")
        network = from_settings(path, VideoNetwork, config, "network")
        if len(classes) != network.num_classes or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"expected the names of {network.num_classes} classes, got {len(classes)} entries")
        model = VIDEO_ROWS[row].build(network)
    load_model_weights(path, model)
    return TrainedNetwork(model.eval(), row, tuple(classes), num_frames, size)


def read_settings(path: str | os.PathLike) -> Mapping[str, Any]:
    """What a file of weights or a checkpoint says of its network and how that was trained.

    Raises:
        CheckpointError: If the file is damaged, of another kind, or of another task.
        OSError: If it cannot be read.
    """
    config = read_file(path).get("config", {})
    if config.get("task") != TASK:
        found = config.get("task") or config.get("model")
        found = f"one of {found!r}" if isinstance(found, str) else "one that does not say of what"
        raise CheckpointError(f"expected {path} to hold a network of the task {TASK!r}, got {found}")
    with reading(path, CheckpointError, _OWN):
        for name, kind in _ENTRIES.items():
            _entry(config, name, kind)
    return config


def from_settings(path: str | os.PathLike, kind: type[Settings], config: Mapping[str, Any], name: str) -> Settings:
    """Make a dataclass, as the sizes of a network or a recipe, of what a file says of it.

    Args:
        path: The file.
        kind: The dataclass.
        config: What :func:`read_settings` gave.
        name: The entry.

    Raises:
        CheckpointError: If there is no such entry, or a setting is not of this version or out of its range.
    """
    with reading(path, CheckpointError, f"of a {kind.__name__} that this version knows"):
        settings = _entry(config, name, Mapping)
        known = [field.name for field in fields(kind)]
        unknown = [name for name in settings if name not in known]
        if unknown:
            raise ValueError(f"expected options of it, got {listed(unknown)}, which a later version may know")
        return kind(**settings)


_ENTRIES = {"model": str, "classes": list, "num_frames": int, "size": int}
_OWN = "of a network that this version can build"


def _entry(config: Mapping[str, Any], name: str, kind: type) -> Any:
    value = config.get(name)
    if not isinstance(value, kind):
        got = f"{type(value).__name__}" if name in config else "none"
        raise ValueError(f"expected its settings to hold {name!r} of type {kind.__name__}, got {got}")
    return value
