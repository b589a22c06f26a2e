"""What each choice of the SyncMNIST recipe is worth: the same training with one choice changed at a time.

Trains the positional network at the table's CPU budget with Muon for the graph's matrices, once per change, with one
seed; runs that the table has made
are taken from there. Results go to results/ (CSV and Markdown). A run that was stopped goes on where it was when the
same command is given again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from command import end_well, positive
from rstg_pyg.datasets.scenes import NO_SYNC_PROBABILITY
from rstg_pyg.files import replace_file
from rstg_pyg.training import Phase, Recipe
from syncmnist_runs import Run, add_machine_options, choose_digits, read_result, run_all
from syncmnist_table import BUDGETS, as_csv, whole

ROW = "positional"
WITHOUT = "all-temp-stages"
"""The same network without positions."""
BASE = "Muon for the graph's matrices, 0.01"
"""What all changes are made to."""
BASE_TRIAL = "muon"
"""The same as a trial of the table."""


def last_phase(recipe: Recipe) -> tuple[Phase, ...]:
    return (replace(recipe.task, clips=recipe.clips),)


def second_phase_of_pairs(recipe: Recipe) -> tuple[Phase, ...]:
    first, second, *others = recipe.phases
    return (first, replace(second, no_sync_probability=NO_SYNC_PROBABILITY), *others)


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    BASE: ({}, {}),
    "no norm in the stages": ({"norm": None}, {}),
    "no residual stages": ({"residual": False}, {}),
    "no norm, no residual (the text's plain stages)": ({"norm": None, "residual": False}, {}),
    "no batch norm of the node features": ({"input_norm": None}, {}),
    "LSTM for GRU": ({"rnn": "lstm"}, {}),
    "two pairs of stages": ({"num_stages": 2}, {}),
    "readout of the last frame": ({"readout": "last"}, {}),
    "AdamW, 0.001": ({}, {"optimizer": "adamw", "lr": 1e-3}),
    "Muon for all hidden layers, 0.003": ({}, {"optimizer": "muon-hidden", "muon_lr": 0.003}),
    "Nesterov momentum, 0.01": ({}, {"optimizer": "nesterov", "lr": 1e-2}),
    "constant learning rate": ({}, {"schedule": "constant"}),
    "no gradient clipping": ({}, {"gradient_clip": None}),
    "no curriculum": ({}, {"phases": last_phase}),
    "a second phase without none": ({}, {"phases": second_phase_of_pairs}),
    "clips reversed in time at random": ({}, {"augment": "reverse"}),
    "no positions": ({"row": WITHOUT}, {}),
    "zeros around the map": ({"padding_mode": "zeros"}, {}),
    "zeros around the map, no positions": ({"row": WITHOUT, "padding_mode": "zeros"}, {}),
}
"""For each change, what differs in the network and in the recipe."""


def make_run(change: str, clips: int | None) -> Run:
    network, options = CHANGES[change]
    row = network.get("row", ROW)
    network = {name: value for name, value in network.items() if name != "row"}
    budget = BUDGETS["cpu"]
    recipe = replace(budget.recipe, **budget.trials[BASE_TRIAL])
    made = {name: value(recipe) if callable(value) else value for name, value in options.items()}
    recipe = replace(recipe, **made)
    name = "-".join("".join(c if c.isalnum() else " " for c in change.lower()).split())
    run = Run(f"recipe/{name}", row, replace(budget.network, **network), recipe.with_clips(clips or recipe.clips), 0)
    of_table = (budget.run(row, trial, 0) for trial in budget.trials)
    return next((same for same in of_table if replace(same, folder=run.folder) == run), run)


def markdown(results: dict[str, dict]) -> str:
    ended = whole(list(results.values()))
    base = results.get(BASE)
    lines = ["| change | test accuracy | difference | min |", "|---|---|---|---|"]
    for change, held in results.items():
        if held not in ended:
            lines.append(f"| {change} | diverged | | |")
            continue
        accuracy = 100 * held["test_accuracy"]
        difference = "" if base not in ended or held is base else f"{accuracy - 100 * base['test_accuracy']:+.1f}"
        lines.append(f"| {change} | {accuracy:.1f} | {difference} | {held['seconds'] / 60:.1f} |")
    some = next(iter(ended), None)
    if some is None:
        return "\n".join(["# What each choice is worth", "", *lines, ""])
    note = (
        f"`{ROW}`, {BUDGETS['cpu'].title}, {some['clips']:,} clips, seed {some['seed']}, accuracy (%) on "
        f"{some['test_clips']:,} test clips; digits of {some['digits']}; torch {some['torch']} on {some['machine']}."
    )
    return "\n".join(["# What each choice is worth", "", *lines, "", note, ""])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="CHANGE")
    parser.add_argument("--clips", type=positive, help="another number of clips per run, for a quick look")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--report-only", action="store_true", help="train nothing: write what is finished")
    add_machine_options(parser)
    args = parser.parse_args(argv)
    args.runs = args.runs / "cpu"
    runs = {change: make_run(change, args.clips) for change in args.changes}
    if not args.report_only:
        args.digits = choose_digits(args)
        run_all(runs.values(), args, "training")
    found = {change: held for change, run in runs.items() if (held := read_result(run, args))}
    if not found:
        raise ValueError(f"expected at least one finished run in {args.runs}, got none")
    paths = [args.results / "syncmnist_recipe.csv", args.results / "syncmnist_recipe.md"]
    replace_file(paths[0], as_csv([{**held, "row": change} for change, held in found.items()]))
    replace_file(paths[1], markdown(found).encode())
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    end_well(main)
