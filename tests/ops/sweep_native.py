"""Run the native kernels on every number of threads and frames against the plain formulas, each case with a time limit.

    python tests/ops/sweep_native.py             # threads 1 to 33, frames 1 to 40: about an hour
    python tests/ops/sweep_native.py --sanitize  # with GCC's address and undefined behaviour sanitizers: hours
    python tests/ops/sweep_native.py --sanitize --threads 1 3 16 --frames 1 5 17

One product is worth a thread here, so that small inputs are shared by all threads. Whatever hangs, differs or touches
memory that is not its own ends the run, and the last case printed is the one.
"""

import argparse
import faulthandler
import itertools
import os
import random
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from rstg_pyg import region_graph
from rstg_pyg.ops import GraphIndex
from rstg_pyg.ops.linear import weight_gradient
from rstg_pyg.ops.native import build
from rstg_pyg.ops.native.attend import attend, weighted_relu
from rstg_pyg.ops.plain import plain_attend, plain_messages, relu_message

sys.path.append(str(Path(__file__).parent.parent))
build._SECONDS = build._seconds_left = 900  # with sanitizers a library takes minutes on a busy machine

import test_native as sums  # noqa: E402
import test_native_messages as messages  # noqa: E402

SECONDS = 60
WIDTHS = (1, 8, 12, 16, 17, 24, 48, 64, 70, 100)
HEADS = (1, 2, 5)
EDGES = (None, "constant", "per frame")

# Threads, frames, graph, type, channels, heads, edge features. Threads that waited in a loop of which others had fewer
# turns once hung in the first four; in the others, frames or threads wrote where others read.
TELLING = (
    (16, 10, "regions", torch.bfloat16, 256, 1, None),
    (16, 4, "regions", torch.float32, 300, 1, None),
    (2, 1, "hub", torch.float32, 100, 1, None),
    (3, 2, "hub", torch.float64, 101, 1, None),
    (7, 5, "large", torch.float64, 70, 5, "constant"),
    (7, 5, "large", torch.float32, 70, 5, "per frame"),
    *((2, 2, "large", torch.float32, 48, 1, None),) * 9,
    *((2, 2, "large", torch.float64, 24, 1, None),) * 9,
    (33, 40, "isolated", torch.float32, 64, 2, None),
)


def graphs() -> dict[str, GraphIndex]:
    regions, drawn = region_graph(), torch.Generator().manual_seed(0)
    return {
        "regions": GraphIndex(regions.edge_index, regions.num_nodes),
        "hub": GraphIndex(torch.stack([torch.arange(200), torch.zeros(200).long()]), 200),
        "isolated": GraphIndex(torch.tensor([[3, 3, 8], [8, 0, 3]]), 40),
        "large": GraphIndex(torch.randint(150, (2, 600), generator=drawn), 150),
    }


def cases(threads: list[int], frames: list[int]):
    """Every graph and type for each number of threads and frames; the rest is drawn, in every run the same."""
    drawn = random.Random(0)
    for case in itertools.product(threads, frames, graphs(), sums.TOLERANCES):
        yield *case, *map(drawn.choice, (WIDTHS, HEADS, EDGES))


def run(graph: GraphIndex, frames: int, dtype: torch.dtype, hidden: int, heads: int, edge: str | None) -> None:
    """All kernels, forward and backward."""
    inputs = sums.attend_inputs(graph, frames, hidden, heads, hidden, edge, dtype)
    inputs[2] = (inputs[2].detach() / hidden**0.5).requires_grad_()
    sums.assert_equal_with_gradients(attend, plain_attend, inputs, graph)
    inputs = sums.relu_inputs(graph, frames, hidden, heads, edge, dtype)
    sums.assert_equal_with_gradients(weighted_relu, partial(plain_messages, relu_message), inputs, graph)
    inputs = messages.draw_inputs(graph, frames, hidden, heads * 5, heads, edge, dtype=dtype)
    if dtype == torch.bfloat16:  # no rounding decides which channels are active
        inputs = [None if value is None else value.detach().abs().requires_grad_() for value in inputs]
    messages.assert_equal_with_gradients(inputs, graph)
    grad, rows = (value.detach().flatten(1).to(torch.promote_types(dtype, torch.float32)) for value in inputs[2:4])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        weight_gradient(grad, rows), (grad.t() @ rows, grad.sum(0)), rtol=tolerance, atol=tolerance
    )


def restart(sanitize: bool) -> None:
    """A sweep's libraries are compiled with other flags, and a sanitizer has to be loaded before everything else."""
    compiler, environment = build._find_compiler(), dict(os.environ)
    flags = ["-DGRAIN=1"]
    if sanitize:
        command = [*compiler, "-print-file-name=libasan.so"]
        found = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        if not found.is_absolute():
            sys.exit(f"expected GCC and its address sanitizer in $CXX, got {compiler[0]}, which has no {found}")
        flags += ["-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        options = environment.get("ASAN_OPTIONS", "")
        environment.update(LD_PRELOAD=str(found), ASAN_OPTIONS=f"detect_leaks=0:{options}")
    environment["CXX"] = shlex.join([*compiler, *flags])
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=range(1, 34))
    parser.add_argument("--frames", type=int, nargs="+", default=range(1, 41))
    parser.add_argument("--telling", action="store_true", help="a few cases alone, with the library as it is shipped")
    parser.add_argument("--sanitize", action="store_true")
    arguments = parser.parse_args()
    if (arguments.sanitize or not arguments.telling) and "-DGRAIN=1" not in os.environ.get("CXX", ""):
        restart(arguments.sanitize)
    known = graphs()
    for case in TELLING if arguments.telling else cases(arguments.threads, arguments.frames):
        threads, frames, name, *rest = case
        print(*case, flush=True)
        torch.manual_seed(0)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        with sums.threads(threads):
            run(known[name], frames, *rest)
    faulthandler.cancel_dump_traceback_later()
