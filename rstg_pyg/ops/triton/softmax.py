r"""The softmax over the edges of each destination as an operator of PyTorch, and its kernels.

Shape legend: N nodes, E edges, R rows (frames times heads); scores and weights are ``[E, R]``. In a kernel, e and r
stand for the edges and rows that a program holds at a time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rstg_pyg.ops.operators import takes_plain_gradient
from rstg_pyg.ops.triton.tiles import accumulator, device_of, locate


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


@torch.library.custom_op("rstg_pyg::triton_neighbor_softmax", mutates_args=())
def neighbor_softmax(score: Tensor, ptr: Tensor, destinations: Tensor) -> Tensor:
    """``[E, F, K]``, the softmax over the edges of each destination."""
    score = score.contiguous()
    alpha = torch.empty_like(score)
    _launch_softmax(softmax_kernel, score, alpha, ptr=ptr)
    return alpha


@neighbor_softmax.register_fake
def _(score, ptr, destinations):
    return torch.empty_like(score, memory_format=torch.contiguous_format)


@torch.library.custom_op("rstg_pyg::triton_neighbor_softmax_grad", mutates_args=())
def neighbor_softmax_grad(alpha: Tensor, grad: Tensor, ptr: Tensor) -> Tensor:
    """Gradient of the score from that of :func:`neighbor_softmax`."""
    alpha, grad = alpha.contiguous(), grad.contiguous()
    score_grad = torch.empty_like(alpha)
    _launch_softmax(softmax_grad_kernel, alpha, grad, score_grad, ptr=ptr)
    return score_grad


@neighbor_softmax_grad.register_fake
def _(alpha, grad, ptr):
    return torch.empty_like(alpha, memory_format=torch.contiguous_format)


def _launch_softmax(kernel, *tensors: Tensor, ptr: Tensor) -> None:
    num_nodes, num_rows = ptr.numel() - 1, tensors[0].size(1) * tensors[0].size(2)
    if tensors[0].numel() == 0:
        return
    block_r = min(triton.next_power_of_2(num_rows), 64)
    with device_of(ptr):
        kernel[(num_nodes * triton.cdiv(num_rows, block_r),)](
            *tensors,
            ptr,
            num_nodes,
            num_rows,
            block_r=block_r,
            block_e=max(8, 128 // block_r),
            number=accumulator(tensors[0]),
            num_warps=2,
        )


def _save_softmax(ctx, inputs, output):
    ctx.save_for_backward(output, *inputs[1:])


def _softmax_backward(ctx, grad):
    alpha, ptr, destinations = ctx.saved_tensors
    if takes_plain_gradient(grad):
        weighted = alpha * grad
        total = weighted.new_zeros(ptr.numel() - 1, *alpha.shape[1:]).index_add(0, destinations, weighted)
        return weighted - alpha * total.index_select(0, destinations), None, None
    return neighbor_softmax_grad(alpha, grad, ptr), None, None


neighbor_softmax.register_autograd(_softmax_backward, setup_context=_save_softmax)
