"""Writes rows and sweeps to a folder: CSV, JSON with the machine, and pictures."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plots
from compare import Row
from report import record, write_csv, write_json
from sweep import Axis, steps


def write_all(
    folder: Path, description: dict[str, Any], rows: Sequence[Row], sweeps: Sequence[tuple[Axis, Sequence[Row]]]
) -> None:
    """Write ``throughput.csv``, ``throughput.json`` and a picture per sweep or, without sweeps, per setting."""
    records = [record(row) for row in rows]
    write_csv(records, folder / "throughput.csv")
    doublings = [
        {"axis": axis.name, **_title(found[0]), **dataclasses.asdict(step), "doubling": step.cost_of_doubling}
        for axis, found in sweeps
        for step in steps(found, axis)
    ]
    write_json({"machine": description, "rows": records, "steps": doublings}, folder / "throughput.json")
    for axis, found in sweeps:
        plots.draw_cost(found, axis, folder / f"cost-over-{axis.name}-{'-'.join(_title(found[0]).values())}.png")
    if not sweeps:
        for title, found in itertools.groupby(sorted(rows, key=_setting), key=_setting):
            plots.draw_throughput(list(found), folder / f"throughput-over-width-{'-'.join(title)}.png")


def _title(row: Row) -> dict[str, str]:
    problem = row.problem
    return {
        "what": problem.what,
        "form": problem.form,
        "pass": "both" if row.backward else "forward",
        "dtype": problem.dtype_name,
    }


def _setting(row: Row) -> tuple[str, ...]:
    """What the points of one picture of throughput over width have in common."""
    problem = row.problem
    return (*_title(row).values(), f"scales-{problem.graph.name}", f"B{problem.batch}-T{problem.frames}")
