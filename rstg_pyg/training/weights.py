"""The weights of a trained model as a small file of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from rstg_pyg.files import reading
from rstg_pyg.training.checkpoint_reading import check_weights, plain
from rstg_pyg.training.torch_file import CheckpointError, read_file, write_file

PREFIX = "model."
"""What a :class:`ClipClassifier` puts before the names of its model."""


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
        stored = dtype if dtype is not None and value.is_floating_point() else value.dtype
        state[name] = value.detach().to(device="cpu", dtype=stored, copy=True)
        if not value.isfinite().all():
            raise ValueError(f"expected finite weights, got others in {name}")
        if not state[name].isfinite().all():
            raise ValueError(f"expected values that fit into {dtype}, got larger ones in {name}")
    write_file(path, {"config": plain(config or {}), "state_dict": state})


def load_model_weights(path: str | os.PathLike, model: Module) -> dict[str, Any]:
    """Put the weights of a file of :func:`save_weights`, or of a checkpoint of a :class:`ClipClassifier`, into a model.

    Args:
        path: The file.
        model: What gets the weights, in the data types that it has.

    Returns:
        The settings that the file holds.

    Raises:
        CheckpointError: If the file is damaged, of another kind, or of another model, or holds values that are not
            finite, or complex ones; the model is as it was.
        OSError: If it cannot be read.

    Example:
        >>> import torch
        >>> from rstg_pyg.training import load_model_weights
        >>> load_model_weights("runs/none/weights.pt", torch.nn.Linear(2, 2))
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'runs/none/weights.pt'
    """
    held = read_file(path)
    state = held["state_dict"]
    with reading(path, CheckpointError, "a file of this model's weights"):
        if "pytorch-lightning_version" in held:
            consume_prefix_in_state_dict_if_present(state, PREFIX)
        check_weights(state, model, str(path))
        model.load_state_dict(state)
    return held.get("config", {})
