r"""Kernels for the softmax over the edges of each destination.

Shape legend: N nodes, E edges, R rows (frames times heads); scores and weights are ``[E, R]``. In a kernel, e and r
stand for the edges and rows that a program holds at a time.
"""

import triton
import triton.language as tl

from rstg_pyg.ops.triton.tiles import locate


@triton.jit
def _edges_of(ptr, rank):
    return tl.load(ptr + rank), tl.load(ptr + rank + 1)


@triton.jit
def _tile(first, end, r0, num_rows, block_e: tl.constexpr, block_r: tl.constexpr):
    """Offsets ``[e, r]``, and which of them exist."""
    e = (first + tl.arange(0, block_e))[:, None]
    r = tl.arange(0, block_r)[None, :]
    return e * num_rows + r0 + r, (e < end) & (r0 + r < num_rows)


@triton.jit(do_not_specialize=["num_nodes", "num_rows"])
def softmax_kernel(
    score, alpha, ptr, num_nodes, num_rows, block_r: tl.constexpr, block_e: tl.constexpr, number: tl.constexpr
):
    r"""``alpha`` :math:`= e^{s_e - m} / \sum_{e'} e^{s_{e'} - m}`, m the largest score of the destination.

    The sum is carried along with the largest score so far, and rescaled when that grows.
    """
    slot, r0, _ = locate(num_nodes, num_rows, block_r, 1)
    begin, end = _edges_of(ptr, num_nodes - 1 - slot)
    largest = tl.full([block_r], float("-inf"), dtype=number)
    total = tl.zeros([block_r], dtype=number)
    for first in range(begin, end, block_e):
        er, in_er = _tile(first, end, r0, num_rows, block_e, block_r)
        s = tl.load(score + er, mask=in_er, other=0.0).to(number)
        s = tl.where((first + tl.arange(0, block_e) < end)[:, None], s, float("-inf"))
        larger = tl.maximum(largest, tl.max(s, axis=0))
        # As long as every score is -inf, the sum is 0, whatever is taken from the scores.
        shift = tl.where(larger == float("-inf"), 0.0, larger)
        total = total * tl.exp(largest - shift) + tl.sum(tl.exp(s - shift[None, :]), axis=0)
        largest = larger
    for first in range(begin, end, block_e):
        er, in_er = _tile(first, end, r0, num_rows, block_e, block_r)
        s = tl.load(score + er, mask=in_er, other=float("-inf")).to(number)
        weight = tl.exp(s - largest[None, :]) / total[None, :]
        tl.store(alpha + er, weight.to(alpha.dtype.element_ty), mask=in_er)


@triton.jit(do_not_specialize=["num_nodes", "num_rows"])
def softmax_grad_kernel(
    alpha,
    grad,
    score_grad,
    ptr,
    num_nodes,
    num_rows,
    block_r: tl.constexpr,
    block_e: tl.constexpr,
    number: tl.constexpr,
):
    r"""``score_grad`` :math:`= \alpha_e (\nabla_e - \sum_{e'} \alpha_{e'} \nabla_{e'})`."""
    slot, r0, _ = locate(num_nodes, num_rows, block_r, 1)
    begin, end = _edges_of(ptr, num_nodes - 1 - slot)
    total = tl.zeros([block_r], dtype=number)
    for first in range(begin, end, block_e):
        er, in_er = _tile(first, end, r0, num_rows, block_e, block_r)
        a = tl.load(alpha + er, mask=in_er, other=0.0).to(number)
        total += tl.sum(a * tl.load(grad + er, mask=in_er, other=0.0).to(number), axis=0)
    for first in range(begin, end, block_e):
        er, in_er = _tile(first, end, r0, num_rows, block_e, block_r)
        a = tl.load(alpha + er, mask=in_er, other=0.0).to(number)
        g = tl.load(grad + er, mask=in_er, other=0.0).to(number)
        result = a * (g - total[None, :])
        tl.store(score_grad + er, result.to(score_grad.dtype.element_ty), mask=in_er)
