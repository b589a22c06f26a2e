"""Training runs of a small model on scikit-learn's digits, in this process or in one that is killed."""

import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path

import lightning
import torch

from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
from rstg_pyg.training import ClipClassifier, ClipMetrics, ClipProgress, Phase, Recipe, SyncMNISTData, chunk_checkpoint

PHASES = (Phase(8, num_digits=2, no_sync_probability=0.5, target="in-step"), Phase(22))
RECIPE = Recipe(PHASES, size=16, batch_size=4, test_clips=6, val_clips=6, chunk=10)
LONG = dataclasses.replace(RECIPE, phases=(Phase(16, num_digits=2), Phase(64)), chunk=8)
"""Ten chunks of two steps."""


def model(**options):
    torch.manual_seed(0)
    block = RSTGToVec(4, scales=(2, 1), num_stages=1, norm="layer_norm", **options)
    return VideoClassifier(FrameCNN(1, (4, 4)), block, num_classes=46)


class Record(lightning.Callback):
    """Write every step's loss to ``folder/steps.txt``, bit for bit."""

    def __init__(self, folder):
        self.path = Path(folder, "steps.txt")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        with open(self.path, "a") as file:
            file.write(f"{trainer.global_step} {outputs['loss'].item().hex()}\n")


class KillAt(lightning.Callback):
    """Let the process be killed at the start of a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def trainer_of(folder, recipe, callbacks=(), **options):
    options = {"accelerator": "cpu", "devices": 1, "max_epochs": recipe.num_chunks, **options}
    return lightning.Trainer(
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        gradient_clip_val=recipe.gradient_clip,
        callbacks=[ClipProgress(recipe), ClipMetrics(folder, recipe, 1), chunk_checkpoint(folder), *callbacks],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def fit(folder, recipe=RECIPE, checkpoint=None, net=None, callbacks=(), **options):
    """Train in ``folder``, from ``checkpoint`` on where one is given; return the classifier."""
    module = ClipClassifier(model() if net is None else net, recipe)
    trainer = trainer_of(folder, recipe, callbacks, **options)
    trainer.fit(module, SyncMNISTData(folder, recipe, digits="sklearn"), ckpt_path=checkpoint, weights_only=True)
    return module


def fit_long(folder, optimizer, checkpoint=None, callbacks=(), seed=0):
    """Train with random numbers in every step and a learning rate that changes in every step."""
    recipe, net = dataclasses.replace(LONG, optimizer=optimizer), model(dropout=0.3)
    torch.manual_seed(seed)
    return fit(folder, recipe, checkpoint, net, [Record(folder), *callbacks])


def run_until_killed(function, *args, **options):
    """Run a function in a process of its own, which it does not outlive.

    Threads of this process do not come with the fork: torch has to do with one.
    """
    assert torch.get_num_threads() == 1
    process = multiprocessing.get_context("fork").Process(target=function, args=args, kwargs=options)
    process.start()
    process.join(timeout=300)
    assert process.exitcode == -signal.SIGKILL
