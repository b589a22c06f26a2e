"""Compares the package with other forms of the same function, with other layers, and with the arithmetic bound.

One space stage by default, the whole block with --whole-block: every form takes its turn in one run, so that drift of
the machine hits all alike. Forms of the same function share their weights and are checked for equal output and
gradients before anything is timed. benchmarks/README.md says what the forms are and what the columns mean.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

import command
import forms
from command import machine
from compare import Row, Settings, compare, count_turns
from goals import Measured, measure_goals
from problem import AXES, Axis, Problem, grid_graph, points
from results import table, table_of_sweep, write_all

PASSES = {True: "forward + backward", False: "forward"}
NORMAL = {
    "widths": [64, 256, 512],
    "scales": [(3, 2, 1)],
    "frames": 10,
    "batch": 4,
    "dtypes": ["float32"],
    "forms": None,
    "passes": ["both"],
    "form": "default",
    "rounds": 7,
    "calls": 2,
}
QUICK = {"widths": [64, 256], "form": "both", "passes": ["both", "forward"], "frames": 4, "rounds": 3, "calls": 1}
SWEEP = {
    "widths": [64],
    "frames": 4,
    "batch": 2,
    "forms": ["rstg-auto", "rstg-reference", "plain", "dense-split", "gatv2", "transformer-lstm"],
}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_common(parser)
    parser.add_argument("--frames", type=command.positive, help="frames per clip (default: 10; in a sweep 4)")
    parser.add_argument(
        "--dtype",
        dest="dtypes",
        nargs="+",
        choices=["float32", "bfloat16"],
        help="of weights and features alike (default: float32)",
    )
    parser.add_argument("--positions", action="store_true", help="give the nodes their heatmaps (36 channels)")
    parser.add_argument(
        "--form", choices=["default", "relu-last", "both"], help="of the send layers (default: default)"
    )
    parser.add_argument(
        "--pass", dest="passes", nargs="+", choices=["forward", "both"], help="(default: both, forward and backward)"
    )
    parser.add_argument("--forms", nargs="+", metavar="NAME", help="rows of the table (default: all)")
    parser.add_argument("--whole-block", action="store_true", help="K space stages between K + 1 time stages")
    parser.add_argument("--stages", type=command.positive, default=3, help="K of --whole-block (default: 3)")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="default",
        choices=["default", "reduce-overhead", "max-autotune"],
        help="add a row per form under torch.compile in this mode",
    )
    parser.add_argument("--sweep", nargs="+", choices=list(AXES), help="one axis at a time instead of the table")
    parser.add_argument("--irregular", action="store_true", help="sweep nodes over irregular graphs")
    parser.add_argument("--goals", action="store_true", help="measure the goals at their settings and nothing else")
    parser.add_argument("--rounds", type=command.positive, help="turns of every form (default: 7)")
    parser.add_argument("--calls", type=command.positive, help="timed calls per turn (default: 2)")
    parser.add_argument(
        "--memory-limit", type=float, metavar="GIB", help="leave out forms that may need more (default: half of it all)"
    )
    args = parser.parse_args(argv)

    chosen = NORMAL | (QUICK if args.quick else {}) | (SWEEP if args.sweep else {})
    for name, value in chosen.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.irregular and "nodes" not in (args.sweep or ()):
        parser.error("--irregular needs --sweep nodes")
    if args.sweep and (len(args.widths) > 1 or len(args.scales) > 1):
        parser.error("--sweep holds all axes but one: it takes one width and one graph")
    if args.irregular and args.positions:
        parser.error("irregular graphs have no positions")
    if args.goals and (args.sweep or args.whole_block or args.quick):
        parser.error("--goals has settings of its own: it goes with no --sweep, --whole-block or --quick")
    if args.memory_limit is not None and args.memory_limit <= 0:
        parser.error(f"expected --memory-limit to be positive, got {args.memory_limit}")
    known = dict.fromkeys(itertools.chain(*(forms.names(next(problems(args, block))) for block in (False, True))))
    for name in args.forms or ():
        if name not in known:
            parser.error(f"expected --forms among {', '.join(known)}, got {name!r}")
    return args


def problems(args: argparse.Namespace, block: bool) -> Iterator[Problem]:
    """All settings that the arguments ask for."""
    relu_last = {"default": [False], "relu-last": [True], "both": [False, True]}[args.form]
    for dtype, last, scales, width in itertools.product(args.dtypes, relu_last, args.scales, args.widths):
        yield Problem(
            grid_graph(scales, args.positions),
            width,
            args.batch,
            args.frames,
            last,
            args.stages if block else None,
            getattr(torch, dtype),
            args.device,
        )


def run_tables(args: argparse.Namespace, settings: Settings) -> list[Row]:
    """One table per setting."""
    jobs = list(itertools.product(problems(args, args.whole_block), [one == "both" for one in args.passes]))
    rows = []
    with tqdm(total=sum(count_turns([problem], settings) for problem, _ in jobs), disable=None) as bar:
        for problem, backward in jobs:
            found = compare([problem], backward, settings, bar.update)
            print_above(bar, f"{problem}, {PASSES[backward]}", table(found))
            rows += found
    return rows


def run_sweeps(args: argparse.Namespace, settings: Settings) -> list[tuple[Axis, list[Row]]]:
    """One sweep per axis, form and pass."""
    base = list(problems(args, args.whole_block))
    jobs = [
        (axis, points(axis, problem, args.irregular, args.quick), one == "both")
        for axis, problem, one in itertools.product(args.sweep, base, args.passes)
    ]
    sweeps = []
    with tqdm(total=sum(count_turns(found, settings) for _, found, _ in jobs), disable=None) as bar:
        for axis, along, backward in jobs:
            rows = compare(along, backward, settings, bar.update)
            sweeps.append((AXES[axis], rows))
            print_above(bar, title_of_sweep(AXES[axis], rows), table_of_sweep(rows, AXES[axis]))
    return sweeps


def run_goals(args: argparse.Namespace, settings: Settings) -> Measured:
    """Every goal, with the tables that it comes from."""
    with tqdm(desc="turns", disable=None) as bar:

        def show(rows: list[Row]) -> None:
            print_above(bar, f"{rows[0].problem}, {PASSES[True]}", table(rows))

        def show_sweep(axis: Axis, rows: list[Row]) -> None:
            print_above(bar, title_of_sweep(axis, rows), table_of_sweep(rows, axis))

        result = measure_goals(settings, args.device, args.positions, show, show_sweep, bar.update)
    print(f"\n{result.table()}")
    return result


def title_of_sweep(axis: Axis, rows: list[Row]) -> str:
    problem = rows[0].problem
    return (
        f"{problem.what}, {problem.form} form, {axis.held(problem)}, {problem.dtype_name}, {problem.device}, "
        f"{PASSES[rows[0].backward]}, ms"
    )


def print_above(bar: tqdm, title: str, text: str) -> None:
    """Print to stdout without breaking the progress bar on stderr."""
    with bar.external_write_mode():
        print(f"\n{title}\n{text}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    command.prepare(args)
    limit = command.memory_limit(args.device, args.memory_limit)
    settings = Settings(args.forms, args.rounds, args.calls, args.compile, memory_limit=limit)
    description = machine(args.device)
    print(", ".join(f"{name} {value}" for name, value in description.items()))

    if args.goals:
        result = run_goals(args, settings)
        rows, sweeps = result.rows, result.sweeps
    elif args.sweep:
        rows, sweeps = [], run_sweeps(args, settings)
    else:
        rows, sweeps = run_tables(args, settings), []
    if args.output is not None:
        write_all(args.output, description, [*rows, *(row for _, found in sweeps for row in found)], sweeps)
        if args.goals:
            (args.output / "goals.md").write_text(result.table() + "\n")


if __name__ == "__main__":
    main()
