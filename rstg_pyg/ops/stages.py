r"""Stages one after the other in one native call, for few rows and without gradients: the next frame of a stream.

Of a small graph, the calls between the stages' products take several times as long as the products.

Shape legend: N nodes, E edges, F frames, R rows (nodes times frames), C input and O output channels, P position
channels, H hidden channels, U channels of the update's hidden layer, G gates: 4 of an LSTM, 3 of a GRU.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from rstg_pyg.ops.index import GraphIndex
from rstg_pyg.ops.native.attend import address, check, is_available, library_for
from rstg_pyg.ops.operators import operator

MAX_PRODUCT = 1 << 22
"""Multiplications of a product, rows times inputs times outputs, up to which one call is taken. It was faster than
PyTorch's calls there on every size that was tried (64 to 512 channels, 1 to 16 clips, a Zen 3)."""

_DTYPES = (torch.float32, torch.float64)
_CALL, _STAGE, _STATES = struct.Struct("13q"), struct.Struct("5qd23q"), struct.Struct("5q")
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

    @property
    def outputs(self) -> int:
        return self.query.size(0)

    def shapes(self, positions: int) -> list[tuple[int, ...]]:
        (hidden, channels), outputs = self.src.shape, self.outputs
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

    @property
    def outputs(self) -> int:
        return self.weight_hh.size(1)

    def shapes(self, gates: int) -> list[tuple[int, ...]]:
        size, channels = self.outputs, self.weight_ih.size(1)
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
    weighs: bool = False,
) -> tuple[Tensor, list[tuple[Tensor, ...]], list[Tensor]]:
    r"""Run stages one after the other: a space stage computes what :class:`~rstg_pyg.RSTGConv` does, a time stage one
    step of :class:`torch.nn.LSTM` or :class:`torch.nn.GRU`,

    .. math::
        \mathbf{v} \leftarrow f(\mathrm{norm}(\mathbf{v})) \; [{} + \mathbf{v}]

    Args:
        x: Rows.
        stages: What they compute; the same object again where a stage runs again.
        index: The graph of the space stages.
        pe: Positional encodings, or None.
        states: Of every time stage in turn ``(h, c)`` or ``(h,)``; None for zero.
        weighs: Whether attention weights are wanted.

    Shapes:
        - **x:** ``[N, F, C]``. **pe:** ``[N, P]``. **states:** ``[N, F, C]``.
        - **output:** ``[N, F, O]``, the new states, and of every space stage the weights ``[E, F, heads]`` of the edges
          as given, if wanted. None of them share memory.

    Raises:
        ValueError: If tensors are not on the CPU, of one type, or of the shapes that belong together.

    Example:
        >>> import torch
        >>> from rstg_pyg.ops.native.attend import is_available
        >>> from rstg_pyg.ops.stages import CellWeights, Stage, run_stages
        >>> gru = Stage("gru", CellWeights(*torch.nn.GRU(8, 8).all_weights[0]))
        >>> if is_available():
        ...     with torch.no_grad():
        ...         out, [(h,)], _ = run_stages(torch.randn(14, 2, 8), [gru])
        ...     assert torch.equal(out, h)
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
    out, *found = _stages(x, pe, weights, given, edges, forms, eps, order, weighs)
    after, alphas = found[: 2 * len(kinds)], found[2 * len(kinds) :]
    pairs = zip(after[::2], after[1::2], kinds, strict=True)
    alphas = [alpha.index_select(0, index.inverse) for alpha in alphas]
    return out, [(h,) if kind == "gru" else (h, c) for h, c, kind in pairs], alphas


def _run(
    x: Tensor,
    pe: Tensor | None,
    weights: list[Tensor | None],
    states: list[Tensor | None],
    edges: list[Tensor],
    forms: list[int],
    eps: list[float],
    order: list[int],
    weighs: bool,
) -> list[Tensor]:
    num_nodes, num_frames, channels = x.shape
    positions, num_edges = 0 if pe is None else pe.size(1), edges[3].size(0) if edges else 0
    x, pe = _checked((x, pe), (x.shape, (num_nodes, positions)), x)
    if edges and [end.size(0) for end in edges[:3]] != [num_nodes, num_nodes + 1, num_edges]:
        raise ValueError(f"expected a graph of the {num_nodes} nodes of 'x', got one of {edges[0].size(0)}")
    if not all([end.is_cpu and end.dtype == torch.int64 for end in edges]):
        raise ValueError(f"expected edges on the CPU, int64, got {edges[2].dtype} on {edges[2].device}")
    stages = [
        (form, layers.outputs, *_packed(form, of_norm, layers, norm, positions, x))
        for form, of_norm, layers, norm in _by_stage(weights, forms, eps)
    ]
    packed, kept, after, alphas = [], [stages], [], []
    for number in order:
        (kind, *_, heads, _), outputs, inputs, record, _ = stages[number]
        if inputs != channels or (kind == 0 and not edges):
            got = f"{channels} and {'edges' if edges else 'none'}"
            raise ValueError(f"expected {inputs} channels, and edges for a space stage, got {got}")
        channels, before, new, alpha = outputs, (None, None), (None, None), None
        if kind > 0:
            shape = num_nodes, num_frames, outputs
            before = _checked(states[len(after) : len(after) + 2], (shape, shape), x)
            new = x.new_empty(shape), x.new_empty(shape if kind == 1 else 0)
            after += new
            kept.append(before)
        elif weighs:
            alpha = x.new_empty(num_edges, num_frames, heads)
            alphas.append(alpha)
        packed += record, _STATES.pack(*map(address, (*before, *new, alpha)))
    out = x.new_empty(num_nodes, num_frames, channels)
    sizes = torch.get_num_threads(), len(order), num_nodes, num_edges, num_frames, positions
    call = _CALL.pack(*sizes, *map(address, (*(edges or [None] * 4), x, pe, out)))
    check(library_for(x.dtype).rstg_stages(call, b"".join(packed)))
    return [out, *after, *alphas]


def _by_stage(weights: list[Tensor | None], forms: list[int], eps: list[float]) -> Iterator[tuple[Any, ...]]:
    """Of every stage its form (kind, residual, whether it is normed, heads, active end), eps, layers and norm."""
    first = 0
    for number, of_norm in enumerate(eps):
        form = forms[5 * number : 5 * number + 5]
        kind = CellWeights if form[0] else SpaceWeights
        end = first + len(kind._fields)
        yield form, of_norm, kind(*weights[first:end]), weights[end : end + 2]
        first = end + 2


def _packed(
    form: list[int],
    eps: float,
    layers: SpaceWeights | CellWeights,
    norm: list[Tensor | None],
    positions: int,
    x: Tensor,
) -> tuple[int, bytes, list[Tensor | None]]:
    """Channels that a stage takes, its fields in ``stages.h`` but for the last ones, and what they point to."""
    kind, residual, is_normed, heads, act_last = form
    shapes = layers.shapes((4, 3)[kind - 1] if kind else positions)
    channels = shapes[0][1]
    tensors = _checked([*layers, *norm], (*shapes, (channels,), (channels,)), x)
    *addresses, weight, bias = map(address, tensors)
    fields = kind, channels, layers.outputs, residual, is_normed, eps, weight, bias
    if kind == 0:
        fields += layers.src.size(0), shapes[9][0], heads, act_last, *addresses, 0, 0, 0, 0
    else:
        fields += *(0,) * 17, *addresses
    return channels, _STAGE.pack(*fields), tensors


def _checked(values: Sequence[Tensor | None], shapes: Sequence[Sequence[int]], like: Tensor) -> list[Tensor | None]:
    """The tensors as the library reads them, once their shapes are what it takes them to be."""
    for value, shape in zip(values, shapes, strict=True):
        if value is not None and (value.shape != shape or value.dtype != like.dtype or not value.is_cpu):
            raise ValueError(
                f"expected a tensor on the CPU, {like.dtype}, of shape {list(shape)}, got {value.dtype} "
                f"{list(value.shape)} on {value.device}"
            )
    return [value if value is None else value.contiguous().resolve_neg() for value in values]


def _empty(
    x: Tensor, pe: Tensor | None, weights: list[Tensor | None], states: Any, edges: list[Tensor], *rest: Any
) -> list[Tensor]:
    forms, eps, order, weighs = rest
    known = [(form, layers.outputs) for form, _, layers, _ in _by_stage(weights, forms, eps)]
    rows, after, alphas = x.shape[:-1], [], []
    for (kind, *_, heads, _), outputs in (known[number] for number in order):
        if kind > 0:
            after += x.new_empty(*rows, outputs), x.new_empty((*rows, outputs) if kind == 1 else 0)
        elif weighs:
            alphas.append(x.new_empty(edges[3].size(0), rows[1], heads))
    return [x.new_empty(*rows, known[order[-1]][1]), *after, *alphas]


_stages = operator(
    "stages(Tensor x, Tensor? pe, Tensor?[] weights, Tensor?[] states, Tensor[] edges, int[] forms, float[] eps, "
    "int[] order, bool weighs) -> Tensor[]",
    _run,
    _empty,
)
