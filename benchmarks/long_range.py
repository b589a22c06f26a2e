"""How far a symbol is carried through time and space: DelayedRecall for every time stage and every form of RSTG.

- ``single``: a network for every gap G, trained on clips of that gap alone: two nodes, one edge apart; every time stage
  in the alternation all-temp.
- ``mixed``: one network for all, trained on gaps of 0 to 30 frames and distances of 1 and 3 edges in turns, tested at
  gaps and a distance that it never saw: a path of seven nodes, three space stages; every form.

All networks of a part get the same clips and steps. In ``single`` every time stage has the learning rate with the
lowest mean loss in trials at gaps of 30 and 300 frames, by seeds of their own; in ``mixed`` all have the same one.
Finished runs are kept, so that the same command goes on where it stopped. Tables and a plot go to results/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import Linear, Module
from torch_geometric.data import Data
from tqdm import tqdm

from command import cpu_name, end_well, markdown, positive, write_csv
from rstg_pyg import RSTG
from rstg_pyg.datasets import DelayedRecall
from rstg_pyg.files import replace_file
from rstg_pyg.temporal import VirtualNode

FORMS = {
    "LSTM": {"rnn": "lstm"},
    "GRU": {"rnn": "gru"},
    "LSTM, chrono": {"rnn": "lstm", "chrono": True},
    "GRU, chrono": {"rnn": "gru", "chrono": True},
    "linear": {"rnn": "linear"},
    "time-only, linear": {"rnn": "linear", "stages": "time-only"},
    "space-only": {"rnn": "linear", "stages": "space-only"},
    "homogeneous": {"rnn": "linear", "stages": "homogeneous"},
    "homogeneous, then linear": {"rnn": "linear", "stages": ("space-time",) * 3 + ("time",)},
    "linear, plain stages": {"rnn": "linear", "norm": None, "residual": False},
    "linear, virtual node": {"rnn": "linear", "virtual": True},
}
"""By name the options of RSTG: all-temp where no stages are named, with layer norm and residual stages."""
TIME_STAGES = [form for form, options in FORMS.items() if options.keys() <= {"rnn", "chrono"}]
GAPS = (0, 3, 10, 30, 100, 300, 1000)
DISTANCES = (1, 3, 6)
SYMBOLS = 4
RATES, MIXED_RATE = (3e-3, 1e-2, 3e-2), 3e-3
TRIAL_SEEDS, TRIAL_GAPS = (1000, 1001), (30, 300)
SAME_LOSS = 0.01
"""Losses that differ by less are equal: that of a guess is 1.39."""
PARTS = ("single", "mixed")


@dataclass(frozen=True)
class Run:
    """One network, trained once: on one gap, or on several gaps and distances, one of each for a batch."""

    part: str
    form: str
    lr: float
    seed: int
    gaps: tuple[int, ...]
    distances: tuple[int, ...]
    nodes: int
    num_stages: int
    channels: int = 16
    steps: int = 1200
    batch_size: int = 32

    def path(self, folder: Path) -> Path:
        form = self.form.replace(",", "").replace(" ", "-")
        gap = f"-{self.gaps[0]}" if self.part == "single" else ""
        return folder / self.part / f"{form}{gap}-{self.lr:g}-{self.seed}.json"


def single(form: str, gap: int, lr: float, seed: int) -> Run:
    return Run("single", form, lr, seed, (gap,), (1,), 2, 1)


def mixed(form: str, seed: int) -> Run:
    return Run("mixed", form, MIXED_RATE, seed, (0, 3, 10, 30), (1, 3), 7, 3, channels=32, steps=2000, batch_size=16)


class Recall(Module):
    """An encoder, RSTG, and what the node that is asked says last."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        options = dict(FORMS[run.form])
        self.virtual = options.pop("virtual", False)
        if options.pop("chrono", False):
            options["chrono"] = max(run.gaps[-1] + 1, 2) if run.part == "single" else GAPS[-1]
        self.encoder = Linear(SYMBOLS + 2, run.channels)
        self.rstg = RSTG(run.channels, num_stages=run.num_stages, **{"norm": "layer_norm", "residual": True, **options})
        self.head = Linear(run.channels, SYMBOLS)

    def forward(self, x: Tensor, asked: Tensor, edge_index: Tensor) -> Tensor:
        if self.virtual:
            edge_index = VirtualNode()(Data(x=x[:, 0], edge_index=edge_index)).edge_index
            x = torch.cat([x, torch.zeros_like(x[:1])])
        out, _ = self.rstg(self.encoder(x), edge_index)
        return self.head(out[asked, torch.arange(len(asked)), -1])


def path_graph(nodes: int) -> Tensor:
    ends = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
    return torch.cat([ends, ends.flip(0)], 1)


def train(run: Run) -> dict:
    """Train and test a network; say what came of it."""
    torch.manual_seed(run.seed)
    edges, model, start = path_graph(run.nodes), Recall(run), time.process_time()
    kinds = [(distance, gap) for distance in run.distances for gap in run.gaps]
    clips = [
        DelayedRecall(edges, *kind, num_symbols=SYMBOLS, num_clips=run.steps * run.batch_size, seed=run.seed)
        for kind in kinds
    ]
    optimizer = torch.optim.AdamW(model.parameters(), run.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, run.lr, total_steps=run.steps, pct_start=0.05)
    order, losses = torch.randint(len(kinds), (run.steps,)).tolist(), []
    for step, kind in enumerate(order):
        x, y, asked = clips[kind].clips(range(step * run.batch_size, (step + 1) * run.batch_size))
        loss = F.cross_entropy(model(x, asked, edges), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    trained = time.process_time() - start
    gaps, distances = (run.gaps, run.distances) if run.part == "single" else (GAPS, DISTANCES)
    return {
        "accuracy": {f"{d}/{gap}": test(model, edges, d, gap) for d in distances for gap in gaps},
        "loss": statistics.mean(losses[-20:]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "cpu seconds": round(trained, 1),
        "machine": cpu_name(),
        "torch": torch.__version__,
    }


@torch.no_grad()
def test(model: Recall, edges: Tensor, distance: int, gap: int) -> float:
    clips = DelayedRecall(edges, distance, gap, num_symbols=SYMBOLS, train=False)
    x, y, asked = clips.clips(range(num_test_clips(gap)))
    return (model.eval()(x, asked, edges).argmax(-1) == y).float().mean().item()


def num_test_clips(gap: int) -> int:
    return 512 if gap < 100 else 128 if gap < 1000 else 32


def result(run: Run, folder: Path, trains: bool = True) -> dict | None:
    """What a run came to: read, or trained if it was not."""
    path, settings = run.path(folder), json.loads(json.dumps({**asdict(run), "options": FORMS[run.form]}))
    if path.exists():
        held = json.loads(path.read_text())
        if held["run"] != settings:
            raise ValueError(f"{path} holds a run of other settings: choose another --runs, or remove it")
        return held
    if not trains:
        return None
    held = {"run": settings, **train(run)}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(held) + "\n").encode())
    return held


def best_rates(forms: Iterable[str], find: Callable[[Run], dict | None]) -> dict[str, float]:
    """For every time stage the learning rate with the lowest mean loss in its trials; of equals the lowest rate, as
    where none learns anything."""
    rates = {}
    for form in forms:
        trials = {lr: [find(single(form, gap, lr, seed)) for gap in TRIAL_GAPS for seed in TRIAL_SEEDS] for lr in RATES}
        if all(map(all, trials.values())):
            losses = {lr: statistics.mean(held["loss"] for held in found) for lr, found in trials.items()}
            rates[form] = min(lr for lr, loss in losses.items() if loss < min(losses.values()) + SAME_LOSS)
    return rates


def cells(results: list[dict]) -> list[dict]:
    """A row for every form, distance and gap: the accuracy in percent, mean and spread over seeds."""
    rows: dict[tuple, dict] = {}
    for held in results:
        run = held["run"]
        for place, accuracy in held["accuracy"].items():
            distance, gap = map(int, place.split("/"))
            key = (run["part"], run["form"], distance, gap)
            row = rows.setdefault(key, dict(zip(("part", "form", "distance", "gap"), key, strict=True)))
            row.setdefault("all", []).append(100 * accuracy)
            row |= {"lr": run["lr"], "parameters": held["parameters"], "cpu seconds": held["cpu seconds"]}
    for row in rows.values():
        accuracies = row.pop("all")
        row |= {"mean": round(statistics.mean(accuracies), 1), "seeds": len(accuracies)}
        row["spread"] = round(statistics.stdev(accuracies), 1) if len(accuracies) > 1 else ""
    return list(rows.values())


def table(rows: list[dict], distance: int) -> str:
    gaps = sorted({row["gap"] for row in rows})
    lines = [["form", "lr", *(f"G = {gap}" for gap in gaps)]]
    for form in [form for form in FORMS if any(row["form"] == form for row in rows)]:
        found = {row["gap"]: row for row in rows if (row["form"], row["distance"]) == (form, distance)}
        line = [form, f"{next(row['lr'] for row in rows if row['form'] == form):g}"]
        for gap in gaps:
            row = found.get(gap)
            spread = "" if row is None or row["spread"] == "" else f" ± {row['spread']:.0f}"
            line.append("" if row is None else f"{row['mean']:.0f}{spread}")
        lines.append(line)
    return markdown(lines)


def report(rows: list[dict], results: list[dict]) -> str:
    parts = ["# How far a symbol is carried", ""]
    for part in PARTS:
        held = [row for row in rows if row["part"] == part]
        if not held:
            continue
        run = next(r["run"] for r in results if r["run"]["part"] == part)
        what = "a network for every gap" if part == "single" else "one network for all gaps and distances"
        size = f"{run['nodes']} nodes, {run['num_stages']} space stage(s), {run['channels']} channels"
        seeds = sorted({row["seeds"] for row in held})
        parts += [
            f"## `{part}`: {what}",
            "",
            f"Accuracy (%) on test clips, mean ± standard deviation over seeds ({' or '.join(map(str, seeds))}; one "
            f"where there is no ±); a guess is right in {100 // SYMBOLS} %. {size}; {run['steps']} steps of "
            f"{run['batch_size']} clips.",
            "",
        ]
        for distance in sorted({row["distance"] for row in held}):
            parts += [f"d = {distance}:", "", table(held, distance), ""]
    machine = results[0]
    return "\n".join([*parts, f"torch {machine['torch']}, one thread of {machine['machine']}.", ""])


def draw(rows: list[dict], path: Path) -> None:
    panels = list(dict.fromkeys((row["part"], row["distance"]) for row in rows))
    figure = Figure(figsize=(11, 3.6 * -(-len(panels) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(-(-len(panels) // 2), 2, sharey=True, squeeze=False).flatten()
    for axes, (part, distance) in zip(every, panels, strict=False):
        for number, form in enumerate(FORMS):
            of_form = sorted(
                (row["gap"], row["mean"], row["spread"] or 0)
                for row in rows
                if (row["part"], row["distance"], row["form"]) == (part, distance, form)
            )
            if of_form:
                gap, mean, spread = zip(*of_form, strict=True)
                style = {"color": f"C{number % 10}", "marker": "os"[number // 10], "markersize": 5, "capsize": 2}
                style["linestyle"] = "--" if "chrono" in form else "-" if form in TIME_STAGES else ":"
                axes.errorbar(gap, mean, spread, label=form, **style)
        axes.axhline(100 / SYMBOLS, color="black", linewidth=0.8)
        axes.set_xscale("symlog", linthresh=3)
        axes.set_xticks(GAPS, [str(gap) for gap in GAPS])
        what = "a network for every gap" if part == "single" else "one network for all"
        axes.set(
            title=f"{part}: {what}, d = {distance}", xlabel="G, frames in between", xlim=(-0.3, 1300), ylim=(0, 105)
        )
        if part == "mixed":
            axes.axvspan(30, 1300, color="gray", alpha=0.12, linewidth=0)
        axes.grid(alpha=0.3)
    for axes in every[len(panels) :]:
        axes.remove()
    every[0].set_ylabel("accuracy (%)")
    handles = {label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        [handles[form] for form in FORMS if form in handles],
        [form for form in FORMS if form in handles],
        loc="outside right center",
        fontsize="small",
    )
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM")
    parser.add_argument("--gaps", nargs="+", type=int, choices=GAPS, default=GAPS, help="of the part single")
    parser.add_argument("--steps", type=positive, help="other steps of every run, for a quick look")
    parser.add_argument("--seeds", type=positive, default=3, help="(default: 3)")
    parser.add_argument("--threads", type=positive, default=1, help="(default: 1)")
    parser.add_argument("--runs", type=Path, default=Path("runs/long-range"), help="where finished runs are kept")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where tables and the plot go")
    parser.add_argument("--report-only", action="store_true", help="train nothing: write what is finished")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)

    def find(run: Run) -> dict | None:
        run = run if args.steps is None else replace(run, steps=args.steps)
        return result(run, args.runs, not args.report_only)

    rates = best_rates([form for form in args.forms if form in TIME_STAGES], find) if "single" in args.parts else {}
    runs = []
    for seed in range(args.seeds):
        if "single" in args.parts:
            runs += [single(form, gap, lr, seed) for gap in args.gaps for form, lr in rates.items()]
        if "mixed" in args.parts:
            runs += [mixed(form, seed) for form in args.forms]
    results = [held for run in tqdm(runs, unit="run") if (held := find(run)) is not None]
    if not results:
        raise ValueError(f"expected at least one finished run in {args.runs}, got none")
    rows, stem = cells(results), args.results / "long_range"
    args.results.mkdir(parents=True, exist_ok=True)
    write_csv(rows, stem.with_suffix(".csv"))
    replace_file(stem.with_suffix(".md"), report(rows, results).encode())
    draw(rows, stem.with_suffix(".png"))
    print("\n".join(str(stem.with_suffix(suffix)) for suffix in (".csv", ".md", ".png")))


if __name__ == "__main__":
    end_well(main)
