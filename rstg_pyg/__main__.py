"""The command ``python -m rstg_pyg``: what is installed, what runs here, and why something does not."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

import rstg_pyg
from rstg_pyg.ops.gather import BACKENDS, GatherSpec, why_not
from rstg_pyg.ops.recurrent import why_not as why_not_recurrent
from rstg_pyg.ops.scan import BACKENDS as SCANS
from rstg_pyg.ops.scan import why_not as why_not_scan
from rstg_pyg.recurrence.rnn import onednn_lacks_bfloat16

PACKAGES = (
    "torch",
    "torch-geometric",
    "numpy",
    "lightning",
    "matplotlib",
    "scikit-learn",
    "av",
    "torch-scatter",
    "torch-sparse",
    "triton",
)


def versions() -> Iterator[tuple[str, str]]:
    """The package, Python, and what the package uses where it is installed."""
    yield "rstg_pyg", rstg_pyg.__version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "-"


def devices() -> Iterator[tuple[str, str]]:
    """What PyTorch computes on."""
    bfloat16 = ", bfloat16 by slow means" if onednn_lacks_bfloat16() else ""
    capability = torch.backends.cpu.get_cpu_capability()
    yield "cpu", f"{torch.get_num_threads()} of {os.cpu_count()} threads, {capability}{bfloat16}"
    for number in range(torch.cuda.device_count()):
        yield f"cuda:{number}", torch.cuda.get_device_name(number)
    if not torch.cuda.is_available():
        yield "cuda", f"off: torch {'sees no device' if torch.version.cuda else 'is built without it'}"


def backends() -> Iterator[tuple[str, str]]:
    """For every backend of the convolution and of the time stages, on every device, "on" or why it is off."""
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        x = torch.zeros(1, device=device)
        for name in BACKENDS[1:]:
            yield f"{name} ({device})", _state(why_not(name, GatherSpec(), x, False))
        yield f"lstm, gru ({device})", _state(why_not_recurrent(x))
        for name in SCANS:
            yield f"linear, {name} ({device})", _state(why_not_scan(name, x))


def _state(reason: str | None) -> str:
    return "on" if reason is None else f"off: {reason}"


def main(argv: list[str] | None = None) -> None:
    if arguments := sys.argv[1:] if argv is None else argv:
        sys.exit(f"python -m rstg_pyg takes no arguments, got {' '.join(arguments)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = {"versions": [*versions()], "devices": [*devices()], "backends": [*backends()]}
    width = max(len(name) for entries in rows.values() for name, _ in entries)
    for title, entries in rows.items():
        print(title)
        for name, value in entries:
            print(f"  {name:<{width}}  {value}")
    for warning in caught:
        print(f"warning: {warning.message}")


if __name__ == "__main__":
    main()
