"""One checkpoint, renewed at the end of every chunk."""

from __future__ import annotations

import os
from typing import Any

import lightning
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from rstg_pyg.training.weights import CheckpointError, check_settings, check_weights, describe, read_file, write_file

NAME = "last"
PARTS = {"config": dict, "random_seed": int, "global_step": int, "optimizer_states": list, "lr_schedulers": list}
"""What a checkpoint holds beside the weights."""


class ChunkCheckpoint(ModelCheckpoint):
    """See :func:`chunk_checkpoint`."""

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__(
            folder,
            filename=NAME,
            save_top_k=1,
            monitor=None,
            enable_version_counter=False,
            # Not right after validation: the chunk's row of the metrics is written first.
            save_on_train_epoch_end=True,
        )

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        trainer.strategy.checkpoint_io = WholeFiles(pl_module)


class WholeFiles(TorchCheckpointIO):
    """Write checkpoints by :func:`write_file`: Lightning's own way moves them here from the system's folder for
    temporary files, which on another disk is a copy that can break off. Read them by :func:`read_file`, unless the
    module holds one that :func:`~rstg_pyg.training.open_run` read."""

    def __init__(self, module: lightning.LightningModule) -> None:
        super().__init__()
        self._module = module

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any | None = None
    ) -> None:
        write_file(path, checkpoint)

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        held_path, held = self._module.held_checkpoint
        return held if held_path == os.fspath(path) else read_file(path)


def chunk_checkpoint(folder: str | os.PathLike) -> ModelCheckpoint:
    """Make the callback that writes ``folder/last.ckpt`` at the end of every chunk, over the one before.

    It writes to a file of another name first, so a run that is stopped while it writes leaves the one before.

    Args:
        folder: Where the checkpoint goes.

    Returns:
        A callback; give the file to ``fit(..., ckpt_path=...)`` to go on.

    Raises:
        CheckpointError: By ``fit``, if the file to go on from is damaged or of another run.
        OSError: By ``fit``, if the folder cannot be written to.
    """
    return ChunkCheckpoint(folder)


def read_checkpoint(path: str | os.PathLike, module: lightning.LightningModule | None = None) -> dict[str, Any]:
    """Read a checkpoint of a :class:`RunModule`, without running anything that it holds.

    Args:
        path: The file.
        module: What is to go on from it: settings and weights must be alike.

    Returns:
        What the file holds: ``"config"`` says of which run it is, ``"global_step"`` how far that was.

    Raises:
        CheckpointError: If the file is damaged, is no checkpoint of a :class:`RunModule`, or one of other settings
            or another model; the sentence names what differs.
        OSError: If there is no such file or it cannot be read.
    """
    checkpoint = read_file(path)
    check_checkpoint(checkpoint, module, str(path))
    return checkpoint


def check_checkpoint(checkpoint: dict[str, Any], module: lightning.LightningModule | None, name: str) -> None:
    """Raise :class:`CheckpointError` unless ``checkpoint``, of a file of that name, holds what a
    :class:`RunModule` goes on from, and is of the module's settings and weights."""
    missing = [part for part in PARTS if part not in checkpoint]
    if missing:
        raise CheckpointError(
            f"expected {name} to be a checkpoint of a training run, got {describe(checkpoint)} without "
            f"{', '.join(missing)}"
        )
    for part, kind in PARTS.items():
        if not isinstance(checkpoint[part], kind):
            found = type(checkpoint[part]).__name__
            raise CheckpointError(f"expected {name} to hold {part!r} as {kind.__name__}, got {found}")
    if module is None:
        return
    check_settings(checkpoint["config"], module.config, name)
    check_weights(checkpoint["state_dict"], module, name)
    for state in checkpoint["optimizer_states"]:
        if not isinstance(state, dict) or "param_groups" not in state:
            raise CheckpointError(
                f"expected {name} to hold states of optimisers with 'param_groups', got {describe(state)}: runs that "
                "an earlier version of rstg_pyg began do not go on"
            )
