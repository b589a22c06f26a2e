"""Graphs that change: the recurrence beside the loop over frames that people write today, and what changes cost.

- ``loop``: per frame an attention convolution of PyG on the frame's edges, then a GRU cell; beside it ``rstg``, one
  space stage and one time stage with a GRU, of the same width (and where pytorch-geometric-temporal is installed its
  cells, frame by frame).
- What ``edge_time`` costs on a graph that does not change, and a mask of True; what half of the frames cost, and a node
  that hears all.
- What a doubling of nodes, of edges and of frames costs, up to the size that memory allows.
- How much memory a long series takes that is trained piece by piece.

Forward and backward, in ms, all forms in turns; ratios are medians of the turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import GRUCell, Module
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv, TransformerConv

import command
from command import aligned, machine, write_csv, write_json
from measure import Work, median_ratio, peak_bytes, quartiles, time_interleaved
from rstg_pyg import RSTG
from rstg_pyg.recurrence import detach_state
from rstg_pyg.temporal import VirtualNode


class Loop(Module):
    """What people write: frame by frame, messages along the frame's edges, then a recurrent cell."""

    def __init__(self, conv: Module, channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.cell = GRUCell(channels, channels)

    def forward(self, x: Tensor, edges: list[Tensor]) -> Tensor:
        h, out = x.new_zeros(x.size(0), x.size(2)), []
        for t, edge_index in enumerate(edges):
            h = self.cell(self.conv(x[:, t], edge_index), h)
            out.append(h)
        return torch.stack(out, 1)


class Cells(Module):
    """A cell of pytorch-geometric-temporal, frame by frame."""

    def __init__(self, cell: Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, edges: list[Tensor]) -> Tensor:
        h, out = None, []
        for t, edge_index in enumerate(edges):
            h = self.cell(x[:, t], edge_index, H=h)
            out.append(h)
        return torch.stack(out, 1)


def opponents(channels: int) -> dict[str, Module]:
    forms = {
        "loop, GATv2Conv": Loop(GATv2Conv(channels, channels), channels),
        "loop, TransformerConv": Loop(TransformerConv(channels, channels), channels),
    }
    try:
        from torch_geometric_temporal.nn.recurrent import DCRNN, TGCN, GConvGRU
    except ImportError:
        print("left out, for pytorch-geometric-temporal is not installed: GConvGRU, TGCN, DCRNN")
        return forms
    cells = {"GConvGRU": GConvGRU(channels, channels, 2), "TGCN": TGCN(channels, channels)}
    return forms | {name: Cells(cell) for name, cell in (cells | {"DCRNN": DCRNN(channels, channels, 2)}).items()}


def recurrence(channels: int) -> RSTG:
    return RSTG(channels, rnn="gru", stages=("space", "time"))


def training(module: Module, run: Callable[[Tensor], Tensor], x: Tensor) -> Work:
    x = x.detach().clone().requires_grad_()
    grad = torch.randn_like(run(x))

    def clear() -> None:
        x.grad = None
        module.zero_grad()

    return Work(lambda: run(x).backward(grad), clear)


def random_edges(nodes: int, edges: int, frames: int, device: str) -> tuple[Tensor, Tensor]:
    """Other edges in every frame, so many in each."""
    return (
        torch.randint(nodes, (2, edges * frames), device=device),
        torch.arange(frames, device=device).repeat_interleave(edges),
    )


def beside_loops(args: argparse.Namespace, frames: int) -> dict[str, Work]:
    x = torch.randn(args.nodes, frames, args.channels, device=args.device)
    # Every pair at most once in a frame: DCRNN takes no others.
    pairs = torch.stack([torch.randperm(args.nodes**2)[: args.edges] for _ in range(frames)]).to(args.device)
    edges = torch.stack([pairs // args.nodes, pairs % args.nodes]).flatten(1)
    edge_time = torch.arange(frames, device=args.device).repeat_interleave(args.edges)
    per_frame = list(edges.split(args.edges, 1))
    rstg = recurrence(args.channels).to(args.device)
    works = {"rstg": training(rstg, lambda x: rstg(x, edges, edge_time=edge_time)[0], x)}
    for name, module in opponents(args.channels).items():
        module = module.to(args.device)
        works[name] = training(module, lambda x, module=module: module(x, per_frame), x)
    return works


def what_changes_cost(args: argparse.Namespace, frames: int) -> dict[str, Work]:
    x = torch.randn(args.nodes, frames, args.channels, device=args.device)
    edges = torch.randint(args.nodes, (2, args.edges), device=args.device)
    rstg, everywhere = recurrence(args.channels).to(args.device), torch.ones(x.shape[:2], dtype=torch.bool)
    lengths = torch.arange(args.nodes) % frames + 1
    halves = torch.arange(frames) < lengths[:, None]
    everywhere, halves = everywhere.to(args.device), halves.to(args.device)
    hub = VirtualNode()(Data(x=x, edge_index=edges))
    repeated = edges.repeat(1, frames), torch.arange(frames, device=args.device).repeat_interleave(args.edges)
    return {
        "static": training(rstg, lambda x: rstg(x, edges)[0], x),
        "static edges with edge_time": training(rstg, lambda x: rstg(x, repeated[0], edge_time=repeated[1])[0], x),
        "mask of True": training(rstg, lambda x: rstg(x, edges, mask=everywhere)[0], x),
        "half of the frames": training(rstg, lambda x: rstg(x, edges, mask=halves)[0], x),
        "a virtual node": training(rstg, lambda x: rstg(x, hub.edge_index)[0], hub.x),
    }


def doubling(args: argparse.Namespace, axis: str, steps: int) -> dict[str, Work]:
    works = {}
    for step in range(steps):
        size = {"N": args.nodes, "E": args.edges, "T": 12}
        # Edges are counted per frame: of twice the nodes there are twice as many.
        for name in ("N", "E") if axis == "N" else (axis,):
            size[name] *= 2**step
        x = torch.randn(size["N"], size["T"], args.channels, device=args.device)
        edges, edge_time = random_edges(size["N"], size["E"], size["T"], args.device)
        rstg = recurrence(args.channels).to(args.device)
        run = lambda x, rstg=rstg, edges=edges, time=edge_time: rstg(x, edges, edge_time=time)[0]  # noqa: E731
        works[f"{axis} = {size[axis]}"] = training(rstg, run, x)
    return works


def series_bytes(args: argparse.Namespace, pieces: int, frames: int = 12) -> int:
    """The most memory that training takes on a series, piece by piece with detached states."""
    rstg = recurrence(args.channels).to(args.device)
    edges, edge_time = random_edges(args.nodes, args.edges, frames, args.device)

    def run() -> None:
        state = None
        for _ in range(pieces):
            out, state = rstg(torch.randn(args.nodes, frames, args.channels), edges, state=state, edge_time=edge_time)
            out.square().mean().backward()
            state = detach_state(state)

    return peak_bytes(run, args.device, ignored=lambda: [p.grad for p in rstg.parameters() if p.grad is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_machine(parser)
    parser.add_argument("--nodes", type=command.positive, default=200, help="(default: 200)")
    parser.add_argument("--edges", type=command.positive, default=1200, help="of a frame (default: 1,200)")
    parser.add_argument("--channels", type=command.positive, default=64, help="(default: 64)")
    parser.add_argument("--frames", type=command.positive, nargs="+", default=[12, 100], help="(default: 12 100)")
    parser.add_argument("--doublings", type=command.positive, default=6, help="of every axis (default: 6)")
    parser.add_argument("--rounds", type=command.positive, default=7, help="turns of every form (default: 7)")
    parser.add_argument("--large", action="store_true", help="1,000,000 nodes times frames and 10,000,000 edges, once")
    parser.add_argument("--output", type=command.folder, metavar="FOLDER", help="write the figures there too")
    args = parser.parse_args()
    command.prepare(args)
    description = machine(args.device)
    print(", ".join(f"{key} {value}" for key, value in description.items()))

    records = []

    def table(title: str, works: dict[str, Work], to_last: bool = False) -> None:
        times = time_interleaved(works, args.rounds, 2, args.device)
        names = list(times)
        for number, name in enumerate(names):
            lower, median, upper = quartiles(times[name])
            other = names[max(number - 1, 0)] if to_last else names[0]
            ratio = median_ratio(times[name], times[other])
            records.append(
                {"of": title, "form": name, "median ms": median, "lower quartile ms": lower}
                | {"upper quartile ms": upper, "ratio": ratio}
            )

    for frames in args.frames:
        table(f"T = {frames}", beside_loops(args, frames))
        table(f"T = {frames}", what_changes_cost(args, frames))
    for axis in ("N", "E", "T"):
        table(f"doubling {axis}", doubling(args, axis, args.doublings), to_last=True)
    if args.large:
        args.nodes, args.edges, args.rounds = 100_000, 1_000_000, 1
        x = torch.randn(args.nodes, 10, args.channels, device=args.device)
        edges, edge_time = random_edges(args.nodes, args.edges, 10, args.device)
        rstg = recurrence(args.channels).to(args.device)
        table("large", {"rstg": training(rstg, lambda x: rstg(x, edges, edge_time=edge_time)[0], x)})
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in one.values()] for one in records]
    print(aligned([list(records[0]), *cells]))
    few, many = (series_bytes(args, pieces) for pieces in (3, 100)) if not args.large else (1, 1)
    print(f"peak memory of a series of 100 pieces, of that of 3: {many / few:.3f} ({few / 2**20:.1f} MiB)")
    if args.output is not None:
        write_csv(records, args.output / "changing.csv")
        write_json({"machine": description, "rows": records, "series": many / few}, args.output / "changing.json")


if __name__ == "__main__":
    main()
