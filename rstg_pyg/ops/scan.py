"""A gated linear recurrence over sequences, at the cost of the frames that are there.

Shape legend: M rows (frames of all sequences, sequence by sequence), R sequences, C channels.
"""

import torch
from torch import Tensor

from rstg_pyg.arguments import check_choice
from rstg_pyg.ops.native import scan as native
from rstg_pyg.ops.native.attend import is_available
from rstg_pyg.ops.native.build import why_not_native
from rstg_pyg.ops.plain_scan import check_scan, plain_gated_scan
from rstg_pyg.ops.triton import attend as triton
from rstg_pyg.watched import operations_are_watched

BACKENDS = ("native", "triton", "plain")
"""In the order in which they are asked."""


def why_not(backend: str, gates: Tensor) -> str | None:
    """A reason why a backend of :func:`gated_scan` cannot run on ``gates``, or None."""
    check_choice("backend", backend, BACKENDS)
    if backend == "native" and not (gates.is_cpu and is_available(gates.dtype)):
        return why_not_native(gates.dtype, gates.device, "float32, float64 or bfloat16", "backend='native'")
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
        return native.gated_scan(gates, h0, ptr)
    if backend == "triton":
        from rstg_pyg.ops.triton.scan import gated_scan as scan_on_gpu

        return scan_on_gpu(gates, h0, ptr)
    check_scan(gates, h0, ptr)
    return plain_gated_scan(gates, h0, ptr)
