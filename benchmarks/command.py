"""What all commands share: options, the machine that they describe, tables and files."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch_geometric

import rstg_pyg
from rstg_pyg.allocator import keep_freed_memory
from rstg_pyg.files import replace_file

TEXTS = {"name", "task", "row", "source", "digits", "precision", "machine", "torch", "diverged", "settings", "curve"}
"""What is no number in a table of runs."""


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


def add_data(parser: argparse.ArgumentParser) -> None:
    """Where the digits of SyncMNIST come from."""
    parser.add_argument("--root", default="data/SyncMNIST", help="where MNIST is downloaded to (default: %(default)s)")
    parser.add_argument("--mnist-dir", help="folder with the MNIST files (default: $RSTG_PYG_MNIST)")
    parser.add_argument("--digits", default="auto", choices=["auto", "mnist", "sklearn"], help="(default: auto)")


def end_well(main: Callable[[], None]) -> None:
    """Run a command; an error that a user can cause is one sentence and exit code 2."""
    try:
        main()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


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


def machine(device: str) -> dict[str, Any]:
    """What the times depend on."""
    description = {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "rstg_pyg": rstg_pyg.__version__,
    }
    if torch.device(device).type == "cuda":
        description |= {"cuda": torch.version.cuda, "gpu": torch.cuda.get_device_name(device)}
    return description


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line is its head."""
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def write_csv(records: Iterable[dict[str, Any]], path: Path) -> None:
    records, text = list(records), io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    replace_file(path, text.getvalue().encode())


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Finished runs as :func:`write_csv` wrote them, what was empty left out; none where there is no file.

    Raises:
        ValueError: If the file is damaged.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    try:
        runs = [
            {key: cell if key in TEXTS else json.loads(cell) for key, cell in line.items() if cell} for line in lines
        ]
        if any("settings" not in run or "seed" not in run for run in runs):
            raise ValueError("a line without its seed or settings")
    except (ValueError, TypeError) as error:
        raise ValueError(f"expected {path} to be a table of runs, got: {error}") from None
    return runs


def digest(settings: Any) -> str:
    """A short name for all that a run's result depends on."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
