"""Options that the commands share, and their checks."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from rstg_pyg.allocator import keep_freed_memory


def positive(text: str) -> int:
    """A positive int."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive int, got {text!r}")
    return int(text)


def scales(text: str) -> tuple[int, ...]:
    """Grids of regions: ``3-2-1``."""
    parts = text.split("-")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or parts == ["1"]:
        raise argparse.ArgumentTypeError(f"expected scales such as 3-2-1, got {text!r}")
    return tuple(int(part) for part in parts)


def device(text: str) -> str:
    """A device that torch sees."""
    try:
        kind = torch.device(text).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected 'cpu' or 'cuda', got {text!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch sees no CUDA device")
    return text


def folder(text: str) -> Path:
    """A folder that is there or can be made."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot make the folder {text!r}: {error.strerror}") from error
    return path


def add_machine(parser: argparse.ArgumentParser) -> None:
    """What to run on, see :func:`prepare`."""
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="have glibc keep what tensors free (rstg_pyg.allocator.keep_freed_memory), for all forms alike",
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options that all commands on layers and blocks have."""
    add_machine(parser)
    parser.add_argument("--widths", type=positive, nargs="+", help="channels (default: 64 256 512; in a sweep 64)")
    parser.add_argument("--scales", type=scales, nargs="+", help="grids of regions (default: 3-2-1)")
    parser.add_argument("--batch", type=positive, help="clips")
    parser.add_argument("--output", type=folder, metavar="FOLDER", help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="small settings that end within a minute")


def prepare(args: argparse.Namespace) -> None:
    """Do what ``--threads`` and ``--keep-memory`` say, and have every command draw the same random numbers."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.keep_memory and not keep_freed_memory():
        print("--keep-memory has no effect here: it needs glibc", file=sys.stderr)
    torch.manual_seed(0)


def memory_limit(device: str, gibibytes: float | None) -> float:
    """Bytes above which a form is left out; half of the machine's memory by default."""
    if gibibytes is not None:
        return gibibytes * 2**30
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
