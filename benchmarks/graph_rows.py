"""Train forecasters on graphs on equal terms, row by row and seed by seed, and write the tables that come out.

Every row sees the same sequences in the same order and gets the same recipe; the weights with the least validation loss
are tested, once, at the end. Results go to results/ (CSV and Markdown). A run that stands in the CSV is not trained
again, so that several machines can take turns; one that was stopped goes on where it was when the same command is given
again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import lightning
import torch

from command import cpu_name, digest, end_well, markdown, positive, read_csv, write_csv
from rstg_pyg.allocator import keep_freed_memory
from rstg_pyg.arguments import check_name
from rstg_pyg.files import replace_file
from rstg_pyg.training import DivergenceError, ForecastTask, open_run, run_trainer, save_weights, train_and_test
from rstg_pyg.training.module import RunModule

DATA_SETS = ("traffic", "pedestrians", "particles")
"""Modules of ``rstg_pyg.training`` whose ``tasks(root)`` make the parts of a table."""


def train(module: RunModule, task: ForecastTask, row: str, seed: int, folder: Path, threads: int) -> dict:
    """Train a row to its end, test it, and write what came of it: that it diverged is a result too. What is finished is
    read, what was begun goes on."""
    path = folder / "result.json"
    if path.exists():
        return json.loads(path.read_text())
    torch.set_num_threads(threads)
    trainer = run_trainer(folder, task.recipe, "cpu", progress=sys.stderr.isatty())
    checkpoint = open_run(folder, module)
    held = {"task": task.name, "row": row, "seed": seed, "source": task.source}
    held["parameters"] = sum(p.numel() for p in module.model.parameters())
    try:
        result = train_and_test(module, task.data(seed), trainer, checkpoint)
    except DivergenceError as error:
        held["diverged"] = str(error)
    else:
        save_weights(module.model, folder / "weights.pt", module.config)
        measured = {"test": result.test, "val": result.val}
        held |= {f"{part}_{name}": value for part, errors in measured.items() for name, value in errors.items()}
        held |= {"sequences": result.clips, "seconds": round(result.seconds, 1)}
    held |= {"machine": cpu_name(), "threads": threads, "torch": torch.__version__, "settings": digest(module.config)}
    replace_file(path, (json.dumps(held) + "\n").encode())
    return held


def with_clips(task: ForecastTask, clips: int | None) -> ForecastTask:
    if clips is None:
        return task
    return replace(task, recipe=replace(task.recipe, clips=clips, chunk=min(clips, task.recipe.chunk)))


def read_kept(path: Path, tasks: Sequence[ForecastTask]) -> list[dict]:
    """The runs that a table's CSV holds.

    Raises:
        ValueError: If some are of other settings than the tasks', which would be lost.
    """
    by_name, kept = {task.name: task for task in tasks}, read_csv(path)
    for held in kept:
        task = by_name.get(held["task"])
        if task is not None and digest(task.module(held["row"], held["seed"]).config) != held["settings"]:
            raise ValueError(
                f"expected the runs in {path} to have these settings, which {held['task']}, {held['row']} with seed "
                f"{held['seed']} has not: choose another --results, or remove that line"
            )
    return kept


def table(tasks: Sequence[ForecastTask], found: Sequence[dict], measures: Sequence[str]) -> str:
    """One table per task: naive rows, then trained ones as mean ± standard deviation of the seeds."""
    parts = []
    for task in tasks:
        by_row: dict[str, list[dict]] = {}
        for held in found:
            if held["task"] == task.name:
                by_row.setdefault(held["row"], []).append(held)
        if not by_row:
            continue
        lines = [["row", *measures, "seeds", "parameters", "min a run"]]
        for name, errors in task.naive().items():
            lines.append([name, *(_number(errors.get(measure)) for measure in measures), "", "", ""])
        for row, runs in by_row.items():
            ended = [run for run in runs if "diverged" not in run]
            cells = [
                _spread([run[f"test_{measure}"] for run in ended]) if f"test_{measure}" in ended[0] else ""
                for measure in measures
                if ended
            ] or ["diverged"] * len(measures)
            seeds = str(len(ended)) + f" ({len(runs) - len(ended)} diverged)" * (len(ended) < len(runs))
            minutes = f"{statistics.mean(run['seconds'] for run in ended) / 60:.1f}" if ended else ""
            base, _, rnn = row.partition(":")
            title = f"{task.rows[base].title}{f', {rnn}' if rnn else ''} (`{row}`)"
            lines.append([title, *cells, seeds, f"{runs[0]['parameters']:,}", minutes])
        parts.append(f"## {task.title}\n\n{markdown(lines)}\n")
    return "\n".join(parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}"


def _spread(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    if len(values) == 1:
        return _number(mean)
    spread = statistics.stdev(values)
    return f"{_number(mean)} ± {_number(spread) if abs(mean) < 0.1 else f'{spread:.3f}'}"


def write(name: str, tasks: Sequence[ForecastTask], found: Sequence[dict], folder: Path) -> list[Path]:
    """Write the runs as they are and the tables; return the paths."""
    runs = sorted(found, key=lambda run: (run["task"], run["seed"]))
    columns = list(dict.fromkeys(chain.from_iterable(runs)))
    measures = [column.removeprefix("test_") for column in columns if column.startswith("test_")]
    measures.remove("loss")
    paths = [folder / f"{name}.csv", folder / f"{name}.md"]
    write_csv([{column: run.get(column, "") for column in columns} for run in runs], paths[0])
    machines, threads, torches, sequences, sources = (
        " and ".join(sorted({str(run[key]) for run in runs if key in run}))
        for key in ("machine", "threads", "torch", "sequences", "source")
    )
    others = {run["sequences"] for run in runs if "sequences" in run} - {task.recipe.clips for task in tasks}
    cut = " with `--clips`" if others else ""
    cells = [row for row in dict.fromkeys(run["row"] for run in runs) if ":" in row]
    more = f"; other cells with `--rows {' '.join(cells)}`" if cells else ""
    note = (
        f"Errors on the test data by the weights with the least validation loss; mean ± standard deviation of the "
        f"seeds. Every run saw {sequences} training sequences. Data: {sources}. {threads} thread(s) of {machines}, "
        f"torch {torches}.\n\nCommand: `python benchmarks/graph_rows.py {name}`{cut}{more}.\n"
    )
    replace_file(paths[1], f"# Forecasts: {name}\n\n{table(tasks, found, measures)}\n{note}".encode())
    return paths


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=DATA_SETS)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="NAME or NAME:RNN (default: all)")
    parser.add_argument("--parts", nargs="+", metavar="TASK", help="some tasks of the data set alone (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--clips", type=positive, help="another number of training sequences, for a quick look")
    parser.add_argument("--root", default="data", help="where data are downloaded to (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/graph-rows"), help="folder of all runs")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the tables go")
    parser.add_argument("--threads", type=positive, default=1, help="threads of a run (default: %(default)s)")
    args = parser.parse_args(argv)
    makers = importlib.import_module(f"rstg_pyg.training.{args.data}").tasks(args.root)
    tasks: list[ForecastTask] = [make() for make in makers.values()]
    for name in args.parts or ():
        check_name("--parts", name, [task.name for task in tasks])
    asked = [with_clips(task, args.clips) for task in tasks if args.parts is None or task.name in args.parts]
    for row in args.rows or ():
        check_name("--rows", row.partition(":")[0], {name: None for task in asked for name in task.rows})
    keep_freed_memory()
    found = read_kept(args.results / f"{args.data}.csv", asked)
    kept = {held["settings"] for held in found}
    paths: list[Path] = []
    # Seed by seed, so that a table that is stopped early has all rows.
    for seed in dict.fromkeys(args.seeds):
        for task in asked:
            # Not every task has all rows.
            for row in dict.fromkeys(row for row in args.rows or task.rows if row.partition(":")[0] in task.rows):
                lightning.seed_everything(seed, verbose=False)
                module = task.module(row, seed)
                if digest(module.config) in kept:
                    continue
                folder = args.runs / f"{task.name}-{row.replace(':', '-')}-seed{seed}-{digest(module.config)}"
                held = train(module, task, row, seed, folder, args.threads)
                found.append(held)
                print(held, flush=True)
        paths = write(args.data, tasks, found, args.results)
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    import logging

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    end_well(main)
