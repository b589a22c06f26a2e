"""The SyncMNIST table with runs that take under a second, in this process, or none at all."""

import json
from dataclasses import replace

import syncmnist_runs
import syncmnist_table
from process_settings import process_settings

from rstg_pyg.models import SMALL
from rstg_pyg.training import Phase, Recipe
from rstg_pyg.training.metrics import keep_rows

RECIPE = Recipe(
    (Phase(8, 2, 0.5, "in-step"), Phase(24, 2, 0.5)), size=16, batch_size=8, test_clips=16, val_clips=8, chunk=16
)
BUDGET = syncmnist_table.Budget(
    "a tiny task",
    replace(SMALL, widths=(4, 4), channels=4, heatmap_size=2),
    RECIPE,
    {"muon": {"optimizer": "muon"}, "adamw": {"optimizer": "adamw", "lr": 0.01}},
)


def train_here(run, args):
    """Train a run in this process; like :func:`syncmnist_runs.train_in_process`."""
    path = syncmnist_runs.begin(run, args)
    try:
        with process_settings():
            syncmnist_runs.train(syncmnist_runs.Run.from_json(path.read_text()), args)
    except (ValueError, OSError, RuntimeError) as error:
        return f"{run.folder}: {error}"


def pretend(measures):
    """Make a function that writes results without training: of each run the validation and test accuracy, or None for
    a run that diverged."""

    def train(run, args):
        path = syncmnist_runs.begin(run, args)
        measured = measures(run)
        keep_rows(path.with_name("metrics.csv"), 0)
        with open(path.with_name("metrics.csv"), "a") as file:
            file.write(f"1,{run.recipe.clips},0.1,1.0,0.1,1.0,{measured[0] if measured else 0},1.0,1.0\r\n")
        held = {
            "row": run.row,
            "seed": run.seed,
            "digits": args.digits,
            "precision": args.precision,
            "test_clips": run.recipe.test_clips,
            "parameters": 1234,
            "machine": "a machine",
            "torch": "2",
        }
        if measured is None:
            held["diverged"] = "a loss that is not finite"
        else:
            val, test = measured
            held |= {"test_accuracy": test, "val_accuracy": val, "clips": run.recipe.clips, "seconds": 90.0}
        path.with_name("result.json").write_text(json.dumps(held))

    return train


class Table:
    """A table in a folder: start it, and see what it trains and writes."""

    def __init__(self, folder, monkeypatch, train=train_here):
        self.folder, self.results, self.runs = folder, folder / "results", folder / "runs" / "cpu"
        self.trained = []

        def note(run, args):
            self.trained.append(run.folder)
            return train(run, args)

        monkeypatch.setattr(syncmnist_runs, "train_in_process", note)
        monkeypatch.setitem(syncmnist_table.BUDGETS, "cpu", BUDGET)

    def options(self, *argv):
        places = {"--root": "data", "--runs": "runs", "--results": "results"}
        fixed = [str(part) for name, place in places.items() for part in (name, self.folder / place)]
        return [*fixed, "--digits", "sklearn", "--device", "cpu", "--jobs", "1", *argv]

    def start(self, *argv, main=syncmnist_table.main):
        """Give the command; return the folders of the runs that it trained."""
        self.trained = []
        main(self.options(*argv))
        return self.trained
