"""Measures the networks of the Something-Something table: parameters, FLOPs, frames per second, memory.

And what each graph adds to its bare backbone. All rows take turns in one run, so that drift of the machine hits all
alike. Random pixels, new weights: no dataset is needed and nothing is learned.
"""

from __future__ import annotations

import argparse
import copy
import operator
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import command
from command import aligned, machine, markdown, write_csv
from measure import Work, median_ratio, peak_bytes, quartiles, time_interleaved
from rstg_pyg.models import VIDEO_PAPER_SIZE, VIDEO_ROWS, VIDEO_SMALL, VideoNetwork


@dataclass(frozen=True)
class Preset:
    """The networks' sizes, the clips, and how often each row is timed."""

    network: VideoNetwork
    frames: int
    size: int
    batch: int
    rounds: int
    calls: int


PRESETS = {
    "small": Preset(VIDEO_SMALL, frames=16, size=64, batch=8, rounds=7, calls=2),
    "full": Preset(VIDEO_PAPER_SIZE, frames=32, size=224, batch=1, rounds=1, calls=2),
}
PASSES = ("inference", "training")
LEGEND = """
- **GFLOP** of the convolutions and matrix products of one clip's forward pass, two for a multiply-add.
- **frames/s** of the clips' frames. Training is forward, backward and a step of SGD with momentum.
- **peak MiB**: the most bytes of tensors that live at once in a training step, weights and momentum included.
- **+**: what is added to the bare backbone, C2D or I3D. Times per batch, compared within the same turns.
"""
TWICE = ", computed twice"
"""What is added to the name of a row whose graph is not kept for the backward pass."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="small", help="sizes of the networks and of a clip")
    parser.add_argument("--rows", nargs="+", choices=list(VIDEO_ROWS), metavar="ROW", help="(default: all)")
    parser.add_argument("--checkpoint", action="store_true", help="measure each graph with checkpoint=True as well")
    for name, text in (
        ("batch-size", "clips"),
        ("frames", "frames of a clip"),
        ("size", "height and width of a frame"),
        ("rounds", "turns of every row"),
        ("calls", "timed calls per turn, after an untimed one"),
    ):
        parser.add_argument(f"--{name}", type=command.positive, help=f"{text} (default: that of the preset)")
    command.add_machine(parser)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument(
        "--results", type=command.folder, metavar="FOLDER", help="write video_rows_<preset>.csv and .md there"
    )
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    chosen = {"batch": args.batch_size} | {name: getattr(args, name) for name in ("frames", "size", "rounds", "calls")}
    args.sizes = replace(preset, **{name: value for name, value in chosen.items() if value is not None})
    smallest = 1 if preset.network.pool_padding else 5
    if args.sizes.frames < 2 or args.sizes.size < smallest:
        parser.error(
            f"expected at least 2 --frames and a --size of at least {smallest}, "
            f"got {args.sizes.frames} and {args.sizes.size}"
        )
    return args


def names_of(args: argparse.Namespace) -> list[str]:
    """The rows to measure, in the order of the table: those asked for, with their bare backbones."""
    wanted = set(args.rows or VIDEO_ROWS)
    wanted |= {backbone(name) for name in wanted}
    names = []
    for name, row in VIDEO_ROWS.items():
        if name in wanted:
            names += [name, name + TWICE] if args.checkpoint and row.places else [name]
    return names


def backbone(name: str) -> str:
    """The row that another one adds to; itself, if it adds nothing."""
    form = VIDEO_ROWS[name.removesuffix(TWICE)].form
    return "i3d" if form == "nonlocal" else form


def build(name: str, network: VideoNetwork) -> Module:
    row = VIDEO_ROWS[name.removesuffix(TWICE)]
    return row.build(replace(network, checkpoint_graph=name.endswith(TWICE)))


class Step:
    """A network with what it needs for a training step: forward, backward, SGD with momentum."""

    def __init__(self, net: Module, clips: Tensor, precision: str) -> None:
        self.net, self.clips = net, clips
        self.labels = torch.zeros(len(clips), dtype=torch.long, device=clips.device)
        self.optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
        self.mixed = precision == "bf16-mixed"

    def train(self) -> None:
        """A training step. Gradients are freed at its end, for all rows to have room."""
        self.net.train()
        with self._autocast():
            loss = torch.nn.functional.cross_entropy(self.net(self.clips), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def infer(self) -> None:
        """A forward pass."""
        with self._autocast():
            self.net(self.clips)

    def peak(self) -> int:
        """The most bytes of tensors that live at once in a training step: weights, momentum, clips and all it makes."""
        held = sum(tensor.nbytes for tensor in (*self.net.parameters(), *self.net.buffers(), self.clips))
        held += sum(parameter.nbytes for parameter in self.net.parameters())  # the momentum, which the first step makes
        if not self.clips.is_cuda:
            return held + peak_bytes(self.train, "cpu", self._momentum)
        self.train()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.train()
        torch.cuda.synchronize()
        return held + torch.cuda.max_memory_allocated() - before

    def _momentum(self) -> list[Tensor]:
        return [state["momentum_buffer"] for state in self.optimizer.state.values()]

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.clips.device.type, torch.bfloat16) if self.mixed else nullcontext()


def works(steps: dict[str, Step]) -> Iterator[tuple[tuple[str, str], Work]]:
    """The timed calls by row and pass. Modes are set outside the time."""
    for name, step in steps.items():
        yield (name, "inference"), Work(step.infer, step.net.eval)
        yield (name, "training"), Work(step.train, step.net.train)


def measure(args: argparse.Namespace, tick: Callable[[], object] = lambda: None) -> list[Row]:
    """All rows, in turns."""
    sizes: Preset = args.sizes
    shape = (sizes.batch, sizes.network.in_channels, sizes.frames, sizes.size, sizes.size)
    clips = torch.rand(shape, device=args.device)
    nets = {name: build(name, sizes.network) for name in names_of(args)}
    flops = {name: forward_flops(net, (1, *shape[1:])) for name, net in nets.items()}
    steps, peaks = {}, {}
    for name, net in nets.items():
        steps[name] = Step(net.to(args.device), clips, args.precision)
        peaks[name] = steps[name].peak()
        tick()
    times = time_interleaved(dict(works(steps)), sizes.rounds, sizes.calls, args.device, tick)
    rows = []
    for name, net in nets.items():
        bare, title = backbone(name), VIDEO_ROWS[name.removesuffix(TWICE)].title + TWICE * name.endswith(TWICE)
        costs = sum(parameter.numel() for parameter in net.parameters()), flops[name], peaks[name]
        spent = times[name, "inference"], times[name, "training"]
        rows.append(Row(name, title, None if bare == name else bare, *costs, sizes.batch, sizes.frames, *spent))
    return rows


@dataclass(frozen=True)
class Row:
    """One network: what a command line and the paper call it, the row that it adds to or None, parameters, operations
    of a clip's forward pass, bytes that live at once in a training step, and milliseconds of both passes."""

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


class Added(NamedTuple):
    """What a row costs beyond its backbone; times by pass, the medians of differences and of ratios, less one, of times
    of the same round."""

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
    more = (getattr(row, name) - getattr(bare, name) for name in ("parameters", "flops", "peak"))
    milliseconds = {what: statistics.median(map(operator.sub, *both)) for what, both in times.items()}
    return Added(*more, milliseconds, {what: median_ratio(*both) - 1 for what, both in times.items()})


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
    names = ("title", "backbone", "batch", "frames", "parameters", "flops")
    values = {"row": row.name, **{name: getattr(row, name) for name in names}, "peak_mib": row.peak / 2**20}
    for what in PASSES:
        lower, middle, upper = quartiles(getattr(row, what))
        values |= {f"{what}_ms": middle, f"{what}_lower_ms": lower, f"{what}_upper_ms": upper}
        values[f"{what}_frames_per_s"] = row.frames_per_second(what)
    more = added(row, rows)
    parameters, flops, peak, milliseconds, share = more or (None, None, None, {}, {})
    peak = None if peak is None else peak / 2**20
    values |= {"added_parameters": parameters, "added_flops": flops, "added_mib": peak}
    for what in PASSES:
        values |= {f"added_{what}_ms": milliseconds.get(what), f"added_{what}_share": share.get(what)}
    return values


def write(folder: Path, preset: str, setting: str, rows: Sequence[Row]) -> list[Path]:
    """Write ``video_rows_<preset>.csv`` and ``.md``; return the paths."""
    table, text = (folder / f"video_rows_{preset}{end}" for end in (".csv", ".md"))
    write_csv((record(row, rows) for row in rows), table)
    text.write_text(f"# Cost of the video networks\n\n{setting}.\n\n{markdown(columns(rows))}\n{LEGEND}")
    return [table, text]


def forward_flops(net: Module, shape: tuple[int, ...]) -> int:
    """Floating-point operations of the convolutions and matrix products of one call, two for a multiply-add.

    The network runs in evaluation mode on the meta device, where nothing is calculated, and where recurrent layers,
    attention and space stages fall apart into products that torch's counter knows: on a CPU it sees neither oneDNN's
    LSTM and fused attention nor the package's native code. A space stage thus counts as its formula reads, 8 products
    of a C-vector with a C x C matrix per node, also where a backend saves some of them. Additions, norms, activations,
    poolings, and the scores and sums over edges do not count.
    """
    twin = copy.deepcopy(net).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


def describe(args: argparse.Namespace) -> str:
    """What was measured and on what."""
    sizes: Preset = args.sizes
    found = machine(args.device)
    place = found.get("gpu", f"{found['cpu']}, {found['threads']} threads")
    return (
        f"Preset {args.preset}: ResNet-{sizes.network.depth} of width {sizes.network.width}, graphs of "
        f"{sizes.network.channels} channels with K = {sizes.network.num_stages}; {sizes.batch} clips of {sizes.frames} "
        f"frames of {sizes.size} x {sizes.size}, {args.precision}; medians of {sizes.rounds * sizes.calls} calls; "
        f"{place}, torch {found['torch']}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    command.prepare(args)
    setting = describe(args)
    print(setting)
    with tqdm(total=len(names_of(args)) * (1 + 2 * args.sizes.rounds), disable=None) as bar:
        rows = measure(args, bar.update)
    print(f"\n{aligned(columns(rows))}")
    if args.results is not None:
        for path in write(args.results, args.preset, setting, rows):
            print(path)


if __name__ == "__main__":
    main()
