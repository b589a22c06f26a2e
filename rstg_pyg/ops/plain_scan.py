"""The gated linear recurrence as it is written down, and what its operators have in common: checks and gradients.

Shape legend: as in :mod:`rstg_pyg.ops.scan`; T frames of the longest sequence.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rstg_pyg.arguments import describe
from rstg_pyg.ops.operators import differentiable_gradients, takes_plain_gradient
from rstg_pyg.watched import assert_later


def plain_gated_scan(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    """What :func:`~rstg_pyg.ops.scan.gated_scan` computes, as it is written down."""
    decay, value = gates.to(h0.dtype).chunk(2, -1)
    a, b = decay.sigmoid(), (-decay).sigmoid() * value
    if gates.size(0) == 0:
        return b.to(gates.dtype), h0
    if ptr is None:
        h = linear_scan(a.unflatten(0, (h0.size(0), -1)), b.unflatten(0, (h0.size(0), -1)), h0)
        return h.flatten(0, 1).to(gates.dtype), h[:, -1].clone()
    # Frames that are not there leave the state as it is: a = 1, b = 0.
    lengths = ptr.diff()
    there = torch.arange(int(lengths.max()), device=ptr.device) < lengths.unsqueeze(1)
    rows, shape = there.flatten().nonzero().squeeze(1), (there.numel(), h0.size(1))
    a, b = (fill.index_copy(0, rows, x) for fill, x in ((a.new_ones(shape), a), (b.new_zeros(shape), b)))
    h = linear_scan(a.unflatten(0, there.shape), b.unflatten(0, there.shape), h0)
    return h.flatten(0, 1).index_select(0, rows).to(gates.dtype), h[:, -1]


def linear_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    r"""Run :math:`\mathbf{h}^t = \mathbf{a}^t \mathbf{h}^{t-1} + \mathbf{b}^t` in about :math:`2 \sqrt{T}` steps.

    All chunks of :math:`\sqrt{T}` frames are walked at once from a state of zero; then, from chunk to chunk, the state
    that each starts from. Nothing is divided by a product of decays, which may be as small as it likes.

    Shapes:
        - **a, b:** ``[R, T, C]``. **h0:** ``[R, C]``. **output:** ``[R, T, C]``.
    """
    num_frames = a.size(1)
    size = math.isqrt(num_frames - 1) + 1
    chunks = -(-num_frames // size)
    missing = chunks * size - num_frames
    a, b = F.pad(a, (0, 0, 0, missing), value=1.0), F.pad(b, (0, 0, 0, missing))
    a, b = (value.unflatten(1, (chunks, size)).unbind(2) for value in (a, b))
    decays, states = [a[0]], [b[0]]
    for k in range(1, size):
        decays.append(a[k] * decays[-1])
        states.append(a[k] * states[-1] + b[k])
    starts = [h0]
    for k in range(chunks - 1):
        starts.append(decays[-1][:, k] * starts[-1] + states[-1][:, k])
    out = torch.stack(states, 2) + torch.stack(decays, 2) * torch.stack(starts, 1).unsqueeze(2)
    return out.flatten(1, 2)[:, :num_frames]


def check_scan(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> None:
    """Raise a ValueError where a kernel would read memory that is not the tensors'; where only the device knows
    ``ptr``, an assertion fails later."""
    dtype = torch.promote_types(gates.dtype, torch.float32)
    if gates.dim() != 2 or h0.dim() != 2 or gates.size(1) != 2 * h0.size(1) or h0.dtype != dtype:
        raise ValueError(
            f"expected 'gates' of shape [M, 2 * C], and 'h0' of shape [R, C] and type {dtype}, got {describe(gates)} "
            f"and {h0.dtype} of shape {list(h0.shape)}"
        )
    if gates.device != h0.device or (ptr is not None and ptr.device != h0.device):
        raise ValueError(f"expected tensors on one device, got {gates.device} and {h0.device}")
    count, num_rows = h0.size(0), gates.size(0)
    if ptr is None:
        if num_rows % max(1, count) or (count == 0 and num_rows > 0):
            raise ValueError(f"expected 'gates' of {count} sequences of one length, got {num_rows} rows")
        return
    if ptr.dtype != torch.int64 or ptr.shape != (count + 1,):
        raise ValueError(f"expected 'ptr' of shape {[count + 1]} and type torch.int64, got {describe(ptr, typed=True)}")
    fits = (ptr.diff() >= 0).all() & (ptr[0] == 0) & (ptr[-1] == num_rows)
    if torch.compiler.is_compiling() or not ptr.is_cpu:
        assert_later(fits, "'ptr' does not lead from 0 to the number of rows")
    elif not fits:
        raise ValueError(f"expected 'ptr' to lead from 0 to {num_rows} rows and not to decrease, got {ptr.tolist()}")


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[0])


def gradients(
    backward: Callable[..., tuple[Tensor, Tensor]], ctx: Any, grad: Tensor | None, grad_last: Tensor | None
) -> tuple[Tensor | None, ...]:
    """What an operator gives back, whose own backward pass is ``backward``."""
    gates, h0, ptr, out = ctx.saved_tensors
    given = [one for one in (grad, grad_last) if one is not None]
    if not given:
        return None, None, None
    if takes_plain_gradient(*given):

        def run(gates: Tensor, h0: Tensor) -> list[Tensor]:
            outputs = plain_gated_scan(gates, h0, ptr)
            return [value for value, one in zip(outputs, (grad, grad_last), strict=True) if one is not None]

        return *differentiable_gradients(run, (gates, h0), ctx.needs_input_grad[:2], given), None
    found = backward(grad, grad_last, gates, h0, ptr, out)
    return *(value if need else None for value, need in zip(found, ctx.needs_input_grad, strict=False)), None
