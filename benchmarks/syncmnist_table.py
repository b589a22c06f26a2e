"""Train every row of the paper's SyncMNIST table on equal terms, and write the table that comes out.

Every row sees the same clips and gets the same number of trials of the optimiser; the trial with the best validation
accuracy is trained with three seeds. Results go to results/ (CSV, Markdown, PNG) and into the README. A table that was
stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import syncmnist_report as report
from rstg_pyg.models import PAPER_SIZE, ROWS, SMALL, Network
from rstg_pyg.training import Recipe, full_recipe, small_recipe
from syncmnist_runs import Run, add_machine_options, read_result, run_all, seeds_of

TRIAL_SEED = 1000


@dataclass(frozen=True)
class Budget:
    """What every row gets.

    Attributes:
        title: What it is called in the table.
        network: Sizes and options of all networks.
        recipe: How every run is trained.
        trial_clips: Clips of a trial of the optimiser; the curriculum is shortened with them.
        trials: Settings of the optimiser that are tried for each row.
    """

    title: str
    network: Network
    recipe: Recipe
    trial_clips: int
    trials: Mapping[str, Mapping[str, Any]]

    def main_runs(self, row: str, trial: str, seeds: list[int]) -> list[Run]:
        recipe = replace(self.recipe, **self.trials[trial])
        return seeds_of(Run(f"{row}/{trial}", row, self.network, recipe, 0), seeds)

    def trial_run(self, row: str, trial: str) -> Run:
        recipe = replace(self.recipe.with_clips(self.trial_clips), test_clips=480, **self.trials[trial])
        return Run(f"{row}/trial-{trial}", row, self.network, recipe, TRIAL_SEED)


TRIALS = {
    "muon": {"optimizer": "muon"},
    "muon-slow": {"optimizer": "muon-hidden", "muon_lr": 0.003},
    "adamw": {"optimizer": "adamw", "lr": 1e-3},
}
BUDGETS = {
    "cpu": Budget(
        "2 digits, half of the clips without a pair in step, 32 x 32 frames, networks of 64 channels",
        SMALL,
        replace(small_recipe(2), test_clips=4_000),
        trial_clips=15_000,
        trials=TRIALS,
    ),
    "gpu": Budget(
        "5SyncMNIST, 64 x 64 frames, networks of 512 channels",
        PAPER_SIZE,
        full_recipe(5),
        trial_clips=256_000,
        trials=TRIALS,
    ),
}


def best_trials(budget: Budget, rows: list[str], args: argparse.Namespace) -> dict[str, str]:
    """For each row, the trial with the highest validation accuracy."""
    runs = {(row, trial): budget.trial_run(row, trial) for row in rows for trial in budget.trials}
    results = dict(zip(runs, run_all(runs.values(), args, "trials of the optimiser"), strict=True))
    return {row: max(budget.trials, key=lambda t, row=row: results[row, t]["val_accuracy"]) for row in rows}


def collect(budget: Budget, seeds: list[int], runs: Path) -> dict[str, list[dict]]:
    """What is finished of each row: for each, the results of one trial's seeds and their learning curves."""
    found = {}
    for row in ROWS:
        for trial in budget.trials:
            results = [(run, read_result(runs, run)) for run in budget.main_runs(row, trial, seeds)]
            done = [{**held, "trial": trial, "curve": report.curve(runs / run.folder)} for run, held in results if held]
            if len(done) > len(found.get(row, [])):
                found[row] = done
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=BUDGETS, default="cpu", help="cpu: under two hours on two cores (default)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--clips", type=int, help="another number of clips per run, for a quick look")
    parser.add_argument("--trial-clips", type=int, help="another number of clips per trial, for a quick look")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--readme", type=Path, help="a README whose table is renewed, between the marks in it")
    parser.add_argument("--report-only", action="store_true", help="train nothing: write what is finished")
    add_machine_options(parser)
    args = parser.parse_args()
    budget = BUDGETS[args.budget]
    if args.clips is not None:
        budget = replace(budget, recipe=budget.recipe.with_clips(args.clips))
    if args.trial_clips is not None:
        budget = replace(budget, trial_clips=args.trial_clips)
    args.runs = args.runs / args.budget
    if not args.report_only:
        best = best_trials(budget, args.rows, args)
        # Seed by seed, so that a table that is stopped early has all rows.
        runs = [run for seed in args.seeds for row in args.rows for run in budget.main_runs(row, best[row], [seed])]
        run_all(runs, args, "training")
    found = collect(budget, args.seeds, args.runs)
    trials = {
        (row, trial): read_result(args.runs, budget.trial_run(row, trial)) for row in ROWS for trial in budget.trials
    }
    paths = report.write(args.results, args.budget, budget, found, trials, args.readme)
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"syncmnist_table.py: {error}", file=sys.stderr)
        sys.exit(2)
