"""What the training scripts share: their options, the machine made ready, and how they end, with 0, or with one
sentence of what was wrong and 2."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

# OpenMP reads it once, when torch is loaded. Its threads would spin for milliseconds at the end of every parallel loop,
# and on a machine that others use wait for one that does not run.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "passive"

import joblib
import lightning
import torch

from rstg_pyg.allocator import keep_freed_memory
from rstg_pyg.training import (
    RunData,
    RunModule,
    RunRecipe,
    RunResult,
    evaluate,
    load_model_weights,
    open_run,
    run_trainer,
    save_weights,
    train_and_test,
)
from rstg_pyg.training.ending import ends_by_signals
from rstg_pyg.training.run import claim_folder
from rstg_pyg.training.weights import check_settings

NORMS = ["layer_norm", "batch_norm", "none"]
NETWORK_CHOICES = {"rnn": ["lstm", "gru", "linear"], "norm": NORMS, "input_norm": NORMS, "readout": ["last", "mean"]}
MOST_THREADS = {"small": 4}
"""Of a process, by preset, unless more are asked for: the loops of small networks are too short for more."""


def script_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser without options; names are not to be cut short, so that a new option breaks no command."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_options(group: Any, kind: type, names: Iterable[str], choices: dict[str, Sequence] | None = None) -> None:
    """Add an option for each of some fields of a dataclass, as ``--batch-size`` for ``batch_size``: of the field's type
    and choices, with what the class's docstring says of it. An option that is not given is None."""
    hints, helps = get_type_hints(kind), field_helps(kind)
    for name in names:
        flag = f"--{name.replace('_', '-')}"
        kinds = [each for each in get_args(hints[name]) if each is not NoneType] or [hints[name]]
        options: dict[str, Any] = {"type": kinds[0], "help": helps[name]}
        if hints[name] is bool:
            options = {"action": argparse.BooleanOptionalAction, "help": helps[name]}
        elif get_origin(hints[name]) is Literal:
            options |= {"type": None, "choices": kinds}
        elif get_origin(hints[name]) is tuple:
            options["nargs"] = len(kinds)
        if name in (choices or {}):
            options["choices"] = choices[name]
        group.add_argument(flag, **options)


def field_helps(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of those that it derives from say of its fields, without markup."""
    helps = {}
    for cls in reversed(kind.__mro__):
        _, _, arguments = (inspect.getdoc(cls) or "").partition("Args:\n")
        for name, text in re.findall(r"(?ms)^    (\w+): (.*?)(?=^    \w|^\S|\Z)", arguments):
            plain = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", " ".join(text.split()).replace("``", ""))
            helps[name] = (plain[0].lower() + plain[1:]).rstrip(".").replace("%", "%%")
    return helps


def chosen(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The fields of a dataclass that were given as options; where they may be None, "none" is, and a gradient clip
    of 0."""
    hints = get_type_hints(kind)
    given = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(kind)}
    nothing = {name: {"none"} | ({0.0} if name == "gradient_clip" else set()) for name in given}
    return {
        name: None if NoneType in get_args(hints[name]) and value in nothing[name] else value
        for name, value in given.items()
        if value is not None
    }


def add_training_options(parser: argparse.ArgumentParser, kind: type, further: Iterable[str]) -> None:
    """Those of every recipe, and some of a kind of recipes."""
    group = parser.add_argument_group("training (default: the preset's)")
    add_options(group, kind, [*(field.name for field in dataclasses.fields(RunRecipe)), *further])
    group.add_argument("--seed", type=int, default=0, help="of weights and clips (default: %(default)s)")


def add_machine_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: CUDA if there is one")
    group.add_argument("--devices", type=int, default=1, help="processes per machine, a device each (default: 1)")
    group.add_argument("--num-nodes", type=int, default=1, help="machines (default: 1)")
    group.add_argument("--precision", choices=["32-true", "bf16-mixed"])
    group.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    group.add_argument(
        "--threads",
        type=int,
        help="CPU threads of a process (default: $OMP_NUM_THREADS, else what --workers leaves of the cores; small: at "
        "most 4)",
    )
    return group


def add_result_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("results")
    group.add_argument("--out", type=Path, help="folder of checkpoint, weights and figures (default: in runs/)")
    group.add_argument("--fresh", action="store_true", help="start anew even if the folder holds a checkpoint")
    group.add_argument("--max-minutes", type=float, help="stop after so long; the same command goes on from there")
    return group


def folder_of(weights: Path | None, name: str) -> Path:
    """Where results go: a test of weights leaves alone what a run of that name came to."""
    return Path("runs", name if weights is None else f"tested-{weights.resolve().parent.name}-{weights.stem}")


def check_cuda(args: argparse.Namespace) -> None:
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda was asked for, but torch sees no CUDA device (try --device cpu)")


def prepare_machine(args: argparse.Namespace) -> None:
    """Set the number of CPU threads and the seed, and what makes training faster."""
    threads = choose_threads(args.threads, args.workers, args.devices, args.preset)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    lightning.seed_everything(args.seed, verbose=False)


def choose_threads(asked: int | None, workers: int, processes: int, preset: str) -> int | None:
    """The CPU threads of one of several processes with workers of its own: what was asked for; None, torch's choice,
    where ``OMP_NUM_THREADS`` is set; else what the workers leave of the cores that this program may use."""
    if asked is not None or "OMP_NUM_THREADS" in os.environ:
        return asked
    free = max(1, joblib.cpu_count() // processes - workers)
    return min(free, MOST_THREADS.get(preset, free))


def run_command(name: str, main: Callable, argv: list[str] | None = None) -> int:
    """Run ``main``; return 2 after bad input, with one sentence of what was wrong on stderr. SIGINT and SIGTERM end the
    process at once, with code 130 or 143."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.formatwarning = lambda message, *rest, **more: f"note: {message}\n"
    # What was printed is seen even if the process is ended.
    sys.stdout.reconfigure(line_buffering=True)
    fresh = "--fresh" in (sys.argv if argv is None else argv)
    try:
        with ends_by_signals(f"{name}: stopped; {goes_on(fresh)}"):
            main(argv)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"{name}: {sentence(error)}", file=sys.stderr)
        return 2
    return 0


def run_or_test(
    args: argparse.Namespace, module: RunModule, data: RunData, what: str = "clips"
) -> tuple[RunResult, dict[str, Any]] | None:
    """Train and test a network and save its weights, or test those of ``--weights``, which have to be of this network:
    other options may fit the same weights. Return what was measured and what is known of the weights; None where a run
    has no end yet, or another process tells it."""
    recipe, network = module.recipe, module.model
    if args.weights is not None:
        held = load_model_weights(args.weights, network)
        names = [name for name in ("task", "row", "model", "network") if name in held and name in module.config]
        check_settings({n: held[n] for n in names}, {n: module.config[n] for n in names}, str(args.weights))
        claim_folder(args.out)
        return evaluate(module, data, args.device, args.precision), {"weights": str(args.weights), **held}
    trainer = run_trainer(args.out, recipe, args.device, args.devices, args.num_nodes, args.precision, args.max_minutes)
    checkpoint = open_run(args.out, module, args.fresh)
    if checkpoint is not None:
        print(f"going on from {checkpoint} (--fresh to start anew)")
    result = train_and_test(module, data, trainer, checkpoint)
    if not trainer.is_global_zero:
        return None
    if not result.finished:
        print(f"stopped after {result.clips:,} of {recipe.clips:,} {what}; {goes_on(args.fresh)} from there")
        return None
    save_weights(network, args.out / "weights.pt", module.config)
    return result, {"clips": result.clips, **module.config}


def goes_on(fresh: bool) -> str:
    """What to do after a run was stopped."""
    return "the same command" + " without --fresh" * fresh + " goes on"


def sentence(error: BaseException) -> str:
    """What an error says, without the traceback of a data loader's worker; of workers that fail, also what helps."""
    if "iter(combined_loader)" in str(error) and error.__context__ is not None:
        # Lightning's cleanup, after an error that came before the first batch.
        error = error.__context__
    text = str(error).strip()
    if "Original Traceback" in text:
        kind, colon, message = text.splitlines()[-1].partition(": ")
        text = message if colon else kind
    if any(sign in text for sign in ("DataLoader worker (pid", "Too many open files", "ancdata", "allocate memory")):
        text += "; fewer --workers, or none (0), need less memory and fewer open files (ulimit -n)"
    return text
