"""Rows as a table, CSV and JSON, and the machine they come from."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch_geometric

import rstg_pyg
from compare import Row

COLUMNS = (
    *("what", "form", "pass", "graph", "nodes", "edges", "batch", "frames", "width", "dtype", "device", "name"),
    *("median_ms", "lower_quartile_ms", "upper_quartile_ms", "frames_per_s", "messages_per_s", "peak_mib"),
    *("share_of_bound", "note"),
)


def machine(device: str) -> dict[str, Any]:
    """What the times depend on."""
    description = {
        "cpu": _cpu_name(),
        "cores": _num_cores(),
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


def table(rows: Sequence[Row]) -> str:
    """The rows of one problem, aligned."""
    head = ("form", "median ms", "quartiles", "frames/s", "messages/s", "peak MiB", "of bound")
    lines = [head]
    for row in rows:
        if row.note:
            lines.append((row.name, row.note, "", "", "", "", ""))
            continue
        lower, median, upper = row.quartiles
        lines.append(
            (
                row.name,
                f"{median:.2f}",
                f"{lower:.2f} - {upper:.2f}",
                f"{row.frames_per_second:,.0f}",
                f"{row.messages_per_second:,.0f}",
                "" if row.peak is None else f"{row.peak / 2**20:.2f}",
                "" if row.share_of_bound is None else f"{row.share_of_bound:.0%}",
            )
        )
    return aligned(lines)


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


def record(row: Row) -> dict[str, Any]:
    """A row under the names of ``COLUMNS``."""
    problem = row.problem
    values: dict[str, Any] = {
        "what": problem.what,
        "form": problem.form,
        "pass": "forward+backward" if row.backward else "forward",
        "graph": problem.graph.name,
        "nodes": problem.graph.num_nodes,
        "edges": problem.graph.num_edges,
        "batch": problem.batch,
        "frames": problem.frames,
        "width": problem.width,
        "dtype": problem.dtype_name,
        "device": problem.device,
        "name": row.name,
        "note": row.note,
    }
    if not row.note:
        lower, median, upper = row.quartiles
        values |= {"median_ms": median, "lower_quartile_ms": lower, "upper_quartile_ms": upper}
        values |= {"frames_per_s": row.frames_per_second, "messages_per_s": row.messages_per_second}
        values |= {"peak_mib": None if row.peak is None else row.peak / 2**20, "share_of_bound": row.share_of_bound}
    return {name: values.get(name) for name in COLUMNS}


def write_csv(records: Iterable[dict[str, Any]], path: Path) -> None:
    records = list(records)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
