"""A gated linear recurrence over sequences, at the cost of the frames that are there.

Shape legend: M rows (frames of all sequences, sequence by sequence), R sequences, C channels; of the plain form, T
frames of the longest sequence.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rstg_pyg.arguments import check_choice, describe
from rstg_pyg.ops.native.attend import address, check, is_available, library_for, sum_dtype
from rstg_pyg.ops.operators import differentiable_gradients, operator, takes_plain_gradient
from rstg_pyg.ops.triton import attend as triton
from rstg_pyg.watched import assert_later, operations_are_watched

BACKENDS = ("native", "plain")
"""In the order in which they are asked."""

_ARGUMENTS = struct.Struct("12q")


def why_not(backend: str, gates: Tensor) -> str | None:
    """A reason why a backend of :func:`gated_scan` cannot run on ``gates``, or None."""
    check_choice("backend", backend, BACKENDS)
    if backend == "native" and not (gates.is_cpu and is_available(gates.dtype)):
        return (
            "expected a CPU, a C++ compiler and float32, float64 or bfloat16 with backend='native', "
            f"got {gates.dtype} on {gates.device}{'' if is_available() else ' and no library from a compiler'}"
        )
    if backend == "triton" and not triton.is_available(gates.device):
        return f"expected a CUDA device and Triton with backend='triton', got a tensor on {gates.device}"
    return None


def gated_scan(
    gates: Tensor, h0: Tensor, ptr: Tensor | None = None, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    r"""Run, with the halves of a row as :math:`\mathbf{d}^t` and :math:`\mathbf{v}^t`,

    .. math::
        \mathbf{h}^t = \mathbf{a}^t \, \mathbf{h}^{t-1} + (1 - \mathbf{a}^t) \, \mathbf{v}^t, \qquad
        \mathbf{a}^t = \sigma(\mathbf{d}^t)

    over sequences of the same length or of different ones. Both results can be differentiated, in ``gates`` and ``h0``;
    a second time, and under the transforms of :mod:`torch.func`, by the plain form.

    Args:
        gates: Frames of the sequences, one sequence after the other.
        h0: First states of the sequences; in float32 where the gates are of a narrower type, else in theirs.
        ptr: Where the rows of each sequence begin, and the end of the last one: int64. None for sequences of one
            length.
        backend: ``"native"`` code on a CPU, ``"triton"`` on CUDA, ``"plain"`` PyTorch; None takes the first of them
            that can run, and in exported programs the last.

    Shapes:
        - **gates:** ``[M, 2 * C]``. **h0:** ``[R, C]``. **ptr:** ``[R + 1]``.
        - **output:** ``h`` of all rows ``[M, C]``, and after the last one of each sequence, in the type of ``h0``,
          ``[R, C]``.

    Raises:
        ValueError: If an argument does not fit the others, or :func:`why_not` has a reason against the backend.

    Example:
        >>> import torch
        >>> from rstg_pyg.ops.scan import gated_scan
        >>> gates, h0 = torch.randn(6, 8), torch.zeros(3, 4)
        >>> out, h = gated_scan(gates, h0, torch.tensor([0, 3, 3, 6]))  # of 3, 0 and 3 frames
        >>> out.shape, h.shape
        (torch.Size([6, 4]), torch.Size([3, 4]))
    """
    if backend is None:
        watched = (
            not torch.compiler.is_compiling() and operations_are_watched() and (ptr is None or type(ptr) is Tensor)
        )
        is_plain = watched or torch.compiler.is_exporting()
        backend = "plain" if is_plain else next(name for name in BACKENDS if why_not(name, gates) is None)
    else:
        reason = why_not(backend, gates)
        if reason is not None:
            raise ValueError(reason)
    if backend == "native":
        return _scan(gates, h0, ptr)
    check_scan(gates, h0, ptr)
    return plain_gated_scan(gates, h0, ptr)


def plain_gated_scan(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    """What :func:`gated_scan` computes, as it is written down."""
    decay, value = gates.to(h0.dtype).chunk(2, -1)
    a, b = decay.sigmoid(), (-decay).sigmoid() * value
    if ptr is None:
        h = linear_scan(a.unflatten(0, (h0.size(0), -1)), b.unflatten(0, (h0.size(0), -1)), h0)
        return h.flatten(0, 1).to(gates.dtype), h[:, -1]
    if gates.size(0) == 0:
        return a, h0
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


def _run(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    check_scan(gates, h0, ptr)
    out, last = gates.new_empty(gates.size(0), h0.size(1)), h0.clone(memory_format=torch.contiguous_format)
    if out.numel():
        _call("rstg_scan_forward", gates.contiguous(), last, ptr, None, out, None, None)
    return out, last


def _run_backward(
    grad: Tensor | None, grad_last: Tensor | None, gates: Tensor, h0: Tensor, ptr: Tensor | None, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the gates and of the first states."""
    carry = torch.zeros_like(h0, memory_format=torch.contiguous_format)
    if grad_last is not None:
        carry.copy_(grad_last)
    of_gates = torch.empty_like(gates, memory_format=torch.contiguous_format)
    if out.numel():
        grad = torch.zeros_like(out) if grad is None else grad
        _call(
            "rstg_scan_backward",
            gates.contiguous(),
            carry,
            ptr,
            h0.contiguous(),
            out.contiguous(),
            grad.contiguous(),
            of_gates,
        )
    return of_gates, carry


def _call(name: str, gates: Tensor, carry: Tensor, ptr: Tensor | None, first: Tensor | None, *rest: Any) -> None:
    """Pack the fields of ``ScanArguments`` in ``scan.h`` and call a function of the library."""
    ptr = None if ptr is None else ptr.contiguous()
    packed = _ARGUMENTS.pack(
        gates.dtype == torch.bfloat16,
        torch.get_num_threads(),
        carry.size(0),
        gates.size(0),
        carry.size(1),
        *map(address, (ptr, gates, first, carry, *rest)),
    )
    check(getattr(library_for(gates.dtype), name)(packed))


def check_scan(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> None:
    """Raise a ValueError where a kernel would read memory that is not the tensors'; where only the device knows
    ``ptr``, an assertion fails later."""
    dtype = sum_dtype(gates)
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
        raise ValueError(f"expected 'ptr' of shape {[count + 1]} and type torch.int64, got {describe(ptr)}")
    fits = (ptr.diff() >= 0).all() & (ptr[0] == 0) & (ptr[-1] == num_rows)
    if torch.compiler.is_compiling() or not ptr.is_cpu:
        assert_later(fits, "'ptr' does not lead from 0 to the number of rows")
    elif not fits:
        raise ValueError(f"expected 'ptr' to lead from 0 to {num_rows} rows and not to decrease, got {ptr.tolist()}")


def _fake_backward(
    grad: Tensor | None, grad_last: Tensor | None, gates: Tensor, h0: Tensor, ptr: Tensor | None, out: Tensor
) -> tuple[Tensor, Tensor]:
    return gates.new_empty(gates.shape), h0.new_empty(h0.shape)


def _empty(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    return gates.new_empty(gates.size(0), h0.size(1)), h0.new_empty(h0.shape)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[0])


def _backward(ctx: Any, grad: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
    return gradients(_scan_backward, ctx, grad, grad_last)


def gradients(
    backward: Callable[..., tuple[Tensor, Tensor]], ctx: Any, grad: Tensor | None, grad_last: Tensor | None
) -> tuple[Tensor | None, ...]:
    """What an operator gives back, whose own backward pass is ``backward``."""
    gates, h0, ptr, out = ctx.saved_tensors
    given = [one for one in (grad, grad_last) if one is not None]
    if not given:
        return None, None, None
    if takes_plain_gradient(*given):

        def run() -> list[Tensor]:
            outputs = plain_gated_scan(gates, h0, ptr)
            return [value for value, one in zip(outputs, (grad, grad_last), strict=True) if one is not None]

        return *differentiable_gradients(run, (gates, h0), ctx.needs_input_grad[:2], given), None
    found = backward(grad, grad_last, gates, h0, ptr, out)
    return *(value if need else None for value, need in zip(found, ctx.needs_input_grad, strict=False)), None


_scan_backward = operator(
    "gated_scan_backward(Tensor? grad, Tensor? grad_last, Tensor gates, Tensor h0, Tensor? ptr, Tensor out) -> "
    "(Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
_scan = operator(
    "gated_scan(Tensor gates, Tensor h0, Tensor? ptr) -> (Tensor, Tensor)", _run, _empty, save=save, backward=_backward
)
