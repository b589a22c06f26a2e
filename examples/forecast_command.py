"""What the examples of forecasts share: one command line, training that goes on where it was, a test beside forecasts
that nothing was trained for, pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from run_command import (  # before torch
    NETWORK_CHOICES,
    add_machine_options,
    add_options,
    add_result_options,
    add_training_options,
    check_cuda,
    chosen,
    folder_of,
    prepare_machine,
    run_or_test,
    script_parser,
)

# isort: split
from rstg_pyg.files import naming, replace_file
from rstg_pyg.models import GraphNetwork
from rstg_pyg.training import (
    ForecastTask,
    RunResult,
    SequenceForecaster,
    SequenceRecipe,
)

NETWORK_OPTIONS = ("channels", "num_stages", "rnn", "heads", "dropout")

Tasks = Callable[[str, str | None], Mapping[str, Callable[[], ForecastTask]]]
"""From the folder of downloads, and the folder that has the files or None, to what makes the tasks of a data set."""
Draw = Callable[[ForecastTask, SequenceForecaster, Path], list[Path]]
"""Draws what a model predicts of the test data into a folder; returns the paths."""


def make_parser(name: str, description: str, model: str) -> argparse.ArgumentParser:
    parser = script_parser(f"{name}.py", description)
    parser.add_argument("--model", default=model, metavar="NAME", help="row, or row:cell (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="name the models and their sizes")
    data = parser.add_argument_group("data")
    data.add_argument("--root", default="data", help="where data are downloaded to (default: %(default)s)")
    data.add_argument("--data-dir", help="a folder that holds the files (default: below $RSTG_PYG_DATA)")
    data.add_argument("--part", metavar="NAME", help="which of the tasks, where there are several (default: the first)")
    add_options(data, SequenceRecipe, ["clips", "val_clips", "test_clips"])
    data.add_argument("--workers", type=int, default=0, help="processes that make batches (default: 0)")
    network = parser.add_argument_group("network (default: the task's)")
    add_options(network, GraphNetwork, NETWORK_OPTIONS, {"rnn": NETWORK_CHOICES["rnn"]})
    add_training_options(parser, SequenceRecipe, ["loss"])
    add_machine_options(parser).set_defaults(precision="32-true")
    results = add_result_options(parser)
    results.add_argument("--weights", type=Path, help="do not train: test and draw the model of this file")
    parser.set_defaults(preset="small")
    return parser


def choose_task(args: argparse.Namespace, tasks: Tasks) -> ForecastTask:
    found = tasks(args.root, args.data_dir)
    name = next(iter(found)) if args.part is None else args.part
    if name not in found:
        raise ValueError(f"--part: expected one of {', '.join(found)}, got {name!r}")
    task = found[name]()
    # --num-nodes is the number of machines, not of a graph's nodes.
    network = {option: value for option, value in chosen(args, GraphNetwork).items() if option in NETWORK_OPTIONS}
    recipe = {"chunk": min(task.recipe.chunk, args.clips)} if args.clips else {}
    return replace(
        task,
        network=replace(task.network, **network),
        recipe=replace(task.recipe, **{**recipe, **chosen(args, SequenceRecipe)}),
    )


def list_models(task: ForecastTask) -> str:
    lines = [f"{'--model':<18}{'parameters':>12}"]
    for name, row in task.rows.items():
        count = sum(p.numel() for p in row.build(task.network).parameters())
        lines.append(f"{name:<18}{count:>12,}  {row.title}")
    return "\n".join(lines)


def report(task: ForecastTask, model: str, result: RunResult) -> str:
    """The errors on the test data, beside those of forecasts that nothing was trained for."""
    count, tested = len(task.test), task.recipe.test_clips or len(task.test)
    of = f" (the first {tested:,} of {count:,})" if tested < count else ""
    rows = {model + of: result.test, **task.naive()}
    names = [name for name in result.test if name != "loss"]
    width = max(map(len, rows)) + 2
    lines = [f"{'on the test data':<{width}}" + "".join(f"{name:>14}" for name in names)]
    for row, errors in rows.items():
        cells = "".join(f"{errors[name]:>14.4g}" if name in errors else f"{'':>14}" for name in names)
        lines.append(f"{row:<{width}}{cells}")
    return "\n".join(lines)


def forecast(
    name: str,
    description: str,
    tasks: Tasks,
    draw: Draw,
    argv: list[str] | None,
    model: str = "all-temp-stages",
) -> dict[str, float]:
    """Run a command on a data set, by default on a row; return what was measured on its test data."""
    parser = make_parser(name, description, model)
    args = parser.parse_args(argv)
    try:
        check_cuda(args)
    except ValueError as error:
        parser.error(str(error))
    task = choose_task(args, tasks)
    if args.list:
        print(list_models(task))
        return {}
    args.out = args.out or folder_of(args.weights, f"{task.name}-{args.model.replace(':', '-')}")
    prepare_machine(args)
    module = task.module(args.model, args.seed)
    print(
        f"{args.model} on {task.title}: {len(task.train):,} training sequences ({task.source}), "
        f"{sum(p.numel() for p in module.model.parameters()):,} parameters"
    )
    if args.compile:
        module.model.compile()
    ended = run_or_test(args, module, task.data(args.seed, args.workers), "sequences")
    if ended is None:
        return {}
    result, held = ended
    print(report(task, args.model, result))
    if args.weights is None:
        held = {"val": result.val, **held}
        print(f"trained in {result.seconds / 60:.1f} min; weights: {args.out / 'weights.pt'}")
    with naming(args.out):
        pictures = draw(task, module, args.out)
    print(f"pictures: {', '.join(map(str, pictures))}")
    replace_file(args.out / "result.json", f"{json.dumps({'test': result.test, **held})}\n".encode())
    return result.test
