"""Training runs that two processes share, for a script that Lightning starts twice: python shared_runs.py FOLDER"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import lightning
import small_forecasts
import torch
from small_runs import RECIPE, SyncMNISTData, fit, model

from rstg_pyg.training import CheckpointError, ClipClassifier, DivergenceError, open_run, run_trainer, train_and_test

TWO = {"devices": 2, "strategy": "ddp"}
SUM = dataclasses.replace(RECIPE, optimizer="nesterov", loss="sum", lr=1e-3)


class SaveGradients(lightning.Callback):
    """Write the first step's gradients, before they are clipped, to ``folder/gradients.pt``."""

    def __init__(self, folder):
        self.path = Path(folder, "gradients.pt")

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == 0 and trainer.is_global_zero:
            torch.save({name: p.grad.clone() for name, p in module.model.named_parameters()}, self.path)


class SaveSeeds(lightning.Callback):
    """Write the seeds of this process's random numbers to ``folder/seeds-RANK.pt``."""

    def __init__(self, folder):
        self.folder, self.seeds = folder, []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seeds.append(torch.initial_seed())
        torch.save(self.seeds, Path(self.folder, f"seeds-{trainer.global_rank}.pt"))


class SpoilOneProcess(lightning.Callback):
    """Give the second process a NaN at step 4."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 4 and trainer.global_rank == 1:
            batch.video = batch.video * torch.nan


class KillOneProcess(lightning.Callback):
    """Kill the second process at step 4."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 4 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def fit_and_test(folder, recipe, **options):
    """Train, then test; write the results that this process gets to ``folder/tested-RANK.pt``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    module = fit(folder, recipe, callbacks=[SaveGradients(folder)], **options)
    tested = module.trainer.test(module, SyncMNISTData(folder, recipe, digits="sklearn"), verbose=False)[0]
    torch.save({**tested, "confusion": module.confusion}, Path(folder, f"tested-{module.global_rank}.pt"))


def run_in_folder(folder, devices, **options):
    """Train and test as the package's functions do; write what this process gets to ``folder/result-RANK.pt``."""
    module = ClipClassifier(model(), RECIPE)
    checkpoint = open_run(folder, module)
    trainer = run_trainer(folder, RECIPE, "cpu", devices, progress=False, **options)
    result = train_and_test(module, SyncMNISTData(folder, RECIPE, digits="sklearn"), trainer, checkpoint)
    torch.save(dataclasses.asdict(result), Path(folder, f"result-{module.global_rank}.pt"))


def forecast_in_folder(folder, devices):
    """Train and test a forecaster; write what this process gets to ``folder/result-RANK.pt``."""
    recipe = dataclasses.replace(small_forecasts.RECIPE, val_clips=6)  # three for each process
    task = small_forecasts.make_task(recipe, dataclasses.replace(small_forecasts.NETWORK, dropout=0.0))
    torch.manual_seed(0)
    module = task.module("all-temp-stages")
    trainer = run_trainer(folder, task.recipe, "cpu", devices, progress=False, callbacks=[SaveGradients(folder)])
    result = train_and_test(module, task.data(), trainer, open_run(folder, module))
    torch.save({"test": result.test, "val": result.val}, Path(folder, f"result-{module.global_rank}.pt"))


def go_on_without_checkpoint(folder):
    """Let the second process find no checkpoint."""
    module, second = ClipClassifier(model(), RECIPE), os.environ.get("LOCAL_RANK") == "1"
    trainer = run_trainer(folder, RECIPE, "cpu", devices=2, progress=False)
    clips = SyncMNISTData(folder, RECIPE, digits="sklearn")
    try:
        train_and_test(module, clips, trainer, None if second else open_run(folder, module))
    except CheckpointError as error:
        Path(folder, f"refused-{int(second)}.txt").write_text(str(error))


if __name__ == "__main__":
    root = Path(sys.argv[1])
    run_in_folder(root / "run", 2, max_minutes=1e-9)
    run_in_folder(root / "run", 2)
    go_on_without_checkpoint(root / "run")
    forecast_in_folder(root / "forecast", 2)
    fit_and_test(root / "mean", RECIPE, **TWO)
    fit_and_test(root / "sum", SUM, **TWO)
    fit(root / "whole", net=model(dropout=0.3), callbacks=[SaveSeeds(root)], **TWO)
    fit(root / "broken", net=model(dropout=0.3), max_epochs=1, **TWO)
    net = model(dropout=0.3)
    torch.manual_seed(99)
    fit(root / "broken", net=net, checkpoint=root / "broken" / "last.ckpt", **TWO)
    try:
        fit(root / "spoiled", callbacks=[SpoilOneProcess()], **TWO)
    except DivergenceError as error:
        print(error, flush=True)
    run_in_folder(root / "killed", 2, callbacks=[KillOneProcess()])
