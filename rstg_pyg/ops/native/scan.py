"""The gated linear recurrence as an operator of native code.

Shape legend: as in :mod:`rstg_pyg.ops.scan`.
"""

import struct
from functools import partial

import torch
from torch import Tensor

from rstg_pyg.ops.native.attend import address, check, library_for
from rstg_pyg.ops.operators import operator
from rstg_pyg.ops.plain_scan import check_scan, gradients, save

_ARGUMENTS = struct.Struct("12q")


def _run(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    check_scan(gates, h0, ptr)
    out, last = _empty(gates, h0, ptr)
    _call("rstg_scan_forward", gates, ptr, None, last.copy_(h0), out, None, None)
    return out, last


def _run_backward(
    grad: Tensor | None, grad_last: Tensor | None, gates: Tensor, h0: Tensor, ptr: Tensor | None, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the gates and of the first states."""
    of_gates, carry = _fake_backward(grad, grad_last, gates, h0, ptr, out)
    carry = carry.zero_() if grad_last is None else carry.copy_(grad_last)
    grad = torch.zeros_like(out) if grad is None else grad
    _call("rstg_scan_backward", gates, ptr, h0, carry, out, grad, of_gates)
    return of_gates, carry


def _call(name: str, gates: Tensor, *rest: Tensor | None) -> None:
    """Pack the fields of ``ScanArguments`` in ``scan.h`` and call a function of the library."""
    ptr, first, carry, *others = (None if value is None else value.contiguous() for value in rest)
    gates = gates.contiguous()
    if gates.numel() == 0:
        return
    sizes = carry.size(0), gates.size(0), carry.size(1)
    addresses = map(address, (ptr, gates, first, carry, *others))
    packed = _ARGUMENTS.pack(gates.dtype == torch.bfloat16, torch.get_num_threads(), *sizes, *addresses)
    check(getattr(library_for(gates.dtype), name)(packed))


def _empty(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    return gates.new_empty(gates.size(0), h0.size(1)), h0.new_empty(h0.shape)


def _fake_backward(
    grad: Tensor | None, grad_last: Tensor | None, gates: Tensor, h0: Tensor, ptr: Tensor | None, out: Tensor
) -> tuple[Tensor, Tensor]:
    return gates.new_empty(gates.shape), h0.new_empty(h0.shape)


_backward = operator(
    "gated_scan_backward(Tensor? grad, Tensor? grad_last, Tensor gates, Tensor h0, Tensor? ptr, Tensor out) -> "
    "(Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
gated_scan = operator(
    "gated_scan(Tensor gates, Tensor h0, Tensor? ptr) -> (Tensor, Tensor)",
    _run,
    _empty,
    save=save,
    backward=partial(gradients, _backward),
)
