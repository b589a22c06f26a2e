r"""The gated linear recurrence as an operator of PyTorch, and its kernels.

Shape legend: as in :mod:`rstg_pyg.ops.scan`. In a kernel, t and c stand for the frames and channels that a program
holds at a time, which runs through all frames of some channels of one sequence.
"""

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from rstg_pyg.ops.plain_scan import check_scan, gradients, save
from rstg_pyg.ops.triton.tiles import accumulator, device_of

_FRAMES = 16
_CHANNELS = 64


@triton.jit
def _both(a, b, next_a, next_b):
    """Two steps :math:`h = a h + b` as one."""
    return a * next_a, next_a * b + next_b


@triton.jit
def _last(x, t, block_t: tl.constexpr):
    """The row ``[c]`` of the last frame."""
    return tl.sum(tl.where((t == block_t - 1)[:, None], x, 0.0), axis=0)


@triton.jit
def _place(ptr, channels: tl.constexpr, block_c: tl.constexpr):
    """This program's sequence, the rows where it begins and ends, and its channels."""
    blocks: tl.constexpr = (channels + block_c - 1) // block_c
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    c = (tl.program_id(0) % blocks) * block_c + tl.arange(0, block_c)
    return sequence, tl.load(ptr + sequence), tl.load(ptr + sequence + 1), c


@triton.jit
def scan_kernel(
    gates,
    first,
    last,
    out,
    ptr,
    channels: tl.constexpr,
    block_t: tl.constexpr,
    block_c: tl.constexpr,
    number: tl.constexpr,
):
    r""":math:`h^t = \sigma(d^t) h^{t-1} + \sigma(-d^t) v^t`."""
    sequence, begin, end, c = _place(ptr, channels, block_c)
    t = tl.arange(0, block_t)
    h = tl.load(first + sequence * channels + c, mask=c < channels, other=0.0)
    for start in range(begin, end, block_t):
        row = start + t
        real = (row < end)[:, None] & (c < channels)[None, :]
        place = row[:, None] * (2 * channels) + c[None, :]
        d = tl.load(gates + place, mask=real, other=0.0).to(number)
        v = tl.load(gates + place + channels, mask=real, other=0.0).to(number)
        # Beyond the end the state stays what it is.
        a = tl.where(real, tl.sigmoid(d), 1.0)
        a, b = tl.associative_scan((a, tl.where(real, tl.sigmoid(-d) * v, 0.0)), 0, _both)
        hs = a * h[None, :] + b
        tl.store(out + row[:, None] * channels + c[None, :], hs.to(out.dtype.element_ty), mask=real)
        h = _last(hs, t, block_t)
    tl.store(last + sequence * channels + c, h, mask=c < channels)


@triton.jit
def scan_grad_kernel(
    gates,
    first,
    out,
    grad,
    last_grad,
    gates_grad,
    first_grad,
    ptr,
    channels: tl.constexpr,
    block_t: tl.constexpr,
    block_c: tl.constexpr,
    number: tl.constexpr,
):
    r"""From the last frame to the first, :math:`g^t = \nabla^t + a^{t+1} g^{t+1}`; the gradient of ``d`` is
    :math:`g^t a^t (1 - a^t) (h^{t-1} - v^t)`, that of ``v`` :math:`g^t (1 - a^t)`."""
    sequence, begin, end, c = _place(ptr, channels, block_c)
    t = tl.arange(0, block_t)
    state = sequence * channels + c
    g = tl.load(last_grad + state, mask=c < channels, other=0.0)
    h0 = tl.load(first + state, mask=c < channels, other=0.0)
    for walked in range(0, end - begin, block_t):
        row = end - 1 - walked - t
        real = (row >= begin)[:, None] & (c < channels)[None, :]
        place = row[:, None] * (2 * channels) + c[None, :]
        d = tl.load(gates + place, mask=real, other=0.0).to(number)
        v = tl.load(gates + place + channels, mask=real, other=0.0).to(number)
        follows = real & (row + 1 < end)[:, None]
        d_next = tl.load(gates + place + 2 * channels, mask=follows, other=0.0).to(number)
        h = out + (row - 1)[:, None] * channels + c[None, :]
        before = tl.load(h, mask=real & (row > begin)[:, None], other=0.0).to(number)
        before = tl.where((row > begin)[:, None], before, h0[None, :])
        incoming = tl.load(grad + row[:, None] * channels + c[None, :], mask=real, other=0.0).to(number)
        a, b = tl.associative_scan((tl.where(follows, tl.sigmoid(d_next), 1.0), incoming), 0, _both)
        gs = a * g[None, :] + b
        taken = gs * tl.sigmoid(-d)
        d_grad = taken * tl.sigmoid(d) * (before - v)
        tl.store(gates_grad + place, d_grad.to(gates_grad.dtype.element_ty), mask=real)
        tl.store(gates_grad + place + channels, taken.to(gates_grad.dtype.element_ty), mask=real)
        g = _last(gs, t, block_t)
    if begin < end:
        d = tl.load(gates + begin * (2 * channels) + c, mask=c < channels, other=0.0).to(number)
        g = g * tl.sigmoid(d)
    tl.store(first_grad + state, g, mask=c < channels)


@torch.library.custom_op("rstg_pyg::triton_gated_scan", mutates_args=())
def gated_scan(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`rstg_pyg.ops.scan.gated_scan`."""
    check_scan(gates, h0, ptr)
    gates, h0 = gates.contiguous(), h0.contiguous()
    out, last = gates.new_empty(gates.size(0), h0.size(1)), torch.empty_like(h0)
    _launch(scan_kernel, gates, h0, last, out, ptr=ptr)
    return out, last


@gated_scan.register_fake
def _(gates, h0, ptr):
    return gates.new_empty(gates.size(0), h0.size(1)), h0.new_empty(h0.shape)


@torch.library.custom_op("rstg_pyg::triton_gated_scan_grad", mutates_args=())
def gated_scan_grad(
    grad: Tensor | None, grad_last: Tensor | None, gates: Tensor, h0: Tensor, ptr: Tensor | None, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the gates and of the first states from those of :func:`gated_scan`."""
    gates, h0 = gates.contiguous(), h0.contiguous()
    grad = torch.zeros_like(out) if grad is None else grad.contiguous()
    grad_last = torch.zeros_like(h0) if grad_last is None else grad_last.contiguous()
    of_gates, of_h0 = torch.empty_like(gates), torch.empty_like(h0)
    _launch(scan_grad_kernel, gates, h0, out, grad, grad_last, of_gates, of_h0, ptr=ptr)
    return of_gates, of_h0


@gated_scan_grad.register_fake
def _(grad, grad_last, gates, h0, ptr, out):
    return gates.new_empty(gates.shape), h0.new_empty(h0.shape)


def _launch(kernel, gates: Tensor, h0: Tensor, *rest: Tensor, ptr: Tensor | None) -> None:
    count, channels = h0.shape
    if h0.numel() == 0:
        return
    if ptr is None:
        ptr = torch.arange(count + 1, device=gates.device) * (gates.size(0) // count)
    block_c = min(triton.next_power_of_2(channels), _CHANNELS)
    with device_of(gates):
        kernel[(count * triton.cdiv(channels, block_c),)](
            gates,
            h0,
            *rest,
            ptr.contiguous(),
            channels=channels,
            block_t=_FRAMES,
            block_c=block_c,
            number=accumulator(gates),
            num_warps=2,
        )


gated_scan.register_autograd(partial(gradients, gated_scan_grad), setup_context=save)
