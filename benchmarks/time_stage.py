"""The time stage alone, forward and backward: LSTM, GRU and the linear recurrence beside the matrix products that an
LSTM needs.

What it takes above its products, it loses. On a CPU a large part of that can be memory that the C library gives back
after every call and maps anew in the next one: compare with ``--keep-memory``.

Then the recurrent network alone, on as many sequences of different lengths, drawn evenly between one frame and all of
them: ``rstg_pyg.ops.recurrent.packed_rnn``, PyTorch's on a ``PackedSequence``, and PyTorch's on sequences that are
padded to the longest. Long sequences, where lengths differ most:

    python benchmarks/time_stage.py --device cpu --threads 1 --widths 64 --batch 14 --frames 100

And the steps of the linear recurrence alone, ``rstg_pyg.ops.scan.gated_scan``, beside copies that read and write as
much as they do. Of 64 long sequences, timed by the clock of the process, which stands still while others run:

    python benchmarks/time_stage.py --device cpu --threads 1 --cpu-time --widths 64 --scales 8 --batch 1 --frames 1000

And the gradient of the weight of a layer to three gates, ``rstg_pyg.ops.linear.weight_gradient``, beside PyTorch's
product and sum.

``--stream 100000`` then runs a stream of so many frames through it in float32 and in bfloat16, and compares with
float64.
"""

from __future__ import annotations

import argparse
import resource
import time
from copy import deepcopy

import torch
from torch.nn.utils.rnn import pack_padded_sequence

import command
from bound import bounds_of, time_stage_products
from command import aligned, machine, write_csv, write_json
from measure import Work, quartiles, time_interleaved
from problem import Problem, grid_graph
from rstg_pyg import TimeStage
from rstg_pyg.ops import scan
from rstg_pyg.ops.linear import weight_gradient
from rstg_pyg.ops.recurrent import packed_rnn, why_not

SIZES = {64: (16, 10), 256: (16, 10), 512: (4, 10)}


def stage(problem: Problem, rnn: str) -> Work:
    """Forward and backward of one time stage."""
    module = TimeStage(problem.width, rnn).to(problem.device)
    x = problem.features().requires_grad_()
    grad = torch.randn_like(x)

    def clear() -> None:
        x.grad = None
        module.zero_grad()

    return Work(lambda: module(x)[0].backward(grad), clear)


def different_lengths(problem: Problem, rnn: str) -> dict[str, Work]:
    """Forward and backward of a recurrent network in several ways, the names of which tell the share of the frames."""
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[rnn](problem.width, problem.width, batch_first=True)
    module = module.to(problem.device)
    padded = problem.features().flatten(0, 1)
    lengths = torch.randint(1, problem.frames + 1, padded.shape[:1]).sort(descending=True).values
    packed = pack_padded_sequence(padded, lengths, batch_first=True)
    rows, padded = packed.data.requires_grad_(), padded.requires_grad_()
    grad, grad_padded = torch.randn_like(rows), torch.randn_like(padded)
    zeros = torch.zeros(len(lengths), problem.width, device=problem.device)
    states = zeros, None if rnn == "gru" else zeros

    def clear() -> None:
        rows.grad = padded.grad = None
        module.zero_grad()

    def ours() -> None:
        packed_rnn(rnn, rows, packed.batch_sizes, *states, *module.parameters())[0].backward(grad)

    runs = {
        "packed_rnn": ours,
        "packed": lambda: module(packed._replace(data=rows))[0].data.backward(grad),
        "padded": lambda: module(padded)[0].backward(grad_padded),
    }
    if why_not(rows) is not None:
        del runs["packed_rnn"]
    share = 100 * len(rows) / padded[..., 0].numel()
    return {f"{rnn} {name}, {share:.0f} % of the frames": Work(run, clear) for name, run in runs.items()}


def linear_scans(problem: Problem) -> dict[str, Work]:
    """Forward and backward of the linear recurrence's steps, and as much reading and writing."""
    grad, value = (problem.features().view(-1, problem.width) for _ in range(2))
    gates = torch.cat([value + 3, value], 1).requires_grad_()
    h0 = value.new_zeros(problem.graph.num_nodes * problem.batch, problem.width)
    read, out = gates.detach(), value.clone()

    def clear() -> None:
        gates.grad = None

    def copy() -> None:
        """Reads the gates twice, the output and its gradient, and writes an output and a gradient of the gates."""
        kept = out.clone(), read.clone()
        del kept
        read.sum()
        grad.sum()

    backends = [backend for backend in scan.BACKENDS if scan.why_not(backend, gates) is None]
    runs = {
        f"linear steps, {backend}": Work(lambda b=backend: scan.gated_scan(gates, h0, None, b)[0].backward(grad), clear)
        for backend in backends
    }
    return runs | {"as much read and written": Work(copy)}


@torch.no_grad()
def weight_gradients(problem: Problem) -> dict[str, Work]:
    """The gradients of a weight and of a bias of three gates, from all rows."""
    rows = problem.features().flatten(0, -2)
    grad = torch.randn(rows.size(0), 3 * problem.width, device=problem.device)
    return {
        "gradient of a weight": Work(lambda: weight_gradient(grad, rows)),
        "the same by PyTorch": Work(lambda: (grad.t() @ rows, grad.sum(0))),
    }


def stream(num_frames: int, width: int) -> None:
    """Print how far a stream of the linear recurrence is from float64, and what memory it took."""
    exact = TimeStage(width, "linear").double()
    stages = {dtype: deepcopy(exact).to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    states, worst = dict.fromkeys([torch.float64, *stages]), dict.fromkeys(stages, 0.0)
    peaks = []
    for start in range(0, num_frames, 100):
        # Alike as frames are, so that errors of rounding add up.
        x = 1 + 0.1 * torch.randn(14, min(100, num_frames - start), width, dtype=torch.float64)
        expected, states[torch.float64] = exact(x, states[torch.float64])
        for dtype, stage in stages.items():
            out, states[dtype] = stage(x.to(dtype), states[dtype])
            worst[dtype] = max(worst[dtype], float((out - expected).abs().max() / expected.abs().max()))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    for dtype, error in worst.items():
        print(f"a stream of {num_frames} frames in {dtype}: at most {error:.1e} of the largest output from float64")
    half = peaks[len(peaks) // 2]
    print(f"memory: {half} KiB at most in its first half, {peaks[-1] - half} KiB more in its second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_common(parser)
    parser.add_argument("--frames", type=command.positive, help="frames per clip")
    parser.add_argument("--cpu-time", action="store_true", help="time by the clock of the process, on one thread")
    parser.add_argument("--stream", type=command.positive, metavar="FRAMES", help="frames of a stream")
    args = parser.parse_args()
    command.prepare(args)
    description = machine(args.device)
    print(", ".join(f"{key} {value}" for key, value in description.items()))

    records = []
    for width in args.widths or ([64] if args.quick else SIZES):
        batch, frames = SIZES.get(width, SIZES[512])
        size = {"batch": args.batch or batch, "frames": args.frames or frames}
        for scales in args.scales or [(3, 2, 1)]:
            problem = Problem(grid_graph(scales), width, **size, device=args.device)
            works = {rnn: stage(problem, rnn) for rnn in ("lstm", "gru", "linear")}
            for name, run in bounds_of(problem, time_stage_products(problem), backward=True).items():
                works[f"{name} of lstm"] = Work(run)
            works |= different_lengths(problem, "lstm") | different_lengths(problem, "gru")
            works |= linear_scans(problem) | weight_gradients(problem)
            rounds = 2 if args.quick else 7
            clock = time.process_time if args.cpu_time else time.perf_counter
            for name, times in time_interleaved(works, rounds, 2, args.device, clock=clock).items():
                lower, median, upper = quartiles(times)
                shape = f"{problem.graph.num_nodes} x {problem.batch} x {problem.frames}"
                records.append(
                    {"form": name, "channels": width, "nodes x clips x frames": shape}
                    | {"median ms": median, "lower quartile ms": lower, "upper quartile ms": upper}
                )
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in one.values()] for one in records]
    print(aligned([list(records[0]), *cells]))
    if args.stream is not None:
        stream(args.stream, (args.widths or [64])[0])
    if args.output is not None:
        write_csv(records, args.output / "time_stage.csv")
        write_json({"machine": description, "rows": records}, args.output / "time_stage.json")


if __name__ == "__main__":
    main()
