"""The SyncMNIST table as CSV, Markdown, picture, and part of the README."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rstg_pyg.datasets.labels import NO_SYNC
from rstg_pyg.files import replace_file
from rstg_pyg.models import ROWS
from rstg_pyg.training.metrics import read_rows
from rstg_pyg.visualize import draw_learning_curves

if TYPE_CHECKING:
    from syncmnist_table import Budget

MARKS = ("<!-- syncmnist table -->", "<!-- end of syncmnist table -->")
"""Around the table in a README."""
QUESTIONS = ("in_step_accuracy", "digits_accuracy")
RUN_COLUMNS = (
    "row",
    "seed",
    "trial",
    "test_accuracy",
    "val_accuracy",
    "test_clips",
    "clips",
    "seconds",
    "parameters",
    "digits",
    "precision",
    "machine",
    "torch",
    "diverged",
    *QUESTIONS,
)


def curve(folder: Path) -> tuple[list[int], list[float]]:
    """Clips and validation accuracy after each chunk of a run."""
    rows = [row for row in read_rows(folder / "metrics.csv") if "val_accuracy" in row]
    return [row["clips"] for row in rows], [row["val_accuracy"] for row in rows]


def write(
    folder: Path,
    name: str,
    budget: Budget,
    found: Mapping[str, Sequence[dict]],
    trials: Mapping[tuple[str, str], dict],
    readme: Path | None,
) -> list[Path]:
    """Write everything; return the paths."""
    runs = [run for results in found.values() for run in results]
    tried = [{**held, "trial": trial} for (_, trial), held in trials.items()]
    paths = [folder / f"syncmnist_{name}{end}" for end in (".csv", "_trials.csv", ".md", ".png")]
    replace_file(paths[0], as_csv(runs))
    replace_file(paths[1], as_csv(tried))
    text = markdown(budget, found)
    replace_file(paths[2], f'# SyncMNIST, budget "{name}"\n\n{text}'.encode())
    ended = {row: whole(results) for row, results in found.items()}
    curves = {ROWS[row].title: [run["curve"] for run in results] for row, results in ended.items() if results}
    if curves:
        num_digits = budget.recipe.task.num_digits
        published = {r.title: r.published[num_digits] / 100 for r in ROWS.values() if r.published.get(num_digits)}
        figure = draw_learning_curves(curves, f"Validation accuracy, {budget.title}", published=published)
        figure.savefig(paths[3], dpi=120)
    else:
        del paths[3]
    if readme is not None:
        replace_file(readme, put_between(readme.read_text(), text).encode())
        paths.append(readme)
    return paths


def questions(run: dict) -> dict[str, float]:
    """How often the two parts of the answer were right: whether a pair moves in step, and which digits it is of, among
    the clips where there is a pair and the network says so."""
    if "confusion" not in run:
        return {}
    counts = torch.tensor(run["confusion"])
    pairs, none = counts[:NO_SYNC, :NO_SYNC], counts[NO_SYNC, NO_SYNC]
    parts = {"in_step_accuracy": float((pairs.sum() + none) / counts.sum())}
    return parts | ({"digits_accuracy": float(pairs.trace() / pairs.sum())} if pairs.any() else {})


def as_csv(records: Sequence[dict]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, RUN_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**questions(record), **record} for record in records)
    return text.getvalue().encode()


def markdown(budget: Budget, found: Mapping[str, Sequence[dict]]) -> str:
    """One line per row of the paper's table, with "not run" where there is no result."""
    lines = [
        "| row | published 3Sync | published 5Sync | here, mean ± s.d. of the seeds | seeds | clips | min a run | "
        "parameters | optimiser | in step or not | which digits |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        figures = " | ".join("" if row.published[n] is None else f"{row.published[n]}" for n in (3, 5))
        lines.append(f"| {row.title} (`{name}`) | {figures} | {here(found.get(name, []))} |")
    runs = [run for results in found.values() for run in results]
    if not runs:
        return "\n".join([*lines, "", f"{budget.title}: not run.", ""])
    digits, machine, torch, clips = (
        " and ".join(sorted({str(run[key]) for run in runs})) for key in ("digits", "machine", "torch", "test_clips")
    )
    seconds = sum(run["seconds"] for run in whole(runs))
    note = (
        f"Here: {budget.title}; accuracy (%) on {clips} test clips, and that of its two parts: whether a pair is in "
        f"step, and where one is and is said to be, of which digits; digits of {digits}; torch {torch} on {machine}. "
        f"These runs took {seconds / 3600:.1f} hours of training together."
    )
    return "\n".join([*lines, "", note, ""])


def here(runs: Sequence[dict]) -> str:
    """What a row came to, as cells."""
    if not runs:
        return "not run | | | | | | |"
    of_all, runs = len(runs), whole(runs)
    if not runs:
        return f"diverged | {of_all} | | | | | |"
    parts = [questions(run) for run in runs]
    minutes = statistics.mean(run["seconds"] for run in runs) / 60
    cells = (
        mean_and_spread([run["test_accuracy"] for run in runs], "**"),
        len(runs) if len(runs) == of_all else f"{len(runs)} ({of_all - len(runs)} diverged)",
        f"{runs[0]['clips']:,}",
        f"{minutes:.1f}",
        f"{runs[0]['parameters']:,}",
        runs[0]["trial"],
        *(mean_and_spread([part[name] for part in parts if name in part]) for name in QUESTIONS),
    )
    return " | ".join(map(str, cells))


def mean_and_spread(shares: Sequence[float], mark: str = "") -> str:
    """Mean and standard deviation in %, as far as there are as many."""
    if not shares:
        return ""
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{mark}{100 * statistics.mean(shares):.1f}{mark}{spread}"


def whole(runs: Sequence[dict]) -> list[dict]:
    """The results of the runs that did not diverge."""
    return [run for run in runs if "diverged" not in run]


def put_between(text: str, table: str) -> str:
    """Replace what stands between the marks.

    Raises:
        ValueError: If the marks are not there, once each and in order.
    """
    begin, end = MARKS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected the README to hold {begin} and then {end}, once each")
    return f"{text[: text.index(begin)]}{begin}\n{table}{text[text.index(end) :]}"
