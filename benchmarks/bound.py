"""The arithmetic bound: the time of the matrix products that the arithmetic needs, and of nothing else.

The products run one after the other on the same machine in the same run, into buffers that are there already. Vector
work (scores, softmax, activations, weighted sums, gates) counts as free, and so does what depends on the graph alone
(positions).
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.backends import mkldnn

from problem import Problem

BOUND = "bound"

FASTEST = "bound-fastest"

Multiply = Callable[..., object]
"""``multiply(left, right, out=...)``: a product of two matrices."""


@dataclass(frozen=True)
class Product:
    """``y = x W^T`` with ``x [rows, fan_in]``, ``W [fan_out, fan_in]``; in the backward pass ``dx = dy W`` and
    ``dW = dy^T x``.

    Attributes:
        count: How many of this shape there are.
    """

    rows: int
    fan_in: int
    fan_out: int
    count: int = 1


def space_stage_products(problem: Problem) -> list[Product]:
    """Two send halves, query and key, the last send layer (per edge if an activation follows it, else per node), the
    two update layers: 8 N products of C x C per frame, 112 units for 14 nodes, or 7 N + E, 188 units."""
    nodes, edges = (number * problem.num_frames for number in (problem.graph.num_nodes, problem.graph.num_edges))
    width = problem.width
    per_node = Product(nodes, width, width, count=5 if problem.relu_last else 6)
    update = Product(nodes, 2 * width, width)
    return [per_node, update, *([Product(edges, width, width)] if problem.relu_last else [])]


def time_stage_products(problem: Problem) -> list[Product]:
    """The input product and the recurrent product of an LSTM, 8 N products of C x C per frame. Both count as if all
    frames were there at once: the recurrent product in steps, each of which waits for the one before it, is slower."""
    rows, width = problem.graph.num_nodes * problem.num_frames, problem.width
    return [Product(rows, width, 4 * width, count=2)]


def products(problem: Problem) -> list[Product]:
    """All products of one space stage or of the whole block."""
    stage = space_stage_products(problem)
    if problem.num_stages is None:
        return stage
    return stage * problem.num_stages + time_stage_products(problem) * (problem.num_stages + 1)


def bounds(problem: Problem, backward: bool) -> dict[str, Callable[[], None]]:
    """Calls that compute all products, by the names of their rows.

    ``"bound"`` multiplies by ``torch.mm``; ``"bound-fastest"``, where torch has a second library to multiply with,
    takes for each product the faster of the two.
    """
    return bounds_of(problem, products(problem), backward)


def bounds_of(problem: Problem, needed: Sequence[Product], backward: bool) -> dict[str, Callable[[], None]]:
    """:func:`bounds` of some products, on the problem's device and in its type."""
    operations = _operations(problem, needed, backward)
    found = {}
    for name in bound_names(problem):
        found[name] = _run_all([(torch.mm if name == BOUND else _faster(one), one) for one in operations])
    return found


def bound_names(problem: Problem) -> tuple[str, ...]:
    """The names of the bounds of a problem."""
    on_cpu = torch.device(problem.device).type == "cpu"
    two_libraries = on_cpu and problem.dtype == torch.float32 and mkldnn.is_available()
    return (BOUND, FASTEST) if two_libraries else (BOUND,)


@dataclass(frozen=True)
class _Operation:
    """``count`` products of two matrices, one after the other."""

    left: Tensor
    right: Tensor
    out: Tensor
    count: int


def _operations(problem: Problem, needed: Sequence[Product], backward: bool) -> list[_Operation]:
    """Products of the same shape share their buffers."""
    options = {"device": problem.device, "dtype": problem.dtype}
    forward, gradients = [], []
    buffers: dict[Product, list[Tensor]] = {}
    for product in needed:
        if product not in buffers:
            shapes = (product.rows, product.fan_in), (product.fan_out, product.fan_in), (product.rows, product.fan_out)
            buffers[product] = [torch.randn(shape, **options) for shape in shapes]
            buffers[product] += [torch.empty(shape, **options) for shape in shapes[: 2 if backward else 0]]
        x, weight, y, *of_gradients = buffers[product]
        forward.append(_Operation(x, weight.t(), y, product.count))
        if backward:
            dx, dweight = of_gradients
            gradients.append(_Operation(y, weight, dx, product.count))
            gradients.append(_Operation(y.t(), x, dweight, product.count))
    return forward + gradients


def _onednn(left: Tensor, right: Tensor, out: Tensor) -> None:
    """The product of the library that torch uses for recurrent layers; into memory of its own, not into ``out``."""
    torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")


def _faster(operation: _Operation) -> Multiply:
    times = {}
    for multiply in (torch.mm, _onednn):
        run = _run_all([(multiply, replace(operation, count=1))])
        times[multiply] = min(timeit.repeat(run, number=1, repeat=6)[1:])
    return min(times, key=times.get)


def _run_all(work: Sequence[tuple[Multiply, _Operation]]) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        for multiply, operation in work:
            for _ in range(operation.count):
                multiply(operation.left, operation.right, out=operation.out)

    return run
