"""A training run in a folder: begun or gone on with, trained, tested."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

try:
    import fcntl
except ImportError:
    # Windows, where two runs in one folder are not noticed.
    fcntl = None

from rstg_pyg.arguments import check_choice, check_positive
from rstg_pyg.recurrence.rnn import onednn_lacks_bfloat16
from rstg_pyg.training.checkpoint import NAME, chunk_checkpoint, read_checkpoint
from rstg_pyg.training.data import RunData
from rstg_pyg.training.ending import ends_together
from rstg_pyg.training.metrics import ClipMetrics, ClipProgress, run_loggers
from rstg_pyg.training.module import RunModule
from rstg_pyg.training.recipe import RunRecipe
from rstg_pyg.training.weights import CheckpointError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("32-true", "bf16-mixed")
RESULTS = ("weights.pt", "result.json")
"""What is written into a run's folder at its end."""
LOCK = "run.lock"

_locks: dict[Path, int] = {}
"""The file descriptors that this process has locked, by folder; they stay open to its end."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        clips: Training clips seen, all starts of the run together.
        seconds: Seconds of training, all starts together, without validation and tests.
        finished: Whether all clips of the recipe were seen.
        test: What was measured on the test clips, by name, as ``"accuracy"``; empty for a run that is not finished.
        val: The same on the validation clips, by the same weights.
        confusion: Test clips by label and answer, ``[M, M]``; None for a run that is not finished.
        top5_accuracy: Share of test clips whose label is among the five likeliest classes.
    """

    clips: int
    seconds: float
    finished: bool
    test: Mapping[str, float] = field(default_factory=dict)
    val: Mapping[str, float] = field(default_factory=dict)
    confusion: Tensor | None = None
    top5_accuracy: float | None = None

    @property
    def test_accuracy(self) -> float | None:
        """Share of right answers on the test clips; None for a run that is not finished."""
        if self.confusion is None:
            return self.test.get("accuracy")
        return self.confusion.trace().item() / self.confusion.sum().item()

    @property
    def val_accuracy(self) -> float | None:
        """The same on the validation clips."""
        return self.val.get("accuracy")


class StopAfter(lightning.Callback):
    """End training at the end of the chunk during which a time has passed, so that the next start goes on from there.

    Args:
        minutes: Minutes since training started.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._end = time.monotonic() + 60 * self.minutes

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(time.monotonic() >= self._end, all=False):
            trainer.should_stop = True


class SameStart(lightning.Callback):
    """Refuse to train where some processes go on from a checkpoint and others begin anew."""

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        resumes = trainer.ckpt_path is not None
        same = resumes == trainer.strategy.broadcast(resumes)
        if not trainer.strategy.reduce_boolean_decision(same, all=True):
            raise CheckpointError(
                "expected all processes to go on from the same checkpoint, got some without one; the folder of a run "
                "has to be one that all machines see"
            )


def uses_cuda(device: str, devices: int = 1) -> bool:
    """Say whether a run is one on CUDA; raise if there are fewer CUDA devices than are asked for."""
    check_choice("device", device, DEVICES)
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = device == "cuda" or (device == "auto" and available > 0)
    if cuda and available < devices:
        raise ValueError(f"expected {devices} CUDA device(s) for device={device!r}, got {available} (try 'cpu')")
    return cuda


def run_trainer(
    folder: str | os.PathLike,
    recipe: RunRecipe,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str = "32-true",
    max_minutes: float | None = None,
    progress: bool = True,
    callbacks: Sequence[lightning.Callback] = (),
) -> lightning.Trainer:
    """Make the trainer of a run: an epoch is a chunk, after which it validates and writes ``folder/last.ckpt``.

    With several processes every one trains on its share of each batch, so ``batch_size`` is that of all together and
    the gradient that of the whole batch.

    Args:
        folder: Where checkpoint, ``metrics.csv`` and TensorBoard's files go; with several machines, one that all see.
        recipe: What to train.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where there is a device.
        devices: Processes per machine, each with a device.
        num_nodes: Machines; start the same command on each as torchrun or SLURM do, see Lightning's documentation.
        precision: ``"32-true"`` or ``"bf16-mixed"``.
        max_minutes: End after the chunk during which so many minutes have passed.
        progress: Whether to show a progress bar.
        callbacks: More callbacks.

    Raises:
        ValueError: If an argument is out of its range, there are fewer CUDA devices than are asked for, the batch size
            is no multiple of the number of processes, or there are fewer clips than processes in the last chunk, for
            validation or for tests.
    """
    check_choice("precision", precision, PRECISIONS)
    check_positive(devices=devices, num_nodes=num_nodes)
    cuda = uses_cuda(device, devices)
    processes = devices * num_nodes
    if recipe.batch_size % processes:
        raise ValueError(
            f"expected 'batch_size' to be a multiple of the {processes} processes, got {recipe.batch_size}"
        )
    counts = (len(recipe.chunk_clips(recipe.num_chunks - 1)), recipe.val_clips, recipe.test_clips)
    if min(count for count in counts if count is not None) < processes:
        raise ValueError(
            f"expected a clip for each of the {processes} processes in the last chunk, for validation and for tests, "
            f"got {counts[0]}, {' and '.join('all' if count is None else str(count) for count in counts[1:])}"
        )
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"expected 'max_minutes' to be above 0, got {max_minutes}")
    if precision == "bf16-mixed" and not cuda and onednn_lacks_bfloat16():
        warnings.warn(
            "expected a CPU with instructions for bfloat16, got one without: convolutions take several times as long "
            "as in float32 (precision '32-true')",
            stacklevel=2,
        )
    several = processes > 1
    own = [ClipMetrics(folder, recipe), chunk_checkpoint(folder)]
    own += [ClipProgress(recipe)] if progress else []
    own += [StopAfter(max_minutes)] if max_minutes is not None else []
    own += [SameStart()] if several else []
    return lightning.Trainer(
        accelerator="cuda" if cuda else "cpu",
        devices=devices,
        num_nodes=num_nodes,
        strategy="ddp" if several else "auto",
        sync_batchnorm=several and cuda,
        use_distributed_sampler=False,
        precision=precision,
        # All batches but a chunk's last are of one shape: cuDNN's search for the fastest convolutions pays at once.
        benchmark=cuda,
        max_epochs=recipe.num_chunks,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        gradient_clip_val=recipe.gradient_clip,
        accumulate_grad_batches=recipe.accumulate,
        callbacks=[*own, *callbacks],
        logger=run_loggers(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def claim_folder(folder: str | os.PathLike) -> None:
    """Make a folder for this process alone to write to, as long as it lives; remove what another one, which was ended,
    had begun to write.

    Of several processes of a run the first one locks ``folder/run.lock``; which that is they know once there is a
    trainer.

    Raises:
        RuntimeError: If another process has the folder.
        OSError: If it cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if fcntl is not None and not rank_zero_only.rank:
            _lock(folder.absolute())
    except OSError as error:
        raise type(error)(f"expected {folder} to be a folder that can be written to, got: {error}") from None


def _lock(folder: Path) -> None:
    path, held = folder / LOCK, _locks.get(folder)
    if held is not None and path.exists() and os.path.samestat(os.fstat(held), path.stat()):
        # Closing any file of this name would give the lock away.
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # Of this process alone: a lock by flock would be its workers' too, which may outlive it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(file, 300).decode(errors="replace")
        os.close(file)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise RuntimeError(f"expected one run at a time in {folder}, got another one there ({holder})") from None
        warnings.warn(f"expected {path} to be a file that can be locked, got: {error}", stacklevel=3)
        return
    _locks[folder] = file
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
    for name in (f"{NAME}.ckpt", "metrics.csv", *RESULTS):
        for part in folder.glob(f"{name}.*.part"):
            part.unlink()


def open_run(folder: str | os.PathLike, module: RunModule, fresh: bool = False) -> Path | None:
    """Make a run's folder, for this process alone, as long as it lives; return the checkpoint to go on from, if the
    folder holds one of the same run.

    Of several processes only the first one has the folder, and each calls this after :func:`run_trainer`.

    Args:
        folder: The folder.
        module: What is to be trained.
        fresh: Begin anew: a checkpoint that is there is removed, with the weights and the result of its run.

    Raises:
        CheckpointError: If there is a checkpoint that is damaged or of another run. It stays as it is.
        RuntimeError: If another process has opened the folder and still lives.
        OSError: If the folder cannot be made or written to.
    """
    claim_folder(folder)
    folder = Path(folder)
    checkpoint = folder / f"{NAME}.ckpt"
    if fresh:
        curves = (folder / "tensorboard").glob("events.*")
        for old in (checkpoint, *(folder / name for name in RESULTS), *curves):
            old.unlink(missing_ok=True)
    if not checkpoint.exists():
        return None
    try:
        module.held_checkpoint = os.fspath(checkpoint), read_checkpoint(checkpoint, module)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; take another folder, or begin anew (fresh)") from None
    return checkpoint


def train_and_test(
    module: RunModule, clips: RunData, trainer: lightning.Trainer, checkpoint: str | os.PathLike | None = None
) -> RunResult:
    """Train to the end of the recipe, or of the trainer's time, and test what is finished.

    Args:
        module: What is trained.
        clips: Its clips.
        trainer: From :func:`run_trainer`.
        checkpoint: Where to go on from, see :func:`open_run`.

    Raises:
        ValueError: If they are not of one recipe.
        DivergenceError: If a loss or a weight is not finite.
        CheckpointError: If the checkpoint is damaged or of another run.

    Example:
        >>> import tempfile
        >>> from rstg_pyg.models import build_row
        >>> from rstg_pyg.training import ClipClassifier, Phase, Recipe, SyncMNISTData, run_trainer, train_and_test
        >>> recipe = Recipe((Phase(32, 2),), batch_size=16, test_clips=4, val_clips=4)
        >>> module = ClipClassifier(build_row("mean-lstm"), recipe)
        >>> data = SyncMNISTData("data", recipe, digits="sklearn")
        >>> trainer = run_trainer(tempfile.mkdtemp(), recipe, device="cpu", progress=False)
        >>> train_and_test(module, data, trainer).clips
        32
    """
    recipe = module.recipe
    (metrics,) = (callback for callback in trainer.callbacks if isinstance(callback, ClipMetrics))
    for name, other in (("clips", clips.recipe), ("trainer", metrics.recipe)):
        if other != recipe:
            raise ValueError(f"expected '{name}' to be of the module's recipe, got {other} instead of {recipe}")
    with ends_together(trainer):
        trainer.fit(module, clips, ckpt_path=checkpoint, weights_only=True)
        # The first process alone takes the time.
        seconds = trainer.strategy.broadcast(metrics.seconds)
        clips_seen = recipe.clips_before(trainer.current_epoch)
        if trainer.current_epoch < recipe.num_chunks:
            return RunResult(clips_seen, seconds, finished=False)
        if module.take_best() or "val_loss" not in trainer.callback_metrics:
            # Other weights than the last ones, or the checkpoint of a run already trained to its end.
            trainer.validate(module, clips, verbose=False)
        val = _named(trainer.callback_metrics, "val_")
        (tested,) = trainer.test(module, clips, verbose=False)
    return RunResult(clips_seen, seconds, True, _named(tested, "test_"), val, **_answers(module))


def evaluate(module: RunModule, clips: RunData, device: str = "auto", precision: str = "32-true") -> RunResult:
    """Test a model by its weights as they are, in this process; nothing is written.

    Args:
        module: What was trained.
        clips: Its clips.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where there is a device.
        precision: ``"32-true"`` or ``"bf16-mixed"``.

    Raises:
        ValueError: If an argument is out of its range or there is no CUDA device where one is asked for.
    """
    check_choice("precision", precision, PRECISIONS)
    trainer = lightning.Trainer(
        accelerator="cuda" if uses_cuda(device) else "cpu",
        devices=1,
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    (tested,) = trainer.test(module, clips, verbose=False)
    return RunResult(0, 0.0, True, _named(tested, "test_"), **_answers(module))


def _named(measured: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): float(value) for name, value in measured.items() if name.startswith(prefix)}


def _answers(module: RunModule) -> dict[str, Any]:
    """What a classifier alone measures."""
    return {"confusion": getattr(module, "confusion", None), "top5_accuracy": getattr(module, "top5", None)}
