"""Train SyncMNIST networks on equal terms, and write the table that comes out.

``rows``: every row of the paper's table, on three digits as published. ``paper``: networks of the paper's size on five
digits, for a GPU. ``recipe``: what each choice of the recipe is worth. ``delay``: the second digit of the pair repeats
the first one's moves G frames later, two digits, on features of a backbone that has learnt the task without a delay.

A table is a CSV of finished runs in results/, with their settings, and a Markdown table. A run that stands in the CSV
is not trained again, so that several machines can take turns; a table that was stopped goes on where it was when the
same command is given again.
"""

from __future__ import annotations

import argparse
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from command import end_well, markdown, positive, read_csv, write_csv
from rstg_pyg.arguments import check_name
from rstg_pyg.files import replace_file
from rstg_pyg.models import PAPER_SIZE, ROWS, SMALL, Network
from rstg_pyg.training import Phase, Recipe, full_recipe, small_recipe
from rstg_pyg.visualize import draw_learning_curves
from syncmnist_runs import Run, add_machine_options, choose_digits, read_result, run_all

MARKS = ("<!-- syncmnist table -->", "<!-- end of syncmnist table -->")
"""Around the table in a page."""
COLUMNS = (
    *("name", "seed", "test_accuracy", "val_accuracy", "test_clips", "clips", "seconds", "parameters"),
    *("digits", "precision", "machine", "torch", "diverged", "settings", "curve"),
)


@dataclass(frozen=True)
class Variant:
    """One line of a table: a row of the paper's table, and what differs from the table's network and recipe."""

    row: str
    network: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A task, what all its lines share, and the lines by name.

    Attributes:
        title: What the task is.
        network: Of all lines, but for what is their own.
        recipe: As the network.
        variants: The lines by name.
        backbone: Kept weights whose backbone all networks take as it is, see :class:`~syncmnist_runs.Run`.
        grid: Whether names are ``"FORM, G = VALUE"``, and the table has a line per form and a column per value.
    """

    title: str
    network: Network
    recipe: Recipe
    variants: Mapping[str, Variant]
    backbone: str | None = None
    grid: bool = False

    def run(self, name: str, seed: int, digits: str = "mnist") -> Run:
        variant = self.variants[name]
        network, recipe = replace(self.network, **variant.network), replace(self.recipe, **variant.recipe)
        return Run(name, variant.row, network, recipe.with_clips(self.recipe.clips), seed, digits, self.backbone)


THREE = replace(small_recipe(3), chunk=10_000, val_clips=1_000, test_clips=10_000)
PAPER_ROWS = {name: Variant(name) for name in ROWS}
DELAYS = (0, 3, 10, 30)
DELAYED = {
    "LSTM": Variant("all-temp-stages", {"rnn": "lstm"}),
    "GRU": Variant("all-temp-stages"),
    "LSTM, chrono": Variant("all-temp-stages", {"rnn": "lstm", "chrono": 40}),
    "GRU, chrono": Variant("all-temp-stages", {"chrono": 40}),
    "linear": Variant("all-temp-stages", {"rnn": "linear"}),
    "time-only": Variant("time-only"),
    "space-only": Variant("space-only"),
    "homogeneous": Variant("homogeneous"),
}
TWO = Recipe(
    (Phase(20_000, 2, 0.5),),
    optimizer="muon-hidden",
    muon_lr=0.012,
    chunk=5_000,
    val_clips=480,
    test_clips=4_000,
)
CHANGES = {
    "the recipe": Variant("positional"),
    "Muon at 0.003": Variant("positional", recipe={"muon_lr": 0.003}),
    "Muon at 0.012": Variant("positional", recipe={"muon_lr": 0.012}),
    "Muon for the graph's matrices alone": Variant("positional", recipe={"optimizer": "muon"}),
    "AdamW at 0.001": Variant("positional", recipe={"optimizer": "adamw", "lr": 1e-3}),
    "no curriculum": Variant("positional", recipe={"phases": (replace(THREE.task, clips=THREE.clips),)}),
    "batches of 8": Variant("positional", recipe={"batch_size": 8}),
    "batches of 32": Variant("positional", recipe={"batch_size": 32}),
    "constant learning rate": Variant("positional", recipe={"schedule": "constant"}),
    "no gradient clipping": Variant("positional", recipe={"gradient_clip": None}),
    "LSTM for GRU": Variant("positional", {"rnn": "lstm"}),
    "two space stages": Variant("positional", {"num_stages": 2}),
    "readout of the last frame": Variant("positional", {"readout": "last"}),
    "no norm in the stages": Variant("positional", {"norm": None}),
    "no residual stages": Variant("positional", {"residual": False}),
    "no batch norm of the node features": Variant("positional", {"input_norm": None}),
    "zeros around the map": Variant("positional", {"padding_mode": "zeros"}),
}

TABLES = {
    "rows": Table("3SyncMNIST, 32 x 32 frames, networks of 64 channels", SMALL, THREE, PAPER_ROWS),
    "paper": Table(
        "5SyncMNIST, 64 x 64 frames, networks of 512 channels",
        PAPER_SIZE,
        full_recipe(5).with_clips(1_625_000),
        PAPER_ROWS,
    ),
    "recipe": Table("3SyncMNIST, 32 x 32 frames, networks of 64 channels", SMALL, THREE, CHANGES),
    "delay": Table(
        "SyncMNIST with a delay of G frames, two digits, half of the clips without a pair; 32 x 32 frames, features of "
        "a frozen backbone, graphs of 64 channels",
        SMALL,
        TWO,
        {
            f"{form}, G = {delay}": replace(variant, recipe={"delay": delay, "num_frames": 40 + delay})
            for delay in DELAYS
            for form, variant in DELAYED.items()
        },
        backbone="syncmnist_small.pt",
        grid=True,
    ),
}


def text_of(table: Table, found: Sequence[dict[str, Any]]) -> str:
    """The table, with "not run" where there is no result, and what holds for all of it."""
    lines = grid_of(table, found) if table.grid else lines_of(table, found)
    facts = f"{table.title}. Accuracy in % on {table.recipe.test_clips:,} test clips."
    if found:
        digits, precision, machine, torch = (
            " and ".join(sorted({str(held[key]) for held in found if key in held}))
            for key in ("digits", "precision", "machine", "torch")
        )
        facts += (
            f" Every run saw {table.recipe.clips:,} clips. Digits of {digits}; {precision}; torch {torch}, {machine}."
        )
    return "\n".join([markdown(lines), "", textwrap.fill(facts, 120), ""])


def lines_of(table: Table, found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One line per variant."""
    num_digits = table.recipe.task.num_digits
    published = table.variants is PAPER_ROWS
    lines = [["row", *["published"] * published, "here, mean ± s.d.", "seeds", "parameters", "min a run"]]
    for name, variant in table.variants.items():
        line = [f"{ROWS[variant.row].title} (`{name}`)" if published else name]
        line += [str(ROWS[variant.row].published[num_digits] or "")] * published
        lines.append(line + cells([held for held in found if held["name"] == name]))
    return lines


def grid_of(table: Table, found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One line per form, one column per value of what its name ends in."""
    forms, values = (list(dict.fromkeys(part)) for part in zip(*map(split_name, table.variants), strict=True))
    lines = [["", *values, "seeds", "parameters"]]
    for form in forms:
        of_form = [cells([held for held in found if held["name"] == f"{form}, {value}"]) for value in values]
        seeds = sorted({seeds for _, seeds, *_ in of_form if seeds})
        seeds = " to ".join(dict.fromkeys((seeds[0], seeds[-1]))) if seeds else ""
        lines.append([form, *(accuracy for accuracy, *_ in of_form), seeds, of_form[0][2]])
    return lines


def split_name(name: str) -> tuple[str, str]:
    """The form and the value of a line of a grid."""
    form, _, value = name.rpartition(", ")
    return form, value


def cells(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What a line came to."""
    ended = [run for run in runs if "diverged" not in run]
    if not ended:
        return ["diverged" if runs else "not run", str(len(runs) or ""), "", ""]
    mean, spread = mean_and_spread(accuracies(ended))
    return [
        f"{mean:.1f}" + f" ± {spread:.1f}" * (len(ended) > 1),
        f"{len(ended)}" + f" ({len(runs) - len(ended)} diverged)" * (len(ended) < len(runs)),
        f"{ended[0]['parameters']:,}",
        f"{statistics.mean(run['seconds'] for run in ended) / 60:.0f}",
    ]


def accuracies(runs: Sequence[dict[str, Any]]) -> list[float]:
    """Test accuracies in %, of the runs that did not diverge."""
    return [100 * run["test_accuracy"] for run in runs if "diverged" not in run]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, 0 of one value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def draw(table: Table, found: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the validation accuracy of all runs over their clips; of a grid, test accuracy over the values."""
    if table.grid:
        return draw_grid(table, found, path)
    curves: dict[str, list[tuple[list[int], list[float]]]] = {}
    published: dict[str, float] = {}
    for held in found:
        row, title = ROWS[table.variants[held["name"]].row], held["name"]
        if table.variants is PAPER_ROWS:
            title = row.title
            published[title] = (row.published[table.recipe.task.num_digits] or 0) / 100
        points = [point.split(":") for point in held.get("curve", "").split()]
        curves.setdefault(title, []).append(([int(clips) for clips, _ in points], [float(y) for _, y in points]))
    published = {title: figure for title, figure in published.items() if figure}
    draw_learning_curves(curves, f"Validation accuracy, {table.title}", published=published).savefig(path, dpi=120)


def draw_grid(table: Table, found: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the mean test accuracy of every form over the values, with its spread."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    values = list(dict.fromkeys(value for _, value in map(split_name, table.variants)))
    for number, form in enumerate(dict.fromkeys(form for form, _ in map(split_name, table.variants))):
        of_form = {value: accuracies([run for run in found if run["name"] == f"{form}, {value}"]) for value in values}
        points = [(value, *mean_and_spread(of)) for value, of in of_form.items() if of]
        if points:
            places, means, spreads = zip(*points, strict=True)
            axes.errorbar(places, means, spreads, label=form, marker="o", markersize=4, capsize=2, color=f"C{number}")
    axes.set_ylabel("test accuracy (%)")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def put_between(text: str, table: str) -> str:
    """Replace what stands between the marks.

    Raises:
        ValueError: If the marks are not there, once each and in order.
    """
    begin, end = MARKS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected the page to hold {begin} and then {end}, once each")
    return f"{text[: text.index(begin)]}{begin}\n{table}{text[text.index(end) :]}"


def read_kept(path: Path, table: Table) -> list[dict[str, Any]]:
    """The runs that a table's CSV holds.

    Raises:
        ValueError: If some are of other settings than the table's, which would be lost.
    """
    kept = read_csv(path)
    for held in kept:
        name = held["name"]
        if name not in table.variants or table.run(name, held["seed"], held["digits"]).settings != held["settings"]:
            raise ValueError(
                f"expected the runs in {path} to have this table's settings, which {name!r} with seed {held['seed']} "
                "has not: choose another --results, or remove that line"
            )
    return kept


def write(name: str, table: Table, found: Sequence[dict[str, Any]], args: argparse.Namespace) -> list[Path]:
    """Write the runs that are finished; return the paths."""
    paths = [args.results / f"syncmnist_{name}{end}" for end in (".csv", ".md", ".png")]
    order = list(table.variants)
    found = sorted(found, key=lambda held: (order.index(held["name"]), held["seed"]))
    text = text_of(table, found)
    replace_file(paths[1], f"# SyncMNIST: {name}\n\n{text}".encode())
    if found:
        write_csv([{key: held.get(key, "") for key in COLUMNS} for held in found], paths[0])
        draw(table, found, paths[2])
    if args.page is not None:
        replace_file(args.page, put_between(args.page.read_text(), text).encode())
    return [path for path in (*paths, args.page) if path is not None and path.exists()]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some lines of the table (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--clips", type=positive, help="another number of clips per run, for a quick look")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--page", type=Path, help="a page whose table is renewed, between the marks in it")
    parser.add_argument("--report-only", action="store_true", help="train nothing: write what is finished")
    add_machine_options(parser)
    args = parser.parse_args(argv)
    table = TABLES[args.table]
    if args.clips is not None:
        table = replace(table, recipe=table.recipe.with_clips(args.clips))
    for name in args.only or ():
        check_name("--only", name, table.variants)
    if args.page is not None:
        put_between(args.page.read_text(), "")
    kept = read_kept(args.results / f"syncmnist_{args.table}.csv", table)
    held = {run["settings"] for run in kept}
    digits = choose_digits(args)
    # Seed by seed, so that a table that is stopped early has all rows.
    asked = [
        table.run(name, seed, digits) for seed in dict.fromkeys(args.seeds) for name in args.only or table.variants
    ]
    missing = [run for run in asked if run.settings not in held]
    if not args.report_only:
        run_all(missing, args)
    ended = [result for run in missing if (result := read_result(run, args.runs)) is not None]
    print("\n".join(map(str, write(args.table, table, [*kept, *ended], args))))


if __name__ == "__main__":
    end_well(main)
