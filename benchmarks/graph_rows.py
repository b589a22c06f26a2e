"""Train forecasters on graphs on equal terms, row by row and seed by seed, and write the tables that come out.

Every row sees the same sequences in the same order and gets the same recipe; the weights with the least validation loss
are tested, once, at the end. Results go to results/ (CSV and Markdown). A table that was stopped goes on where it was
when the same command is given again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import lightning
import torch

from command import cpu_name, end_well, markdown, positive, write_csv
from rstg_pyg.allocator import keep_freed_memory
from rstg_pyg.files import replace_file
from rstg_pyg.training import DivergenceError, ForecastTask, open_run, run_trainer, save_weights, train_and_test
from rstg_pyg.training.weights import check_settings

DATA_SETS = ("traffic", "pedestrians", "particles")
"""Modules of ``rstg_pyg.training`` whose ``tasks(root)`` are the parts of a table."""
PARTS = ("test", "val")
"""Of a result: what was measured, by name."""


def train(task: ForecastTask, row: str, seed: int, folder: Path, threads: int) -> dict:
    """Train a row to its end, test it, and write what came of it: that it diverged is a result too. What is finished is
    read, what was begun goes on.

    Raises:
        CheckpointError: If the folder is of a run with other settings.
    """
    torch.set_num_threads(threads)
    lightning.seed_everything(seed, verbose=False)
    module = task.module(row, seed)
    path = folder / "result.json"
    if path.exists():
        held = json.loads(path.read_text())
        check_settings(held.pop("config"), module.config, f"{folder} (choose another --runs, or remove it)")
        return held
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
        held |= {"test": result.test, "val": result.val, "sequences": result.clips, "seconds": round(result.seconds, 1)}
    held |= {"machine": cpu_name(), "threads": threads, "torch": torch.__version__}
    replace_file(path, (json.dumps({**held, "config": module.config}) + "\n").encode())
    return held


def table(tasks: Sequence[ForecastTask], found: Mapping[str, Sequence[dict]], measures: Sequence[str]) -> str:
    """One table per task: naive rows, then trained ones as mean ± standard deviation of the seeds."""
    parts = []
    for task in tasks:
        lines = [["row", *measures, "seeds", "parameters", "min a run"]]
        for name, errors in task.naive().items():
            lines.append([name, *(_number(errors.get(measure)) for measure in measures), "", "", ""])
        by_row: dict[str, list[dict]] = {}
        for held in found[task.name]:
            by_row.setdefault(held["row"], []).append(held)
        for row, runs in by_row.items():
            ended = [run for run in runs if "diverged" not in run]
            cells = [
                _spread([run["test"][measure] for run in ended]) if measure in ended[0]["test"] else ""
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


def write(
    name: str, tasks: Sequence[ForecastTask], found: Mapping[str, Sequence[dict]], folder: Path, options: str = ""
) -> list[Path]:
    """Write the runs as they are and the tables, with the command and its options; return the paths."""
    runs = [run for results in found.values() for run in results]
    measures = list(dict.fromkeys(measure for run in runs for measure in run.get("test", {}) if measure != "loss"))
    flat = [{**run, **{f"{part}_{name}": v for part in PARTS for name, v in run.get(part, {}).items()}} for run in runs]
    columns = [column for column in dict.fromkeys(chain.from_iterable(flat)) if column not in PARTS]
    paths = [folder / f"{name}.csv", folder / f"{name}.md"]
    folder.mkdir(parents=True, exist_ok=True)
    write_csv([{column: run.get(column, "") for column in columns} for run in flat], paths[0])
    machines, threads, torches, sequences, sources = (
        " and ".join(sorted({str(run[key]) for run in runs if key in run}))
        for key in ("machine", "threads", "torch", "sequences", "source")
    )
    note = (
        f"Errors on the test data by the weights with the least validation loss; mean ± standard deviation of the "
        f"seeds. Every run saw {sequences} training sequences. Data: {sources}. {threads} thread(s) of {machines}, "
        f"torch {torches}.\n\nCommand: `python benchmarks/graph_rows.py {name}{options}`\n"
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
    make: Callable[[str], list[ForecastTask]] = importlib.import_module(f"rstg_pyg.training.{args.data}").tasks
    tasks = [task for task in make(args.root) if args.parts is None or task.name in args.parts]
    if not tasks:
        parser.error(f"--parts: expected some of {', '.join(task.name for task in make(args.root))}")
    if args.clips is not None:
        size = min(args.clips, tasks[0].recipe.chunk)
        tasks = [replace(task, recipe=replace(task.recipe, clips=args.clips, chunk=size)) for task in tasks]
    keep_freed_memory()
    found: dict[str, list[dict]] = {task.name: [] for task in tasks}
    paths: list[Path] = []
    # Seed by seed, so that a table that is stopped early has all rows.
    for seed in dict.fromkeys(args.seeds):
        for task in tasks:
            for row in dict.fromkeys(args.rows or task.rows):
                held = train(
                    task, row, seed, args.runs / task.name / row.replace(":", "-") / f"seed{seed}", args.threads
                )
                found[task.name].append(held)
                print(f"{task.name} {row} seed {seed}: {held.get('diverged') or held['test']}", flush=True)
        given = {"parts": args.parts, "rows": args.rows, "clips": args.clips and [str(args.clips)]}
        options = "".join(f" --{option} {' '.join(values)}" for option, values in given.items() if values)
        paths = write(args.data, tasks, found, args.results, options)
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    import logging

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    end_well(main)
