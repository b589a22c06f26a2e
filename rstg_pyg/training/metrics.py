"""What a run measured: a table that survives being stopped, a progress bar, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import Tensor
from torch_geometric.data import Data
from tqdm import tqdm

from rstg_pyg.arguments import check_positive
from rstg_pyg.files import FileError, naming, open_file, reading, replace_file, shown
from rstg_pyg.training.recipe import RunRecipe

COLUMNS = ("step", "clips", "lr", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "clips_per_second")
"""Of ``metrics.csv``, the accuracies for classifiers alone: optimiser steps and clips so far, the last step's learning
rate, means over the steps since the row before, the whole validation set's values (at the end of a chunk), seconds of
training so far without validation, and clips per second since the row before."""


class ClipMetrics(lightning.Callback):
    """Write a row of ``folder/metrics.csv`` every few steps and at the end of every chunk, and give it to the trainer's
    loggers.

    Rows are on the disk before the chunk's checkpoint is. A run that goes on from one first takes away the rows of
    later steps, which it makes again: every row is there once.

    Args:
        folder: Where ``metrics.csv`` goes.
        recipe: The run's recipe.
        every_n_steps: Steps between two rows.

    Raises:
        ValueError: If ``every_n_steps`` is not positive.
        FileError: By ``fit``, if there is a ``metrics.csv`` of another kind, or one with a damaged row. It stays as it
            is; it is a ValueError.
        OSError: By ``fit``, if the file cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, recipe: RunRecipe, every_n_steps: int = 50) -> None:
        check_positive(every_n_steps=every_n_steps)
        self.path = Path(folder) / "metrics.csv"
        self.recipe = recipe
        self.every_n_steps = every_n_steps
        self.seconds = 0.0
        self._measured: list[Tensor] = []
        self._row: dict[str, float] = {}
        self._columns = COLUMNS
        self._clips = self._clips_before = self._step = 0
        self._lr = self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._measured, measures = [], module.measures
        self._columns = tuple(name for name in COLUMNS if "accuracy" in measures or not name.endswith("accuracy"))
        self._clips = self._clips_before = self.recipe.clips_before(trainer.current_epoch)
        self._step = trainer.global_step
        if trainer.global_step == 0:
            self.seconds = 0.0
        if trainer.is_global_zero:
            keep_rows(self.path, trainer.global_step, self._columns)
        else:
            # Where the first process refuses the file, the others do not wait for it.
            read_rows(self.path)
        self._started = time.monotonic()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Data, batch_idx: int
    ) -> None:
        self._lr = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Data, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        self._measured.append(outputs["measured"])
        self._clips += batch.num_graphs * trainer.world_size
        # Several batches may make one step.
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if trainer.is_last_batch or (stepped and trainer.global_step % self.every_n_steps == 0):
            self._make_row(trainer, module)
            if not trainer.is_last_batch:
                self._write_row(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self._row:
            for name in self._columns:
                if name.startswith("val_") and name in trainer.callback_metrics:
                    self._row[name] = float(trainer.callback_metrics[name])
            self._write_row(trainer)
        self._started = time.monotonic()

    def _make_row(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        means = read_means(self._measured)
        now = time.monotonic()
        passed, self._started = now - self._started, now
        self.seconds += passed
        self._row = {
            "step": trainer.global_step,
            "clips": self._clips,
            "lr": self._lr,
            **dict(zip(("loss", *module.measures), means, strict=True)),
            "seconds": round(self.seconds, 3),
            "clips_per_second": round((self._clips - self._clips_before) / passed, 2),
        }
        self._clips_before = self._clips

    def _write_row(self, trainer: lightning.Trainer) -> None:
        with naming(self.path), open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(self._row)
            file.flush()
            os.fsync(file.fileno())
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in self._row.items() if name != "step"}, self._row["step"])
        self._row = {}


class ClipProgress(lightning.Callback):
    """Show clips done, clips per second, time left, and what the last steps measured, smoothed.

    Clips are those of all processes; the first one shows them. Loss and measures are read once per ``interval``: to
    read them is to wait for the accelerator.

    Args:
        recipe: The run's recipe, which says how many clips there are.
        interval: Seconds between two looks at them.
    """

    def __init__(self, recipe: RunRecipe, interval: float = 1.0) -> None:
        self.recipe = recipe
        self.interval = interval
        self._bar: tqdm | None = None
        self._measured: list[Tensor] = []
        self._smooth: list[float] | None = None
        self._read_at = -math.inf

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        done = self.recipe.clips_before(trainer.current_epoch)
        self._measured, self._smooth, self._read_at = [], None, -math.inf
        self._bar = tqdm(
            total=self.recipe.clips,
            initial=done,
            unit="clip",
            desc="training",
            disable=not trainer.is_global_zero,
            dynamic_ncols=True,
            mininterval=self.interval,
        )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Data, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        self._measured.append(outputs["measured"])
        if time.monotonic() >= self._read_at + self.interval:
            self._show(module)
        self._bar.update(batch.num_graphs * trainer.world_size)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self._measured:
            self._show(module)
        self._bar.close()

    def on_exception(self, trainer: lightning.Trainer, module: Any, exception: BaseException) -> None:
        if self._bar is not None:
            self._bar.close()

    def _show(self, module: lightning.LightningModule) -> None:
        kept = 0.98 ** len(self._measured)
        means = read_means(self._measured)
        before = means if self._smooth is None else self._smooth
        self._smooth = [kept * old + (1 - kept) * new for old, new in zip(before, means, strict=True)]
        shown = zip(("loss", *module.measures), self._smooth, strict=True)
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in shown}, refresh=False)
        self._read_at = time.monotonic()


def read_means(measured: list[Tensor]) -> list[float]:
    """Return the means of what the steps since the last call measured, each ``[n]``, and begin anew.

    Until then nothing is read: to read a tensor is to wait for the accelerator.
    """
    means = torch.stack(measured).float().mean(0).tolist()
    measured.clear()
    return means


def keep_rows(path: str | os.PathLike, last_step: int, columns: Sequence[str] = COLUMNS) -> None:
    """Leave the rows of ``path`` up to a step, under the header of ``columns``; make the file where there is none.

    Raises:
        FileError: As :func:`read_rows`; the file stays as it is.
        OSError: If it cannot be written.
    """
    kept = io.StringIO(newline="")
    writer = csv.DictWriter(kept, columns)
    writer.writeheader()
    writer.writerows(row for row in read_rows(path) if row["step"] <= last_step)
    replace_file(path, kept.getvalue().encode())


def read_rows(path: str | os.PathLike) -> list[dict[str, float]]:
    """Read the whole rows of a ``metrics.csv``, none where there is no file; a value that was not measured is left out.

    A row that was broken off in writing is left out too: it has no end of line.

    Raises:
        FileError: If the file is of another kind, or a row is damaged.
        OSError: If it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return []
    with reading(path, FileError, "the table of a run (move it, or take another folder)"):
        with open_file(path) as file:
            lines = file.read().decode().split("\n")
        if lines == [""]:
            return []
        header = next(csv.reader(lines[:1]))
        if not {"step"} <= set(header) <= set(COLUMNS):
            raise ValueError(f"one that begins with {shown(lines[0])!r}")
    rows = []
    for number, line in enumerate(lines[1:-1], start=2):
        with reading(f"{path}, line {number},", FileError, "a row of numbers (mend it, or remove the line)"):
            values = next(csv.reader([line]), [])
            if values:
                row = zip(header, values, strict=True)
                rows.append({name: _KINDS.get(name, float)(value) for name, value in row if value or name == "step"})
    return rows


_KINDS = {"step": int, "clips": int}


def run_loggers(folder: str | os.PathLike) -> list[Logger]:
    """Make the loggers of a run, for rows of :class:`ClipMetrics` and results of tests: TensorBoard's, in
    ``folder/tensorboard``, where it is installed, else none."""
    if not any(find_spec(name) for name in ("tensorboard", "tensorboardX")):
        return []
    return [TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)]
