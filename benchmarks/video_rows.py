"""Measures the networks of the Something-Something table: parameters, FLOPs, frames per second, memory.

And what each graph adds to its bare backbone. All rows take turns in one run, so that drift of the machine hits all
alike. Random pixels, new weights: no dataset is needed and nothing is learned.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import Module
from tqdm import tqdm

import options
from measure import Work, time_interleaved
from memory import peak_bytes
from report import aligned, machine
from rstg_pyg.models import VIDEO_PAPER_SIZE, VIDEO_ROWS, VIDEO_SMALL, VideoNetwork
from video_rows_flops import forward_flops
from video_rows_report import Row, columns, write


@dataclass(frozen=True)
class Preset:
    """Sizes, and how often each row is timed.

    Attributes:
        network: What all rows share.
        frames: Frames of a clip.
        size: Height and width of a frame.
        batch: Clips.
        rounds: Turns of every row.
        calls: Timed calls per turn, after an untimed one.
    """

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
        parser.add_argument(f"--{name}", type=options.positive, help=f"{text} (default: that of the preset)")
    options.add_machine(parser)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument(
        "--results", type=options.folder, metavar="FOLDER", help="write video_rows_<preset>.csv and .md there"
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
    return [
        Row(
            name,
            VIDEO_ROWS[name.removesuffix(TWICE)].title + ("" if not name.endswith(TWICE) else TWICE),
            None if backbone(name) == name else backbone(name),
            sum(parameter.numel() for parameter in net.parameters()),
            flops[name],
            peaks[name],
            sizes.batch,
            sizes.frames,
            times[name, "inference"],
            times[name, "training"],
        )
        for name, net in nets.items()
    ]


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
    options.prepare(args)
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
