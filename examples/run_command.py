"""A script's way in, the machine made ready, and out: 0, or one sentence of what was wrong and 2."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable

# OpenMP reads it once, when torch is loaded. Its threads would spin for milliseconds at the end of every parallel loop,
# and on a machine that others use wait for one that does not run.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "passive"

import joblib
import lightning
import torch

from rstg_pyg.allocator import keep_freed_memory
from rstg_pyg.training.ending import ends_by_signals

MOST_THREADS = {"small": 4}
"""Of a process, by preset, unless more are asked for: the loops of small networks are too short for more."""


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
