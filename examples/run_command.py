"""A script's way in, the machine made ready, and out: 0, or one sentence of what was wrong and 2."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable

import lightning
import torch

from rstg_pyg.allocator import keep_freed_memory


def prepare_machine(threads: int | None, seed: int) -> None:
    """Set the number of CPU threads (None: torch's choice) and the seed, and what makes training faster."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    lightning.seed_everything(seed, verbose=False)


def run_command(name: str, main: Callable, argv: list[str] | None = None) -> int:
    """Run ``main``; return 2 after bad input, with one sentence of what was wrong on stderr."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.formatwarning = lambda message, *rest, **more: f"note: {message}\n"
    try:
        main(argv)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"{name}: {sentence(error)}", file=sys.stderr)
        return 2
    return 0


def sentence(error: BaseException) -> str:
    """What an error says; of one that a data loader's worker met, without the worker's traceback."""
    text = str(error).strip()
    if "Original Traceback" not in text:
        return text
    kind, colon, message = text.splitlines()[-1].partition(": ")
    return message if colon else kind
