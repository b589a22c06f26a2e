"""Train every row of the paper's SyncMNIST table on equal terms, and write the table that comes out.

Every row sees the same clips and gets the same number of trials of the optimiser, each of them a whole run with the
first seed; the trial with the best validation accuracy is trained with the other seeds. Results go to results/ (CSV,
Markdown, PNG) and into a README. A table that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import syncmnist_report as report
from options import positive
from rstg_pyg.models import PAPER_SIZE, ROWS, SMALL, Network
from rstg_pyg.training import Recipe, full_recipe, small_recipe
from syncmnist_runs import Run, add_machine_options, choose_digits, read_result, run_all


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
                {**held, "trial": trial, "curve": report.curve(args.runs / run.folder)}
                for run in runs
                if (held := read_result(run, args))
            ]
    return found


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
    parser.add_argument("--readme", type=Path, help="a README whose table is renewed, between the marks in it")
    parser.add_argument("--report-only", action="store_true", help="train nothing: write what is finished")
    add_machine_options(parser)
    args = parser.parse_args(argv)
    args.rows, args.seeds = list(dict.fromkeys(args.rows)), list(dict.fromkeys(args.seeds))
    if args.readme is not None:
        report.put_between(args.readme.read_text(), "")
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
    paths = report.write(args.results, args.budget, budget, found, trials, args.readme)
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"syncmnist_table.py: {error}", file=sys.stderr)
        sys.exit(2)
