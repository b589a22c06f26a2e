"""A gated linear recurrence over sequences, at the cost of the frames that are there.

Shape legend: M rows (frames of all sequences, sequence by sequence), R sequences, C channels; of the plain form, T
frames of the longest sequence.
"""

import math

import torch
from torch import Tensor


def gated_scan(gates: Tensor, h0: Tensor, ptr: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return plain_gated_scan(gates, h0, ptr)


def plain_gated_scan(gates: Tensor, h0: Tensor, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    """What :func:`gated_scan` computes, as it is written down."""
    decay, value = gates.to(h0.dtype).chunk(2, -1)
    a, b = decay.sigmoid(), (-decay).sigmoid() * value
    if ptr is None:
        h = linear_scan(a.unflatten(0, (h0.size(0), -1)), b.unflatten(0, (h0.size(0), -1)), h0)
        return h.flatten(0, 1).to(gates.dtype), h[:, -1]
    lengths = ptr.diff()
    # Frames that are not there leave the state as it is: a = 1, b = 0.
    there = torch.arange(int(lengths.max()), device=ptr.device) < lengths.unsqueeze(1)
    shape = *there.shape, h0.size(1)
    a = a.new_ones(shape).index_put((there,), a)
    h = linear_scan(a, b.new_zeros(shape).index_put((there,), b), h0)
    return h[there].to(gates.dtype), h[:, -1]


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
    if missing:
        a = torch.cat([a, a.new_ones(a.size(0), missing, a.size(2))], 1)
        b = torch.cat([b, b.new_zeros(b.size(0), missing, b.size(2))], 1)
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
