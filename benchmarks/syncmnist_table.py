"""Train every row of the paper's SyncMNIST table on equal terms, and write the table that comes out.

Every row sees the same clips and gets the same number of trials of the optimiser, each of them a whole run with the
first seed; the trial with the best validation accuracy is trained with the other seeds. Results go to results/ (CSV,
Markdown, PNG) and into a page. A table that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from command import end_well, positive
from rstg_pyg.datasets.scenes import NO_SYNC
from rstg_pyg.files import replace_file
from rstg_pyg.models import PAPER_SIZE, ROWS, SMALL, Network
from rstg_pyg.training import Recipe, full_recipe, small_recipe
from rstg_pyg.training.metrics import read_rows
from rstg_pyg.visualize import draw_learning_curves
from syncmnist_runs import Run, add_machine_options, choose_digits, read_result, run_all

MARKS = ("<!-- syncmnist table -->", "<!-- end of syncmnist table -->")
"""Around the table in a page."""
QUESTIONS = ("in_step_accuracy", "digits_accuracy")
RUN_COLUMNS = (
    "row",
    "seed",
    "trial",
    "test_accuracy",
    "val_accuracy",
    "test_clips",
    "clips",
    "seconds",
    "parameters",
    "digits",
    "precision",
    "machine",
    "torch",
    "diverged",
    *QUESTIONS,
)


@dataclass(frozen=True)
class Budget:
    """What every row gets.

    Attributes:
        title: What it is called in the table.
        network: Sizes and options of all networks.
        recipe: How every run is trained.
        trials: Settings of the optimiser that are tried for each row.
    """

    title: str
    network: Network
    recipe: Recipe
    trials: Mapping[str, Mapping[str, Any]]

    def run(self, row: str, trial: str, seed: int) -> Run:
        recipe = replace(self.recipe, **self.trials[trial])
        return Run(f"{row}/{trial}/seed{seed}", row, self.network, recipe, seed)


TRIALS = {
    "muon": {"optimizer": "muon", "muon_lr": 0.01},
    "muon-hidden": {"optimizer": "muon-hidden", "muon_lr": 0.003},
}
BUDGETS = {
    "cpu": Budget(
        "2 digits, half of the clips without a pair in step, 32 x 32 frames, networks of 64 channels",
        SMALL,
        replace(small_recipe(2).with_clips(48_000), chunk=6_000, val_clips=800, test_clips=4_000),
        TRIALS,
    ),
    "gpu": Budget(
        "5SyncMNIST, 64 x 64 frames, networks of 512 channels",
        PAPER_SIZE,
        full_recipe(5).with_clips(1_625_000),
        {"muon-hidden": {}},
    ),
}


def best_trial(budget: Budget, row: str, seed: int, args: argparse.Namespace) -> str | None:
    """The trial with the highest validation accuracy, once all are finished; one that diverged has none."""
    results = {trial: read_result(budget.run(row, trial, seed), args) for trial in budget.trials}
    return max(results, key=lambda trial: results[trial].get("val_accuracy", -1)) if all(results.values()) else None


def collect(budget: Budget, seeds: list[int], args: argparse.Namespace) -> dict[str, list[dict]]:
    """For each row whose trials are finished, the results of the best one's seeds and their learning curves."""
    found = {}
    for row in ROWS:
        trial = best_trial(budget, row, seeds[0], args)
        if trial is not None:
            runs = [budget.run(row, trial, seed) for seed in seeds]
            found[row] = [
                {**held, "trial": trial, "curve": curve(args.runs / run.folder)}
                for run in runs
                if (held := read_result(run, args))
            ]
    return found


def curve(folder: Path) -> tuple[list[int], list[float]]:
    """Clips and validation accuracy after each chunk of a run."""
    rows = [row for row in read_rows(folder / "metrics.csv") if "val_accuracy" in row]
    return [row["clips"] for row in rows], [row["val_accuracy"] for row in rows]


def write(
    folder: Path,
    name: str,
    budget: Budget,
    found: Mapping[str, Sequence[dict]],
    trials: Mapping[tuple[str, str], dict],
    readme: Path | None,
) -> list[Path]:
    """Write everything; return the paths."""
    runs = [run for results in found.values() for run in results]
    tried = [{**held, "trial": trial} for (_, trial), held in trials.items()]
    paths = [folder / f"syncmnist_{name}{end}" for end in (".csv", "_trials.csv", ".md", ".png")]
    replace_file(paths[0], as_csv(runs))
    replace_file(paths[1], as_csv(tried))
    text = markdown(budget, found)
    replace_file(paths[2], f'# SyncMNIST, budget "{name}"\n\n{text}'.encode())
    ended = {row: whole(results) for row, results in found.items()}
    curves = {ROWS[row].title: [run["curve"] for run in results] for row, results in ended.items() if results}
    if curves:
        num_digits = budget.recipe.task.num_digits
        published = {r.title: r.published[num_digits] / 100 for r in ROWS.values() if r.published.get(num_digits)}
        figure = draw_learning_curves(curves, f"Validation accuracy, {budget.title}", published=published)
        figure.savefig(paths[3], dpi=120)
    else:
        del paths[3]
    if readme is not None:
        replace_file(readme, put_between(readme.read_text(), text).encode())
        paths.append(readme)
    return paths


def questions(run: dict) -> dict[str, float]:
    """How often the two parts of the answer were right: whether a pair moves in step, and which digits it is of, among
    the clips where there is a pair and the network says so."""
    if "confusion" not in run:
        return {}
    counts = torch.tensor(run["confusion"])
    pairs, none = counts[:NO_SYNC, :NO_SYNC], counts[NO_SYNC, NO_SYNC]
    parts = {"in_step_accuracy": float((pairs.sum() + none) / counts.sum())}
    return parts | ({"digits_accuracy": float(pairs.trace() / pairs.sum())} if pairs.any() else {})


def as_csv(records: Sequence[dict]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, RUN_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**questions(record), **record} for record in records)
    return text.getvalue().encode()


def markdown(budget: Budget, found: Mapping[str, Sequence[dict]]) -> str:
    """One line per row of the paper's table, with "not run" where there is no result."""
    lines = [
        "| row | published 3Sync | published 5Sync | here, mean ± s.d. of the seeds | seeds | clips | min a run | "
        "parameters | optimiser | in step or not | which digits |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        figures = " | ".join("" if row.published[n] is None else f"{row.published[n]}" for n in (3, 5))
        lines.append(f"| {row.title} (`{name}`) | {figures} | {here(found.get(name, []))} |")
    runs = [run for results in found.values() for run in results]
    if not runs:
        return "\n".join([*lines, "", f"{budget.title}: not run.", ""])
    digits, machine, version, clips = (
        " and ".join(sorted({str(run[key]) for run in runs})) for key in ("digits", "machine", "torch", "test_clips")
    )
    seconds = sum(run["seconds"] for run in whole(runs))
    note = (
        f"Here: {budget.title}. Accuracy in % on {clips} test clips. "
        '"in step or not": how often the network is right that some pair moves in step, or that none does. '
        '"which digits": how often it names the right pair, among the clips that have one and for which it names one. '
        f"Digits of {digits}; torch {version} on {machine}. "
        f"These runs took {seconds / 3600:.1f} hours of training together."
    )
    return "\n".join([*lines, "", note, ""])


def here(runs: Sequence[dict]) -> str:
    """What a row came to, as cells."""
    if not runs:
        return "not run | | | | | | |"
    of_all, runs = len(runs), whole(runs)
    if not runs:
        return f"diverged | {of_all} | | | | | |"
    parts = [questions(run) for run in runs]
    minutes = statistics.mean(run["seconds"] for run in runs) / 60
    cells = (
        mean_and_spread([run["test_accuracy"] for run in runs], "**"),
        len(runs) if len(runs) == of_all else f"{len(runs)} ({of_all - len(runs)} diverged)",
        f"{runs[0]['clips']:,}",
        f"{minutes:.1f}",
        f"{runs[0]['parameters']:,}",
        runs[0]["trial"],
        *(mean_and_spread([part[name] for part in parts if name in part]) for name in QUESTIONS),
    )
    return " | ".join(map(str, cells))


def mean_and_spread(shares: Sequence[float], mark: str = "") -> str:
    """Mean and standard deviation in %, as far as there are as many."""
    if not shares:
        return ""
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{mark}{100 * statistics.mean(shares):.1f}{mark}{spread}"


def whole(runs: Sequence[dict]) -> list[dict]:
    """The results of the runs that did not diverge."""
    return [run for run in runs if "diverged" not in run]


def put_between(text: str, table: str) -> str:
    """Replace what stands between the marks.

    Raises:
        ValueError: If the marks are not there, once each and in order.
    """
    begin, end = MARKS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected the page to hold {begin} and then {end}, once each")
    return f"{text[: text.index(begin)]}{begin}\n{table}{text[text.index(end) :]}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--budget",
        choices=BUDGETS,
        default="cpu",
        help="cpu: under two hours on two cores (default); gpu: 16 minutes a run of one H200",
    )
    parser.add_argument("--trials", nargs="+", choices=TRIALS, help="optimisers that every row tries (default: all)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--clips", type=positive, help="another number of clips per run, for a quick look")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--readme", type=Path, help="a page whose table is renewed, between the marks in it")
    parser.add_argument("--report-only", action="store_true", help="train nothing: write what is finished")
    add_machine_options(parser)
    args = parser.parse_args(argv)
    args.rows, args.seeds = list(dict.fromkeys(args.rows)), list(dict.fromkeys(args.seeds))
    if args.readme is not None:
        put_between(args.readme.read_text(), "")
    budget = BUDGETS[args.budget]
    if args.trials is not None:
        missing = [name for name in args.trials if name not in budget.trials]
        if missing:
            parser.error(
                f"--trials {missing[0]}: expected one of {', '.join(budget.trials)} with --budget {args.budget}"
            )
        budget = replace(budget, trials={name: budget.trials[name] for name in dict.fromkeys(args.trials)})
    if args.clips is not None:
        budget = replace(budget, recipe=budget.recipe.with_clips(args.clips))
    args.runs = args.runs / args.budget
    first, *others = args.seeds
    if not args.report_only:
        args.digits = choose_digits(args)
        run_all((budget.run(row, t, first) for t in budget.trials for row in args.rows), args, "trials, first seed")
        best = {row: best_trial(budget, row, first, args) for row in args.rows}
        # Seed by seed, so that a table that is stopped early has all rows.
        run_all((budget.run(row, best[row], seed) for seed in others for row in args.rows), args, "other seeds")
    found = collect(budget, args.seeds, args)
    trials = {
        (row, t): held for row in ROWS for t in budget.trials if (held := read_result(budget.run(row, t, first), args))
    }
    paths = write(args.results, args.budget, budget, found, trials, args.readme)
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    end_well(main)
