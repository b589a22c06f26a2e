"""SyncMNIST with a delay: the second digit of the pair repeats the first one's moves G frames later.

Trains every time stage and every form of RSTG at the table's CPU budget, for each delay, with Muon for the graph's
matrices. Results go to results/ (CSV and Markdown). A table that was stopped goes on where it was when the same command
is given again.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from command import end_well, markdown, positive
from rstg_pyg.files import replace_file
from syncmnist_runs import Run, add_machine_options, choose_digits, read_result, run_all
from syncmnist_table import BUDGETS, as_csv, whole

FORMS = {
    "LSTM": ("all-temp-stages", "lstm"),
    "GRU": ("all-temp-stages", "gru"),
    "linear": ("all-temp-stages", "linear"),
    "time-only, linear": ("time-only", "linear"),
    "space-only": ("space-only", "gru"),
    "homogeneous": ("homogeneous", "gru"),
}
"""By name the row of the table and the time stage."""
DELAYS = (0, 3, 10, 30)


def make_run(form: str, delay: int, seed: int, clips: int | None) -> Run:
    row, rnn = FORMS[form]
    budget = BUDGETS["cpu"]
    recipe = replace(budget.recipe, **budget.trials["muon"], delay=delay)
    folder = f"{form.replace(',', '').replace(' ', '-')}/delay{delay}/seed{seed}"
    return Run(folder, row, replace(budget.network, rnn=rnn), recipe.with_clips(clips or recipe.clips), seed)


def table(results: dict[tuple[str, int], list[dict]]) -> str:
    delays = sorted({delay for _, delay in results})
    lines = [["form", *(f"G = {delay}" for delay in delays)]]
    for form in dict.fromkeys(form for form, _ in results):
        line = [form]
        for delay in delays:
            ended = [100 * held["test_accuracy"] for held in whole(results.get((form, delay), []))]
            spread = f" ± {statistics.stdev(ended):.1f}" if len(ended) > 1 else ""
            line.append(f"{statistics.mean(ended):.1f}{spread} ({len(ended)})" if ended else "")
        lines.append(line)
    some = next(held for found in results.values() for held in found)
    note = (
        f"Accuracy (%) on {some['test_clips']:,} test clips, mean ± standard deviation (number of seeds); "
        f"{BUDGETS['cpu'].title}, 10 + G frames. Digits of {some['digits']}; torch {some['torch']} on "
        f"{some['machine']}."
    )
    return "\n".join(["# SyncMNIST with a delay of G frames", "", markdown(lines), "", note, ""])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM")
    parser.add_argument("--delays", nargs="+", type=int, choices=DELAYS, default=DELAYS)
    parser.add_argument("--seeds", type=positive, default=3, help="(default: 3)")
    parser.add_argument("--clips", type=positive, help="another number of clips per run, for a quick look")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--report-only", action="store_true", help="train nothing: write what is finished")
    add_machine_options(parser)
    args = parser.parse_args(argv)
    args.runs = args.runs / "delay"
    runs = {
        (form, delay, seed): make_run(form, delay, seed, args.clips)
        for seed in range(args.seeds)
        for delay in args.delays
        for form in args.forms
    }
    if not args.report_only:
        args.digits = choose_digits(args)
        run_all(runs.values(), args, "training")
    found: dict[tuple[str, int], list[dict]] = {}
    for (form, delay, _), run in runs.items():
        if held := read_result(run, args):
            found.setdefault((form, delay), []).append(held)
    if not found:
        raise ValueError(f"expected at least one finished run in {args.runs}, got none")
    paths = [args.results / "syncmnist_delay.csv", args.results / "syncmnist_delay.md"]
    rows = [{**held, "row": f"{form}, delay {delay}"} for (form, delay), runs in found.items() for held in runs]
    replace_file(paths[0], as_csv(rows))
    replace_file(paths[1], table(found).encode())
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    end_well(main)
