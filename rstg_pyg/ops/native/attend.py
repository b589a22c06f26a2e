r"""Attention and the weighted sum of rectified edge sums in one pass over the nodes of each frame.

Shape legend: N nodes, E edges in the order of ``index``, F frames, H hidden channels, K heads of D channels.
"""

import struct
from collections.abc import Sequence
from ctypes import CDLL
from typing import Any

import torch
from torch import Tensor

from rstg_pyg.ops.index import GraphIndex
from rstg_pyg.ops.native.build import library
from rstg_pyg.ops.operators import differentiable_gradients, operator, takes_plain_gradient
from rstg_pyg.ops.plain import Ends, plain_attend, plain_messages, relu_message

KINDS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
"""How ``arguments.h`` numbers the types."""

_NUMBERS = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "float"}
_ARGUMENTS = struct.Struct("45q")
_ABSENT = (0, 0, 0)


@torch.compiler.assume_constant_result
def is_available(dtype: torch.dtype = torch.float32) -> bool:
    """Whether the native kernels run here, on tensors of ``dtype``; the first call compiles them."""
    return dtype in _NUMBERS and library_for(dtype) is not None


def library_for(dtype: torch.dtype) -> CDLL | None:
    """The library that computes on tensors of ``dtype``."""
    return library(_NUMBERS[dtype])


def attend(
    src: Tensor, dst: Tensor, query: Tensor, key: Tensor, edge: Tensor | None, index: GraphIndex
) -> tuple[Tensor, Tensor]:
    r"""Weigh the neighbours of each destination i by dot attention and sum them:

    .. math::
        \alpha_{ji}^k = \mathrm{softmax}_{j \in \mathcal{N}(i)} (\mathbf{q}_i^k \cdot \mathbf{k}_j^k), \qquad
        \mathbf{g}_i^k = \sum_j \alpha_{ji}^k \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    The tensors are of one type: float32, float64 or bfloat16. Sums run in float32 or float64.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **query, key:** ``[N, F, K, D]``. **edge:** ``[E, F or 1, H]``.
        - **output:** ``[N, F, K, H]`` in the type of the inputs, and the weights ``[E, F, K]`` in the type of the sums.
          Both are differentiable.
    """
    return _attend(src, dst, query, key, edge, index.nodes, index.ptr, index.src, index.dst)


def attention_weights(query: Tensor, key: Tensor, index: GraphIndex) -> Tensor:
    """The weights of :func:`attend` alone, ``[E, F, K]``, from ``query, key [N, F, K, D]``."""
    nothing = query.new_empty(*query.shape[:2], 0)
    return attend(nothing, nothing, query, key, None, index)[1]


def weighted_relu(src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, index: GraphIndex) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    The tensors are of one type, as for :func:`attend`; ``alpha`` may also have the type of the sums.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]``. **edge:** ``[E, F or 1, H]``.
        - **output:** ``[N, F, K, H]``.
    """
    return _weighted_relu(src, dst, alpha, edge, index.nodes, index.ptr, index.src, index.dst)


def _run_attend(src: Tensor, dst: Tensor, query: Tensor, key: Tensor, edge: Tensor | None, *index: Tensor) -> Any:
    _check(src, dst, edge, *index)
    _expect(query, "query", src.dtype, (*src.shape[:2], *query.shape[2:]), 4)
    _expect(key, "key", src.dtype, query.shape, 4)
    alpha = _weights_like(query, index[2])
    total = _sums_like(src, alpha)
    if alpha.numel() == 0:
        return total.zero_(), alpha
    operands = strided(src), strided(dst), strided(query), strided(key), edge
    _call("rstg_attend_forward", index, *operands, alpha, total, 0, *(_ABSENT,) * 4, 0, 0)
    return total, alpha


def _run_weighted_relu(src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, *index: Tensor) -> Tensor:
    _check(src, dst, edge, *index)
    _expect(alpha, "alpha", alpha.dtype, (index[2].size(0), src.size(1), alpha.size(-1)), 3)
    alpha = alpha.to(sum_dtype(src)).contiguous()
    total = _sums_like(src, alpha)
    if alpha.numel() == 0:
        return total.zero_()
    operands = strided(src), strided(dst), None, None, edge
    _call("rstg_attend_forward", index, *operands, alpha, total, 0, *(_ABSENT,) * 4, 0, 0)
    return total


def _run_backward(
    grad: Tensor | None,
    grad_alpha: Tensor | None,
    src: Tensor,
    dst: Tensor,
    query: Tensor | None,
    key: Tensor | None,
    edge: Tensor | None,
    alpha: Tensor,
    nodes: Tensor,
    ptr: Tensor,
    sources: Tensor,
    destinations: Tensor,
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    """Gradients of src, dst, query, key, edge and alpha; without elements those that are not wanted."""
    found = gradients_like((src, dst, query, key, edge, alpha), wanted)
    if alpha.numel() == 0:
        return tuple(value.zero_() for value in found)
    weights = alpha.to(sum_dtype(src)).contiguous()
    # The library writes in the type of the sums, and `alpha` may have come in a narrower one.
    into = [value if value.numel() else None for value in found]
    into[5] = torch.empty_like(weights) if into[5] is not None else None
    given = [None if value is None else strided(value) for value in (src, dst, query, key)]
    rows = [rows_of(value) for value in into[:4]]
    kept = None if grad_alpha is None else grad_alpha.contiguous()
    total = None if grad is None else grad.contiguous()
    index = nodes, ptr, sources, destinations
    ends = address(kept), *rows, address(into[4]), address(into[5])
    _call("rstg_attend_backward", index, *given, edge, weights, total, *ends)
    return *found[:5], found[5] if into[5] is None else into[5].to(alpha.dtype)


def gradients_like(inputs: Sequence[Tensor | None], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """Room for the gradients of ``inputs``, without elements for those that are not wanted."""
    like = next(value for value in inputs if value is not None)
    return tuple(
        like.new_empty(value.shape if want else 0, dtype=(like if value is None else value).dtype)
        for value, want in zip(inputs, wanted, strict=True)
    )


def _fake_backward(grad: Tensor | None, grad_alpha: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    return gradients_like(rest[:6], rest[-1])


def _call(
    name: str,
    index: tuple[Tensor, ...],
    src: Tensor,
    dst: Tensor,
    query: Tensor | None,
    key: Tensor | None,
    edge: Tensor | None,
    alpha: Tensor,
    total: Tensor | None,
    *gradients: Any,
) -> None:
    """Pack the fields of ``Arguments`` in ``arguments.h`` and call a function of the library."""
    nodes, ptr, sources, destinations = index
    edge = None if edge is None else edge.contiguous()
    grad_alpha, grad_src, grad_dst, grad_query, grad_key, *rest = gradients
    packed = _ARGUMENTS.pack(
        KINDS[src.dtype],
        torch.get_num_threads(),
        *(src.size(0), sources.size(0), src.size(1), src.size(2), alpha.size(2)),
        0 if query is None else query.size(3),
        *(nodes.data_ptr(), ptr.data_ptr(), sources.data_ptr(), destinations.data_ptr()),
        *rows_of(src),
        *rows_of(dst),
        *rows_of(query),
        *rows_of(key),
        address(edge),
        0 if edge is None else edge.size(1),
        alpha.data_ptr(),
        *rows_of(total),
        grad_alpha,
        *grad_src,
        *grad_dst,
        *grad_query,
        *grad_key,
        *rest,
    )
    check(getattr(library_for(src.dtype), name)(packed))


def _weights_like(query: Tensor, sources: Tensor) -> Tensor:
    return query.new_empty(sources.size(0), query.size(1), query.size(2), dtype=sum_dtype(query))


def _sums_like(src: Tensor, alpha: Tensor) -> Tensor:
    return src.new_empty(src.size(0), src.size(1), alpha.size(2), src.size(2))


def _fake_attend(src: Tensor, dst: Tensor, query: Tensor, key: Tensor, edge: Tensor | None, *index: Tensor) -> Any:
    alpha = _weights_like(query, index[2])
    return _sums_like(src, alpha), alpha


def _fake_weighted_relu(src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, *index: Tensor) -> Tensor:
    return _sums_like(src, alpha)


def _save_attend(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _backward_of_attend(ctx: Any, grad: Tensor | None, grad_alpha: Tensor | None) -> tuple[Tensor | None, ...]:
    src, dst, query, key, edge, nodes, ptr, sources, destinations, alpha = ctx.saved_tensors
    inputs, needed = (src, dst, query, key, edge), ctx.needs_input_grad[:5]
    if grad is None and grad_alpha is None:
        return (None,) * 9
    if takes_plain_gradient(grad, grad_alpha):
        given = (grad, grad_alpha)

        def run(*own: Tensor | None) -> list[Tensor]:
            outputs = plain_attend(*own, Ends(sources, destinations))
            return [out for out, one in zip(outputs, given, strict=True) if one is not None]

        found = differentiable_gradients(run, inputs, needed, [one for one in given if one is not None])
        return *found, *(None,) * 4
    wanted = [need and (grad is not None or number in (2, 3)) for number, need in enumerate(needed)]
    found = _backward(grad, grad_alpha, *inputs, alpha, nodes, ptr, sources, destinations, [*wanted, False])
    return *_wanted(found[:5], wanted), *(None,) * 4


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_of_weighted_relu(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    src, dst, alpha, edge, nodes, ptr, sources, destinations = ctx.saved_tensors
    inputs, needed = (src, dst, alpha, edge), ctx.needs_input_grad[:4]
    if takes_plain_gradient(grad):

        def run(*own: Tensor | None) -> Tensor:
            return plain_messages(relu_message, *own, Ends(sources, destinations))

        return *differentiable_gradients(run, inputs, needed, grad), *(None,) * 4
    wanted = [needed[0], needed[1], False, False, needed[3], needed[2]]
    index = nodes, ptr, sources, destinations
    found = _backward(grad, None, src, dst, None, None, edge, alpha, *index, wanted)
    found = _wanted(found, wanted)
    return found[0], found[1], found[5], found[4], *(None,) * 4


def _wanted(found: tuple[Tensor, ...], wanted: list[bool]) -> list[Tensor | None]:
    return [value if want else None for value, want in zip(found, wanted, strict=False)]


_INDEX = "Tensor nodes, Tensor ptr, Tensor sources, Tensor destinations"
_backward = operator(
    "attend_backward(Tensor? grad, Tensor? grad_alpha, Tensor src, Tensor dst, Tensor? query, Tensor? key, "
    f"Tensor? edge, Tensor alpha, {_INDEX}, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
_attend = operator(
    f"attend(Tensor src, Tensor dst, Tensor query, Tensor key, Tensor? edge, {_INDEX}) -> (Tensor, Tensor)",
    _run_attend,
    _fake_attend,
    save=_save_attend,
    backward=_backward_of_attend,
)
_weighted_relu = operator(
    f"weighted_relu(Tensor src, Tensor dst, Tensor alpha, Tensor? edge, {_INDEX}) -> Tensor",
    _run_weighted_relu,
    _fake_weighted_relu,
    save=_save_inputs,
    backward=_backward_of_weighted_relu,
)


def _check(src: Tensor, dst: Tensor, edge: Tensor | None, *index: Tensor) -> None:
    check_inputs(src, dst, edge, index[0].size(0), index[2])


def check_inputs(src: Tensor, dst: Tensor, edge: Tensor | None, num_nodes: int, sources: Tensor) -> None:
    """Raise a ValueError where the library would read memory that is not the tensors'."""
    _expect(src, "src", src.dtype, (num_nodes, *src.shape[1:]), 3)
    _expect(dst, "dst", src.dtype, src.shape, 3)
    _expect(sources, "edges", torch.int64, sources.shape, 1)
    if edge is not None:
        frames = 1 if edge.size(1) == 1 else src.size(1)
        _expect(edge, "edge", src.dtype, (sources.size(0), frames, src.size(2)), 3)


def _expect(value: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...], num_dims: int) -> None:
    if value.dtype != dtype or value.shape != shape or value.dim() != num_dims or not value.is_cpu:
        raise ValueError(
            f"expected '{name}' on the CPU, {dtype} and of shape {list(shape)} in {num_dims} dimensions, "
            f"got {value.device}, {value.dtype} and {list(value.shape)}"
        )


def sum_dtype(value: Tensor) -> torch.dtype:
    """The type of sums over tensors like ``value``."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def strided(value: Tensor) -> Tensor:
    """``value [N, F, ...]`` with contiguous rows, a copy if need be."""
    row = 1
    for size, stride in zip(reversed(value.shape[2:]), reversed(value.stride()[2:]), strict=True):
        if size != 1 and stride != row:
            return value.contiguous()
        row *= size
    return value


def rows_of(value: Tensor | None) -> tuple[int, int, int]:
    """An ``Operand`` of ``arguments.h``: address and strides of nodes and frames."""
    return _ABSENT if value is None else (value.data_ptr(), value.stride(0), value.stride(1))


def address(value: Tensor | None) -> int:
    """Where the data lies; 0 for None."""
    return 0 if value is None else value.data_ptr()


def check(status: int) -> None:
    """Raise the error that a function of the library returns."""
    if status == 1:
        raise MemoryError("the native kernels ran out of memory")
    if status == 2:
        raise IndexError("an edge ends at a node that the graph does not have")
