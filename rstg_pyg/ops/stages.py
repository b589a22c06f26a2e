r"""Stages one after the other in one native call, for few rows and without gradients: the next frame of a stream.

Of a small graph, the calls between the stages' products take several times as long as the products.

Shape legend: N nodes, E edges, F frames, R rows (nodes times frames), C input and O output channels, P position
channels, H hidden channels, U channels of the update's hidden layer, G gates: 4 of an LSTM, 3 of a GRU.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from rstg_pyg.ops.index import GraphIndex
from rstg_pyg.ops.native.attend import address, check, is_available, library_for
from rstg_pyg.ops.operators import operator

MAX_PRODUCT = 1 << 22
"""Multiplications of a product, rows times inputs times outputs, up to which one call is faster than PyTorch's."""

_DTYPES = (torch.float32, torch.float64)
_CALL, _STAGE, _STATES = struct.Struct("13q"), struct.Struct("5qd23q"), struct.Struct("4q")
_KINDS = ("space", "lstm", "gru")


class SpaceWeights(NamedTuple):
    """The weights of a space stage whose two send layers have a ReLU between them, and whose scores are dot products.

    ``src, dst [H, C]``, ``pe_src, pe_dst [H, P]`` and ``bias [H]`` are the first send layer, ``last [O, H]`` the second
    one; ``query, key [O, C]``; ``first [U, C + O]`` and ``second [O, U]`` the update, or ``first`` alone, with U = O.
    """

    src: Tensor
    dst: Tensor
    bias: Tensor | None
    pe_src: Tensor | None
    pe_dst: Tensor | None
    query: Tensor
    key: Tensor
    last: Tensor
    last_bias: Tensor | None
    first: Tensor
    first_bias: Tensor | None
    second: Tensor | None
    second_bias: Tensor | None

    def shapes(self, positions: int) -> list[tuple[int, ...]]:
        (hidden, channels), outputs = self.src.shape, self.query.size(0)
        update = outputs if self.second is None else self.first.size(0)
        send = (hidden, channels), (hidden, channels), (hidden,), (hidden, positions), (hidden, positions)
        ends = (outputs, channels), (outputs, channels), (outputs, hidden), (outputs,)
        return [*send, *ends, (update, channels + outputs), (update,), (outputs, update), (outputs,)]


class CellWeights(NamedTuple):
    """The weights of one layer of an LSTM or a GRU, with the names of PyTorch's."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def shapes(self, gates: int) -> list[tuple[int, ...]]:
        size, channels = self.weight_hh.size(1), self.weight_ih.size(1)
        return [(gates * size, channels), (gates * size, size), (gates * size,), (gates * size,)]


class Stage(NamedTuple):
    """What one stage computes.

    Args:
        kind: ``"space"``, ``"lstm"`` or ``"gru"``.
        weights: Of its layers.
        norm: Weight and bias, or None twice, of a layer norm of the stage's input; None for no norm.
        eps: Of the layer norm.
        residual: Whether the stage adds its input.
        heads: Of a space stage.
        act_last: Whether a ReLU ends the update of a space stage.
    """

    kind: str
    weights: SpaceWeights | CellWeights
    norm: tuple[Tensor | None, Tensor | None] | None = None
    eps: float = 0.0
    residual: bool = False
    heads: int = 1
    act_last: bool = False


def pays_in_one_call(x: Tensor, outputs: int) -> bool:
    """Whether one call is allowed, and faster, for rows ``x [*, C]`` and a product with ``outputs``."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.is_cpu
        and x.dtype in _DTYPES
        and x.numel() * outputs <= MAX_PRODUCT
        and not torch.is_autocast_enabled("cpu")
        and is_available(x.dtype)
    )


def are_plain(weights: Sequence[Tensor | None]) -> bool:
    """Whether they are nothing but numbers: a subclass of Tensor may stand for others than its memory holds."""
    return all([weight is None or type(weight) in (Tensor, Parameter) for weight in weights])


def run_stages(
    x: Tensor,
    stages: Sequence[Stage],
    index: GraphIndex | None = None,
    pe: Tensor | None = None,
    states: Sequence[tuple[Tensor, ...] | None] = (),
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    r"""Run stages one after the other: what :class:`~rstg_pyg.RSTGConv` and one step of :class:`torch.nn.LSTM` or
    :class:`torch.nn.GRU` compute.

    Args:
        x: Rows ``[N, F, C]``.
        stages: What they compute; the same object again where a stage runs again.
        index: The graph of the space stages.
        pe: Positional encodings ``[N, P]``, or None.
        states: Of every time stage in turn ``(h, c)`` or ``(h,)``, each ``[N, F, C]``; None for zero.

    Returns:
        The output ``[N, F, O]``, and the new states. None of them share memory.
    """
    distinct = list({id(stage): stage for stage in stages}.values())
    order = [next(number for number, one in enumerate(distinct) if one is stage) for stage in stages]
    weights: list[Tensor | None] = []
    forms, eps = [], []
    for stage in distinct:
        weights += (*stage.weights, *(stage.norm or (None, None)))
        forms += (_KINDS.index(stage.kind), stage.residual, stage.norm is not None, stage.heads, stage.act_last)
        eps.append(stage.eps)
    kinds = [stage.kind for stage in stages if stage.kind != "space"]
    given = [part for state in states or [None] * len(kinds) for part in (*(state or ()), None, None)[:2]]
    edges = [] if index is None else [index.nodes, index.ptr, index.src, index.dst]
    out, *found = _stages(x, pe, weights, given, edges, forms, eps, order)
    pairs = zip(found[::2], found[1::2], kinds, strict=True)
    return out, [(h,) if kind == "gru" else (h, c) for h, c, kind in pairs]


def _run(
    x: Tensor,
    pe: Tensor | None,
    weights: list[Tensor | None],
    states: list[Tensor | None],
    edges: list[Tensor],
    forms: list[int],
    eps: list[float],
    order: list[int],
) -> list[Tensor]:
    num_nodes, num_frames, channels = x.shape
    positions = 0 if pe is None else pe.size(1)
    x, pe = _checked((x, pe), (x.shape, (num_nodes, positions)), x)
    if edges and [end.size(0) for end in edges[:3]] != [num_nodes, num_nodes + 1, edges[3].size(0)]:
        raise ValueError(f"expected a graph of the {num_nodes} nodes of 'x', got one of {edges[0].size(0)}")
    if not all([end.is_cpu and end.dtype == torch.int64 for end in edges]):
        raise ValueError(f"expected edges on the CPU, int64, got {edges[2].dtype} on {edges[2].device}")
    stages = _packed(weights, forms, eps, positions, x)
    packed, kept, results = [], [stages], []
    for number in order:
        kind, inputs, outputs, record, _ = stages[number]
        if inputs != channels or (kind == 0 and not edges):
            got = f"{channels} and {'edges' if edges else 'none'}"
            raise ValueError(f"expected {inputs} channels, and edges for a space stage, got {got}")
        channels, pointers = outputs, (0,) * 4
        if kind > 0:
            shape = num_nodes, num_frames, outputs
            before = _checked(states[len(results) : len(results) + 2], (shape, shape), x)
            results += x.new_empty(shape), x.new_empty(shape if kind == 1 else 0)
            kept.append(before)
            pointers = map(address, (*before, *results[-2:]))
        packed += record, _STATES.pack(*pointers)
    out = x.new_empty(num_nodes, num_frames, channels)
    sizes = torch.get_num_threads(), len(order), num_nodes, edges[3].size(0) if edges else 0, num_frames, positions
    call = _CALL.pack(*sizes, *map(address, (*(edges or [None] * 4), x, pe, out)))
    check(library_for(x.dtype).rstg_stages(call, b"".join(packed)))
    return [out, *results]


def _packed(
    weights: list[Tensor | None], forms: list[int], eps: list[float], positions: int, like: Tensor
) -> list[tuple[Any, ...]]:
    """Of every stage its kind, its channels in and out, its fields in ``stages.h`` but for the states, and what they
    point to."""
    found, first = [], 0
    for number, of_norm in enumerate(eps):
        kind, residual, is_normed, heads, act_last = forms[5 * number : 5 * number + 5]
        end = first + (13 if kind == 0 else 4)
        layers = (SpaceWeights if kind == 0 else CellWeights)(*weights[first:end])
        shapes = layers.shapes(positions if kind == 0 else (4, 3)[kind - 1])
        channels, outputs = shapes[0][1], shapes[5][0] if kind == 0 else shapes[1][1]
        tensors = _checked(weights[first : end + 2], (*shapes, (channels,), (channels,)), like)
        *addresses, weight, bias = map(address, tensors)
        fields = kind, channels, outputs, residual, is_normed, of_norm, weight, bias
        if kind == 0:
            fields += shapes[0][0], shapes[9][0], heads, act_last, *addresses, 0, 0, 0, 0
        else:
            fields += *(0,) * 17, *addresses
        found.append((kind, channels, outputs, _STAGE.pack(*fields), tensors))
        first = end + 2
    return found


def _checked(values: Sequence[Tensor | None], shapes: Sequence[Sequence[int]], like: Tensor) -> list[Tensor | None]:
    """The tensors as the library reads them, once their shapes are what it takes them to be."""
    for value, shape in zip(values, shapes, strict=True):
        if value is not None and (value.shape != shape or value.dtype != like.dtype or not value.is_cpu):
            raise ValueError(
                f"expected a tensor on the CPU, {like.dtype}, of shape {list(shape)}, got {value.dtype} "
                f"{list(value.shape)} on {value.device}"
            )
    return [value if value is None else value.contiguous().resolve_neg() for value in values]


def _empty(x: Tensor, pe: Tensor | None, weights: list[Tensor | None], *rest: Any) -> list[Tensor]:
    _, _, forms, _, order = rest
    outputs, first = [], 0
    for kind in forms[::5]:
        outputs.append(weights[first + 5].size(0) if kind == 0 else weights[first + 1].size(1))
        first += (13 if kind == 0 else 4) + 2
    found = [x.new_empty(*x.shape[:-1], outputs[order[-1]])]
    for number in order:
        kind, shape = forms[5 * number], (*x.shape[:-1], outputs[number])
        found += [] if kind == 0 else [x.new_empty(shape), x.new_empty(shape if kind == 1 else 0)]
    return found


_stages = operator(
    "stages(Tensor x, Tensor? pe, Tensor?[] weights, Tensor?[] states, Tensor[] edges, int[] forms, float[] eps, "
    "int[] order) -> Tensor[]",
    _run,
    _empty,
)
