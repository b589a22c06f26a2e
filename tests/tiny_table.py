"""The SyncMNIST tables with runs that take under a second, in this process, or none at all."""

import csv
import json
from dataclasses import replace

import syncmnist_runs
import syncmnist_table
from process_settings import process_settings
from syncmnist_table import PAPER_ROWS, Table, Variant

from rstg_pyg.models import SMALL
from rstg_pyg.training import Phase, Recipe

RECIPE = Recipe(
    (Phase(8, 2, 0.5, "in-step"), Phase(24, 3)),
    size=16,
    batch_size=8,
    test_clips=16,
    val_clips=8,
    chunk=16,
    optimizer="muon",
)
NETWORK = replace(SMALL, widths=(4, 4), channels=4, heatmap_size=2)
ROWS = Table("a tiny task", NETWORK, RECIPE, PAPER_ROWS)
CHANGES = Table(
    "tiny changes",
    NETWORK,
    RECIPE,
    {
        "the recipe": Variant("positional"),
        "AdamW, 0.001": Variant("positional", recipe={"optimizer": "adamw", "lr": 1e-3}),
        "GRU, G = 3": Variant("all-temp-stages", {"rnn": "gru"}, {"delay": 3}),
    },
)


def train_here(run, args):
    """Train a run in this process; like :func:`syncmnist_runs.train_in_process`."""
    path = syncmnist_runs.begin(run, args.runs)
    try:
        with process_settings():
            syncmnist_runs.train(syncmnist_runs.Run.from_json(path.read_text()), args)
    except (ValueError, OSError, RuntimeError) as error:
        return f"{run.folder}: {error}"


def pretend(measure):
    """Make a function that writes results without training: of each run the test accuracy, or None if it diverged."""

    def train(run, args):
        path, accuracy = syncmnist_runs.begin(run, args.runs), measure(run)
        held = {"name": run.name, "seed": run.seed, "digits": run.digits, "precision": args.precision}
        held |= {"test_clips": run.recipe.test_clips, "parameters": 1234, "machine": "a machine", "torch": "2"}
        if accuracy is None:
            held["diverged"] = "a loss that is not finite"
        else:
            held |= {"test_accuracy": accuracy, "val_accuracy": 0.5, "clips": run.recipe.clips, "seconds": 90.0}
        held |= {"settings": run.settings, "curve": f"16:0.25 {run.recipe.clips}:0.5"}
        path.with_name("result.json").write_text(json.dumps(held))

    return train


class Place:
    """Tables in a folder: start one, and see what it trains and writes."""

    def __init__(self, folder, monkeypatch, train=train_here):
        self.folder, self.results, self.runs = folder, folder / "results", folder / "runs"
        self.trained = []

        def note(run, args):
            self.trained.append((run.name, run.seed))
            return train(run, args)

        monkeypatch.setattr(syncmnist_runs, "train_in_process", note)
        monkeypatch.setitem(syncmnist_table.TABLES, "rows", ROWS)
        monkeypatch.setitem(syncmnist_table.TABLES, "recipe", CHANGES)

    def start(self, table, *argv):
        """Give the command; return names and seeds of the runs that it trained."""
        self.trained = []
        places = {f"--{name}": str(self.folder / name) for name in ("root", "runs", "results")}
        fixed = [part for pair in places.items() for part in pair]
        syncmnist_table.main([table, *fixed, "--digits", "sklearn", "--device", "cpu", "--jobs", "1", *argv])
        return self.trained

    def read(self, table):
        with (self.results / f"syncmnist_{table}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def line(self, table, name):
        """The cells of a line of the Markdown table, after its name."""
        text = (self.results / f"syncmnist_{table}.md").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |") or f"(`{name}`)" in line)
        return [cell.strip() for cell in line[1:-1].split("|")][1:]
