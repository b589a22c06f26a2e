"""The time stage alone, forward and backward: LSTM and GRU beside the matrix products that they need.

What it takes above its products, it loses. On a CPU a large part of that can be memory that the C library gives back
after every call and maps anew in the next one: compare with ``--keep-memory``.
"""

from __future__ import annotations

import argparse

import torch

import command
from bound import bounds_of, time_stage_products
from command import aligned, machine, write_csv, write_json
from measure import Work, quartiles, time_interleaved
from problem import Problem, grid_graph
from rstg_pyg import TimeStage

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_common(parser)
    parser.add_argument("--frames", type=command.positive, help="frames per clip")
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
            works = {rnn: stage(problem, rnn) for rnn in ("lstm", "gru")}
            for name, run in bounds_of(problem, time_stage_products(problem), backward=True).items():
                works[f"{name} of lstm"] = Work(run)
            rounds = 2 if args.quick else 7
            for name, times in time_interleaved(works, rounds, 2, args.device).items():
                lower, median, upper = quartiles(times)
                shape = f"{problem.graph.num_nodes} x {problem.batch} x {problem.frames}"
                records.append(
                    {"form": name, "channels": width, "nodes x clips x frames": shape}
                    | {"median ms": median, "lower quartile ms": lower, "upper quartile ms": upper}
                )
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in one.values()] for one in records]
    print(aligned([list(records[0]), *cells]))
    if args.output is not None:
        write_csv(records, args.output / "time_stage.csv")
        write_json({"machine": description, "rows": records}, args.output / "time_stage.json")


if __name__ == "__main__":
    main()
