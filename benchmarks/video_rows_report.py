"""What the networks of the Something-Something table cost, as CSV and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import median_ratio, quartiles
from report import markdown, write_csv

PASSES = ("inference", "training")
LEGEND = """
- **GFLOP** of the convolutions and matrix products of one clip's forward pass, two for a multiply-add.
- **frames/s** of the clips' frames. Training is forward, backward and a step of SGD with momentum.
- **peak MiB**: the most bytes of tensors that live at once in a training step, weights and momentum included.
- **+**: what is added to the bare backbone, C2D or I3D. Times per batch, compared within the same turns.
"""


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        name: What a command line calls it.
        title: What the paper calls it.
        backbone: The name of the row that it adds to, None if it adds nothing.
        parameters: Number of parameters.
        flops: Operations of a clip's forward pass.
        peak: Bytes that live at once in a training step.
        batch: Clips of a call.
        frames: Frames of a clip.
        inference: Times of a forward pass in milliseconds.
        training: Times of a training step in milliseconds.
    """

    name: str
    title: str
    backbone: str | None
    parameters: int
    flops: int
    peak: int
    batch: int
    frames: int
    inference: list[float]
    training: list[float]

    def frames_per_second(self, what: str) -> float:
        return 1000 * self.batch * self.frames / statistics.median(getattr(self, what))


@dataclass(frozen=True)
class Added:
    """What a row costs beyond its backbone.

    Attributes:
        parameters: Number of parameters.
        flops: Operations of a clip's forward pass.
        peak: Bytes of a training step.
        milliseconds: Median difference of times of the same round, by pass.
        share: Median ratio of times of the same round, less one, by pass.
    """

    parameters: int
    flops: int
    peak: int
    milliseconds: dict[str, float]
    share: dict[str, float]


def added(row: Row, rows: Sequence[Row]) -> Added | None:
    """What a row adds to its backbone; None for a backbone."""
    if row.backbone is None:
        return None
    bare = next(other for other in rows if other.name == row.backbone)
    times = {what: (getattr(row, what), getattr(bare, what)) for what in PASSES}
    return Added(
        row.parameters - bare.parameters,
        row.flops - bare.flops,
        row.peak - bare.peak,
        {what: statistics.median(a - b for a, b in zip(*both, strict=True)) for what, both in times.items()},
        {what: median_ratio(*both) - 1 for what, both in times.items()},
    )


def columns(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table as text, its head first."""
    head = ("row", "parameters", "GFLOP", *(f"frames/s, {what}" for what in PASSES), "peak MiB")
    lines = [(*head, "+ parameters", "+ GFLOP", *(f"+ ms, {what}" for what in PASSES), "+ MiB")]
    for row in rows:
        speeds = (f"{row.frames_per_second(what):,.1f}" for what in PASSES)
        cells = (f"{row.title} ({row.name})", f"{row.parameters:,}", f"{row.flops / 1e9:,.3f}", *speeds)
        lines.append((*cells, f"{row.peak / 2**20:,.0f}", *_added_cells(added(row, rows))))
    return lines


def _added_cells(more: Added | None) -> tuple[str, ...]:
    if more is None:
        return ("",) * 5
    times = (f"{more.milliseconds[what]:+,.1f} ({more.share[what]:+.0%})" for what in PASSES)
    return f"{more.parameters:+,}", f"{more.flops / 1e9:+,.3f}", *times, f"{more.peak / 2**20:+,.0f}"


def record(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """A row as a line of the CSV."""
    values = {
        "row": row.name,
        "title": row.title,
        "backbone": row.backbone,
        "batch": row.batch,
        "frames": row.frames,
        "parameters": row.parameters,
        "flops": row.flops,
        "peak_mib": row.peak / 2**20,
    }
    for what in PASSES:
        lower, middle, upper = quartiles(getattr(row, what))
        values |= {f"{what}_ms": middle, f"{what}_lower_ms": lower, f"{what}_upper_ms": upper}
        values[f"{what}_frames_per_s"] = row.frames_per_second(what)
    more = added(row, rows)
    values["added_parameters"] = None if more is None else more.parameters
    values["added_flops"] = None if more is None else more.flops
    values["added_mib"] = None if more is None else more.peak / 2**20
    for what in PASSES:
        values[f"added_{what}_ms"] = None if more is None else more.milliseconds[what]
        values[f"added_{what}_share"] = None if more is None else more.share[what]
    return values


def write(folder: Path, preset: str, setting: str, rows: Sequence[Row]) -> list[Path]:
    """Write ``video_rows_<preset>.csv`` and ``.md``; return the paths."""
    table, text = (folder / f"video_rows_{preset}{end}" for end in (".csv", ".md"))
    write_csv((record(row, rows) for row in rows), table)
    text.write_text(f"# Cost of the video networks\n\n{setting}.\n\n{markdown(columns(rows))}\n{LEGEND}")
    return [table, text]
