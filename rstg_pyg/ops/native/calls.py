"""Calls of the native library on tensors.

Shape legend: N nodes, E edges in the order of ``neighborhoods``, F frames, H hidden channels, K heads of D channels.
"""

import struct
from ctypes import CDLL
from typing import NamedTuple

import torch
from torch import Tensor

from rstg_pyg.ops.native.build import library
from rstg_pyg.ops.neighborhoods import Neighborhoods

KINDS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
"""How ``arguments.h`` numbers the types."""

_NUMBERS = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "float"}
_ARGUMENTS = struct.Struct("45q")
_ABSENT = (0, 0, 0)


def is_available(dtype: torch.dtype = torch.float32) -> bool:
    """Whether the native kernels run here, on tensors of ``dtype``; the first call compiles them."""
    return dtype in _NUMBERS and library_for(dtype) is not None


def library_for(dtype: torch.dtype) -> CDLL | None:
    """The library that computes on tensors of ``dtype``."""
    return library(_NUMBERS[dtype])


class Gradients(NamedTuple):
    """The gradients that were asked for."""

    src: Tensor | None
    dst: Tensor | None
    query: Tensor | None
    key: Tensor | None
    edge: Tensor | None
    alpha: Tensor | None


class Call:
    """The arguments that the forward and the backward pass have in common.

    Either ``query`` and ``key`` or ``alpha`` alone for the forward pass; for the backward pass of attention all three.
    """

    def __init__(
        self,
        src: Tensor,
        dst: Tensor,
        edge: Tensor | None,
        neighborhoods: Neighborhoods,
        query: Tensor | None = None,
        key: Tensor | None = None,
        alpha: Tensor | None = None,
    ) -> None:
        check_inputs(src, dst, edge, neighborhoods)
        if query is not None:
            expect(query, "query", src.dtype, (*src.shape[:2], *query.shape[2:]), 4)
            expect(key, "key", src.dtype, query.shape, 4)
        if alpha is not None:
            expect(alpha, "alpha", alpha.dtype, (neighborhoods.num_edges, src.size(1), alpha.size(-1)), 3)
        self.neighborhoods = neighborhoods
        self.src, self.dst = strided(src), strided(dst)
        self.query = None if query is None else strided(query)
        self.key = None if key is None else strided(key)
        self.edge = None if edge is None else edge.contiguous()
        self.library = library_for(src.dtype)
        self.sum_dtype = torch.float64 if src.dtype == torch.float64 else torch.float32
        self.alpha_dtype = None if alpha is None else alpha.dtype
        self.alpha = None if alpha is None else alpha.to(self.sum_dtype).contiguous()
        self.heads = query.size(2) if alpha is None else alpha.size(2)

    def forward(self) -> tuple[Tensor, Tensor]:
        """The sums ``[N, F, K, H]`` and the weights ``[E, F, K]``."""
        src, alpha = self.src, self.alpha
        num_nodes, num_frames, hidden = src.shape
        total = src.new_empty(num_nodes, num_frames, self.heads, hidden)
        if alpha is None:
            alpha = src.new_empty(self.neighborhoods.num_edges, num_frames, self.heads, dtype=self.sum_dtype)
        if alpha.numel() == 0:
            return total.zero_(), alpha
        packed = self._pack(alpha, total, 0, *(_ABSENT,) * 4, 0, 0)
        check(self.library.rstg_attend_forward(packed))
        return total, alpha

    def backward(
        self,
        grad: Tensor | None,
        grad_alpha: Tensor | None,
        src: bool = False,
        dst: bool = False,
        query: bool = False,
        key: bool = False,
        edge: bool = False,
        alpha: bool = False,
    ) -> Gradients:
        """The gradients asked for, from those of the sums and of the weights."""
        sums = grad is not None
        found = Gradients(
            _like(self.src, src and sums),
            _like(self.dst, dst and sums),
            _like(self.query, query),
            _like(self.key, key),
            _like(self.edge, edge and sums and self.edge is not None),
            _like(self.alpha, alpha),
        )
        if self.alpha.numel() == 0:
            for value in found:
                if value is not None:
                    value.zero_()
            return found._replace(alpha=self._as_given(found.alpha))
        grad = None if grad is None else grad.contiguous()
        grad_alpha = None if grad_alpha is None else grad_alpha.contiguous()
        packed = self._pack(
            self.alpha,
            grad,
            address(grad_alpha),
            *(rows_of(value) for value in found[:4]),
            address(found.edge),
            address(found.alpha),
        )
        check(self.library.rstg_attend_backward(packed))
        return found._replace(alpha=self._as_given(found.alpha))

    def _as_given(self, grad_alpha: Tensor | None) -> Tensor | None:
        return None if grad_alpha is None else grad_alpha.to(self.alpha_dtype)

    def _pack(self, alpha: Tensor, total: Tensor | None, alpha_incoming: int, *gradients) -> bytes:
        """The fields of ``Arguments`` in ``arguments.h``."""
        index, src, edge = self.neighborhoods, self.src, self.edge
        grad_src, grad_dst, grad_query, grad_key, grad_edge, grad_alpha = gradients
        return _ARGUMENTS.pack(
            KINDS[src.dtype],
            torch.get_num_threads(),
            src.size(0),
            index.num_edges,
            src.size(1),
            src.size(2),
            self.heads,
            0 if self.query is None else self.query.size(3),
            index.nodes.data_ptr(),
            index.ptr.data_ptr(),
            index.src.data_ptr(),
            index.dst.data_ptr(),
            *rows_of(src),
            *rows_of(self.dst),
            *rows_of(self.query),
            *rows_of(self.key),
            address(edge),
            0 if edge is None else edge.size(1),
            alpha.data_ptr(),
            *rows_of(total),
            alpha_incoming,
            *grad_src,
            *grad_dst,
            *grad_query,
            *grad_key,
            grad_edge,
            grad_alpha,
        )


def check_inputs(src: Tensor, dst: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods) -> None:
    """Raise a ValueError where the library would read memory that is not the tensors'."""
    expect(src, "src", src.dtype, (neighborhoods.num_nodes, *src.shape[1:]), 3)
    expect(dst, "dst", src.dtype, src.shape, 3)
    expect(neighborhoods.src, "edges", torch.int64, neighborhoods.src.shape, 1)
    if edge is not None:
        frames = 1 if edge.size(1) == 1 else src.size(1)
        expect(edge, "edge", src.dtype, (neighborhoods.num_edges, frames, src.size(2)), 3)


def expect(value: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...], num_dims: int) -> None:
    """Raise a ValueError unless a tensor on the CPU is of this type and shape."""
    if value.dtype != dtype or value.shape != shape or value.dim() != num_dims or not value.is_cpu:
        raise ValueError(
            f"expected '{name}' on the CPU, {dtype} and of shape {list(shape)} in {num_dims} dimensions, "
            f"got {value.device}, {value.dtype} and {list(value.shape)}"
        )


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


def _like(value: Tensor | None, wanted: bool) -> Tensor | None:
    return torch.empty_like(value, memory_format=torch.contiguous_format) if wanted else None


def check(status: int) -> None:
    """Raise the error that a function of the library returns."""
    if status == 1:
        raise MemoryError("the native kernels ran out of memory")
    if status == 2:
        raise IndexError("an edge ends at a node that the graph does not have")
