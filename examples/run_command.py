"""A script's way out: 0, or one sentence of what was wrong and 2."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable


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
