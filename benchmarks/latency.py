"""Measures how long one frame takes, as a live stream sees it: one frame after the other, from a carried state.

"to-vec" is ``RSTGToVec.step`` on a frame of features [B, C, H, W]: pooling, the recurrent graph, the readout. "graph"
is ``RSTG`` alone on one frame of node features. Inference, without gradients. With ``--compile`` the same again under
``torch.compile(fullgraph=True)``; with ``--export`` "to-vec" as a program of ``torch.export``, and with ``--package``
as a file of AOTInductor, which runs without Python code of this package.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import Module
from tqdm import tqdm

import command
from command import aligned, machine, write_csv, write_json
from measure import Work, time_interleaved
from rstg_pyg import RSTG, RSTGToVec, region_graph
from rstg_pyg.ops import BACKENDS

NORMAL = {"widths": [64, 256, 512], "scales": [(3, 2, 1)], "batch": 1, "frames": 500}
QUICK = {"widths": [32, 64], "scales": [(3, 2, 1)], "batch": 1, "frames": 40}
CALLS = 10


@dataclass(frozen=True)
class Row:
    """One module at one width."""

    what: str
    backend: str
    form: str
    scales: str
    batch: int
    width: int
    dtype: str
    device: str
    threads: int
    frames: int
    median_ms: float
    p99_ms: float
    frames_per_s: float


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_common(parser)
    parser.add_argument("--frames", type=command.positive, help="timed frames of each row, in turns of 10")
    parser.add_argument("--size", type=command.positive, default=14, help="height and width of a frame (default: 14)")
    parser.add_argument("--stages", type=command.positive, default=3, help="space stages K (default: 3)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--backends", nargs="+", choices=BACKENDS, help="of RSTGConv (default: all that the device has)"
    )
    parser.add_argument("--compile", action="store_true", help="rows of the compiled step and graph too")
    parser.add_argument("--export", action="store_true", help="rows of the exported step of to-vec too")
    parser.add_argument("--package", action="store_true", help="rows of the step of to-vec as a compiled file too")
    args = parser.parse_args(argv)
    for name, value in (QUICK if args.quick else NORMAL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    on_cuda = torch.device(args.device).type == "cuda"
    if args.backends is None:
        args.backends = [backend for backend in BACKENDS if on_cuda or backend != "triton"]
    elif "triton" in args.backends and not on_cuda:
        parser.error("the backend 'triton' needs a CUDA device")
    return args


class Step(Module):
    """``RSTGToVec.step`` as a module, which is what ``torch.export`` takes."""

    def __init__(self, to_vec: RSTGToVec) -> None:
        super().__init__()
        self.to_vec = to_vec

    def forward(self, frame: Tensor, state: object) -> tuple[Tensor, object]:
        return self.to_vec.step(frame, state)


@torch.no_grad()
def warm(step: Callable[[object], object], state: object = None) -> object:
    """The state after some frames more. The first ones are no part of a stream in full flow: kernels are chosen,
    buffers made, code is compiled."""
    for _ in range(3):
        state = step(state)
    return state


def stream(step: Callable[[object], object], state: object = None) -> Work:
    """One frame of an endless stream: ``step`` takes a state and returns the next one."""
    carried = [warm(step, state)]

    @torch.no_grad()
    def run() -> None:
        carried[0] = step(carried[0])

    return Work(run)


def works(args: argparse.Namespace, scales: tuple[int, ...], width: int) -> dict[tuple[str, str, str], Work]:
    """The streams by module, backend and form. A step that cannot be exported is named and left out."""
    dtype = getattr(torch, args.dtype)
    place = {"device": args.device, "dtype": dtype}
    graph = region_graph(scales).to(args.device)
    frame = torch.randn(args.batch, width, args.size, args.size, **place)
    nodes = torch.randn(graph.num_nodes, args.batch, 1, width, **place)
    pe = graph.heatmap.to(dtype)
    found = {}

    def of_frame(step: Callable[[Tensor, object], tuple[Tensor, object]]) -> Callable[[object], object]:
        return lambda state: step(frame, state)[1]

    def of_nodes(rstg: Module) -> Callable[[object], object]:
        return lambda state: rstg(nodes, graph.edge_index, pe=pe, state=state)[1]

    for backend in args.backends:
        shared = {"num_stages": args.stages, "backend": backend}
        to_vec = RSTGToVec(width, scales=scales, **shared).to(**place).eval()
        rstg = RSTG(width, pe_channels=pe.size(1), **shared).to(**place).eval()
        found["to-vec", backend, "eager"] = stream(of_frame(to_vec.step))
        found["graph", backend, "eager"] = stream(of_nodes(rstg))
        if args.export or args.package:
            state = warm(of_frame(to_vec.step))
            try:
                program = exported(to_vec, frame, state)
                if args.export:
                    found["to-vec", backend, "exported"] = stream(of_frame(program.module()), state)
                if args.package:
                    found["to-vec", backend, "package"] = stream(of_frame(packaged(program)), state)
            except Exception as error:  # torch raises errors of many kinds
                said = next(filter(None, map(str.strip, str(error).splitlines())), "no message")
                tqdm.write(f"to-vec, {backend}: not exported: {type(error).__name__}: {said}")
        if args.compile:
            options = {"fullgraph": True, "dynamic": False}
            found["to-vec", backend, "compiled"] = stream(of_frame(torch.compile(to_vec.step, **options)))
            found["graph", backend, "compiled"] = stream(of_nodes(torch.compile(rstg, **options)))
    return found


@torch.no_grad()
def exported(to_vec: RSTGToVec, frame: Tensor, state: object) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch.export does to the weights of an LSTM
        return torch.export.export(Step(to_vec), (frame, state))


@torch.no_grad()
def packaged(program: torch.export.ExportedProgram) -> Callable[..., tuple[Tensor, object]]:
    with tempfile.TemporaryDirectory() as folder:
        path = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/step.pt2")
        return torch._inductor.aoti_load_package(path)


def measure(args: argparse.Namespace, scales: tuple[int, ...], width: int, bar: tqdm) -> list[Row]:
    """All modules at one width, in turns."""
    rounds = -(-args.frames // CALLS)
    times = time_interleaved(works(args, scales, width), rounds, CALLS, args.device, bar.update)
    name = "-".join(map(str, scales))
    rows = []
    for names, values in times.items():
        median, p99 = statistics.median(values), statistics.quantiles(values, n=100, method="inclusive")[98]
        setting = name, args.batch, width, args.dtype, args.device, torch.get_num_threads(), len(values)
        rows.append(Row(*names, *setting, median, p99, 1000 * args.batch / median))
    return rows


def table(rows: Sequence[Row]) -> str:
    head = ("module", "backend", "form", "scales", "clips", "channels", "median ms", "p99 ms", "frames/s")
    lines = [head]
    for row in rows:
        figures = f"{row.median_ms:.3f}", f"{row.p99_ms:.3f}", f"{row.frames_per_s:,.0f}"
        lines.append((row.what, row.backend, row.form, row.scales, str(row.batch), str(row.width), *figures))
    return aligned(lines)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    command.prepare(args)
    if args.compile:
        torch._dynamo.config.allow_rnn = True
        torch._dynamo.config.recompile_limit = 1000
    description = machine(args.device)
    print(", ".join(f"{name} {value}" for name, value in description.items()))
    jobs = list(itertools.product(args.scales, args.widths))
    rows: list[Row] = []
    forms = 2 + 2 * args.compile + args.export + args.package
    turns = len(jobs) * len(args.backends) * forms * -(-args.frames // CALLS)
    with tqdm(total=turns, disable=None) as bar:
        for scales, width in jobs:
            rows += measure(args, scales, width, bar)
    print(f"\nK = {args.stages}, {args.dtype}, {args.device}\n{table(rows)}")
    if args.output is not None:
        records = [asdict(row) for row in rows]
        write_csv(records, args.output / "latency.csv")
        write_json({"machine": description, "rows": records}, args.output / "latency.json")


if __name__ == "__main__":
    main()
