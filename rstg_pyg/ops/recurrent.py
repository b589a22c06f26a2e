"""A recurrent network over sequences of different lengths, at the cost of the frames that are there.

Shape legend: M rows (frames of all sequences), R sequences, L steps (frames of the longest one), C input and H hidden
channels, G gates: 4 of an LSTM, 3 of a GRU.
"""

import struct
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rstg_pyg.ops.linear import linear, weight_gradient
from rstg_pyg.ops.native.attend import address, check, gradients_like, is_available, library_for
from rstg_pyg.ops.native.build import why_not_native
from rstg_pyg.ops.operators import differentiable_gradients, operator, takes_plain_gradient, without_autocast
from rstg_pyg.watched import operations_are_watched

_ARGUMENTS = struct.Struct("19q")
_VECTOR = 16
"""The kernels take channels in multiples of their vectors, which are no longer than this. Channels of zeros stay zero
in both cells."""

_PART_BYTES, _PART_ROWS = 1 << 22, 4096
"""Steps go through products and cells in parts whose gates a cache holds between the two: so many bytes, or so many
rows where these are more, for every part adds up the gradients of all weights."""


def why_not(rows: Tensor) -> str | None:
    """A reason why :func:`packed_rnn` cannot run on ``rows``, or None."""
    if rows.is_cpu and rows.dtype in _DTYPES and is_available(rows.dtype):
        return None
    return why_not_native(rows.dtype, rows.device, "float32 or float64")


_DTYPES = (torch.float32, torch.float64)


def packed_rnn(
    kind: str,
    rows: Tensor,
    batch_sizes: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""Run one layer of an LSTM

    .. math::
        \mathbf{i}, \mathbf{f}, \mathbf{g}, \mathbf{o} &= \mathbf{W}_{ih} \mathbf{x}^t + \mathbf{b}_{ih}
            + \mathbf{W}_{hh} \mathbf{h}^{t-1} + \mathbf{b}_{hh} \\
        \mathbf{c}^t &= \sigma(\mathbf{f}) \, \mathbf{c}^{t-1} + \sigma(\mathbf{i}) \tanh(\mathbf{g}), \qquad
        \mathbf{h}^t = \sigma(\mathbf{o}) \tanh(\mathbf{c}^t)

    or of a GRU, with the parts of the input and of the state as :math:`\mathbf{x}_r, \mathbf{x}_z, \mathbf{x}_n` and
    :math:`\mathbf{s}_r, \mathbf{s}_z, \mathbf{s}_n`

    .. math::
        \mathbf{r} = \sigma(\mathbf{x}_r + \mathbf{s}_r), \quad \mathbf{z} = \sigma(\mathbf{x}_z + \mathbf{s}_z), \quad
        \mathbf{n} = \tanh(\mathbf{x}_n + \mathbf{r} \, \mathbf{s}_n), \quad
        \mathbf{h}^t = (1 - \mathbf{z}) \, \mathbf{n} + \mathbf{z} \, \mathbf{h}^{t-1}

    over sequences of different lengths, as :class:`torch.nn.LSTM` and :class:`torch.nn.GRU` do on a
    :class:`~torch.nn.utils.rnn.PackedSequence`. All results can be differentiated, in all tensors but ``batch_sizes``.

    Args:
        kind: ``"lstm"`` or ``"gru"``.
        rows: Frames of the sequences, step by step, the longest sequence first in each: ``PackedSequence.data``; of
            float32 states also in bfloat16, the type of all products but those of the steps then.
        batch_sizes: How many sequences have a frame at each step: int64, on the CPU, and never increasing.
        h0: First states of the sequences.
        c0: First cells of an LSTM; None for a GRU.
        weight_ih, weight_hh, bias_ih, bias_hh: ``weight_ih_l0`` and so on of the module; both biases may be None.

    Shapes:
        - **rows:** ``[M, C]``. **batch_sizes:** ``[L]``. **h0, c0:** ``[R, H]``. **weight_ih:** ``[G * H, C]``.
          **weight_hh:** ``[G * H, H]``. **bias_ih, bias_hh:** ``[G * H]``.
        - **output:** ``h`` of all rows ``[M, H]``; ``h`` and ``c`` after the last frame of each sequence ``[R, H]``,
          None for ``c`` of a GRU.

    Raises:
        ValueError: If an argument does not fit the others, or :func:`why_not` has a reason.

    Example:
        >>> import torch
        >>> from rstg_pyg.ops.recurrent import packed_rnn
        >>> lstm, zeros = torch.nn.LSTM(4, 8), torch.zeros(3, 8)
        >>> rows, batch_sizes = torch.randn(6, 4), torch.tensor([3, 2, 1])  # of 3, 2 and 1 frames
        >>> out, h, c = packed_rnn("lstm", rows, batch_sizes, zeros, zeros, *lstm.all_weights[0])
        >>> out.shape, h.shape, c.shape
        (torch.Size([6, 8]), torch.Size([3, 8]), torch.Size([3, 8]))
    """
    if kind not in ("lstm", "gru") or (kind == "lstm") != (c0 is not None):
        raise ValueError(f"expected 'lstm' with a c0 or 'gru' without one, got {kind!r} and {type(c0).__name__}")
    inputs = (rows, batch_sizes, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
    # Where the sizes are not known, in fake tensors say, there is no loop to write down.
    if torch.compiler.is_exporting() or (
        not torch.compiler.is_compiling() and operations_are_watched() and type(batch_sizes) is Tensor
    ):
        return plain_packed_rnn(*inputs)
    reason = why_not(h0)
    if reason is not None:
        raise ValueError(reason)
    keeps = torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in inputs)
    out, h, c, _, _ = _rnn(*inputs, keeps)
    return out, h, None if c0 is None else c


def plain_packed_rnn(
    rows: Tensor,
    batch_sizes: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What :func:`packed_rnn` computes, as it is written down."""
    # Not tolist(): under torch.func.grad, torch 2.9 looks for memory that a wrapper has not.
    sizes, rows, h, c = [int(size) for size in batch_sizes], rows.to(h0.dtype), h0, c0
    outs, ended = [rows.new_empty(0, h0.size(1))], []
    for x, size in zip(F.linear(rows, weight_ih, bias_ih).split(sizes), sizes, strict=True):
        ended.append((h[size:], None if c is None else c[size:]))
        h = h[:size]
        s = F.linear(h, weight_hh, bias_hh)
        if c is None:
            (x_r, x_z, x_n), (s_r, s_z, s_n) = x.chunk(3, -1), s.chunk(3, -1)
            z = (x_z + s_z).sigmoid()
            h = (1 - z) * (x_n + (x_r + s_r).sigmoid() * s_n).tanh() + z * h
        else:
            i, f, g, o = (x + s).chunk(4, -1)
            c = f.sigmoid() * c[:size] + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        outs.append(h)
    ended.append((h, c))
    last_h, last_c = zip(*reversed(ended), strict=True)
    return torch.cat(outs), torch.cat(last_h), None if c is None else torch.cat(last_c)


def _run(rows: Tensor, batch_sizes: Tensor, h0: Tensor, c0: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    """The outputs, the last states, the active gates, and the cells of an LSTM or the state's part of the new gate."""
    *weights, keeps = rest
    _check(rows, batch_sizes, h0, c0, *weights)
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    gates, size, batch_sizes = 3 if c0 is None else 4, h0.size(1), batch_sizes.contiguous()
    bias, state_bias = bias_ih, None
    if c0 is None:
        state_bias = _fill(h0.new_zeros(size) if bias_hh is None else bias_hh[2 * size :])
    if bias_hh is not None:
        bias = bias_ih + (bias_hh if c0 is not None else F.pad(bias_hh[: 2 * size], (0, size)))
    before, c = _fill(h0), None if c0 is None else _fill(c0).clone()
    filled, count = before.size(1), rows.size(0)
    active, kept = (h0.new_empty(count if keeps else 0, width) for width in (gates * filled, filled))
    out, last = h0.new_empty(count, filled), torch.empty_like(before)
    weight = _fill_both(weight_hh, gates).t().contiguous()
    for sizes, part, _ in _parts(batch_sizes, gates * filled * h0.element_size()):
        with without_autocast():
            given = _fill(_product(rows[part], weight_ih, bias), gates)
        into = (active[part], kept[part]) if keeps else (None, None)
        into = *into, out[part], before, None, c, last, None, None, None
        _call("rstg_cells_forward", sizes, weight, state_bias, given, *into)
        before = last
    c = h0.new_empty(0) if c0 is None else _cut(c, size)
    return _cut(out, size), _cut(last, size), c, active, kept


def _run_backward(
    grad: Tensor | None,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    out: Tensor,
    active: Tensor,
    kept: Tensor,
    rows: Tensor,
    batch_sizes: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    """Gradients of all inputs but the sizes; without elements those that are not wanted."""
    *biases, wanted = rest
    is_gru, size, batch_sizes = c0 is None, h0.size(1), batch_sizes.contiguous()
    gates, shared = (3, 2 * size) if is_gru else (4, 4 * size)
    grad = _fill(torch.zeros_like(out) if grad is None else grad)
    last = _fill(torch.zeros_like(h0) if grad_h is None else grad_h).clone()
    carry = last if is_gru else _fill(torch.zeros_like(h0) if grad_c is None else grad_c).clone()
    weight, states = _fill_both(weight_hh, gates), _fill(out)
    first = _fill(h0 if is_gru else c0)
    found = list(gradients_like((rows, h0, c0, weight_ih, weight_hh, *biases), wanted))
    for value in found[3:]:
        value.zero_()
    for sizes, part, before in reversed(_parts(batch_sizes, active.size(1) * active.element_size())):
        of_gates = torch.empty_like(active[part])
        of_fresh = torch.empty_like(kept[part]) if is_gru else None
        old = first if before is None else (states if is_gru else kept)[before]
        given = None, active[part], kept[part], states[part], *((old, None) if is_gru else (None, old)), carry, last
        _call("rstg_cells_backward", sizes, weight, None, *given, grad[part], of_gates, of_fresh)
        # The input's and the state's part have the same gradient but in a GRU's new gate.
        of_gates, own = _cut(of_gates, size, gates), [_cut(of_fresh, size)] if is_gru else []
        with without_autocast():
            if wanted[1] or before is not None:
                of_first = [value[: int(sizes[0])] for value in (of_gates[:, :shared], *own)]
                of_h = linear(torch.cat(of_first, 1), weight_hh.t())
                if is_gru:
                    carry[: of_h.size(0), :size] += of_h
                else:
                    last[: of_h.size(0), :size] = of_h
            if wanted[0]:
                found[0][part] = linear(of_gates.to(rows.dtype), weight_ih.t().to(rows.dtype))
            if wanted[3] or wanted[5]:
                of_input = weight_gradient(of_gates, rows[part])
            if wanted[4] or wanted[6]:
                h = _states_before(out[part], sizes, h0 if before is None else out[before]).to(rows.dtype)
                pairs = [weight_gradient(value, h) for value in (of_gates[:, :shared], *own)]
                of_state = [torch.cat(values) for values in zip(*pairs, strict=True)]
        for number, wants in enumerate(wanted[3:], 3):
            if wants:
                found[number] += (of_state if number % 2 == 0 else of_input)[(number - 3) // 2]
    for number, value in (1, last), (2, carry):
        if wanted[number]:
            found[number] = _cut(value, size)
    return tuple(found)


def _parts(batch_sizes: Tensor, row_bytes: int) -> list[tuple[Tensor, slice, slice | None]]:
    """Runs of steps: their sizes, their rows, and the rows of the step before that they go on from."""
    most, sizes = max(_PART_ROWS, _PART_BYTES // row_bytes), batch_sizes.tolist()
    parts, first, row, count = [], 0, 0, 0
    for step, size in enumerate([*sizes, 0]):
        if count and (step == len(sizes) or count + size > most):
            before = None if first == 0 else slice(row - sizes[first - 1], row - sizes[first - 1] + sizes[first])
            parts.append((batch_sizes[first:step], slice(row, row + count), before))
            first, row, count = step, row + count, 0
        count += size
    return parts


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product in the type of the rows, in the type of the weight."""
    if rows.dtype == weight.dtype:
        return linear(rows, weight, bias)
    return F.linear(rows, weight.to(rows.dtype), None if bias is None else bias.to(rows.dtype)).to(weight.dtype)


def _states_before(out: Tensor, batch_sizes: Tensor, h0: Tensor) -> Tensor:
    """The states that the rows' cells start from."""
    sizes = batch_sizes.tolist()
    parts = out.split(sizes)
    return torch.cat([h0, *(part[:size] for part, size in zip(parts, sizes[1:], strict=False))])


def _call(name: str, batch_sizes: Tensor, weight: Tensor, *rest: Any) -> None:
    """Pack the fields of ``CellArguments`` in ``cells.h`` and call a function of the library."""
    out = rest[4]
    packed = _ARGUMENTS.pack(
        weight.numel() == 3 * out.size(1) ** 2,
        torch.get_num_threads(),
        batch_sizes.numel(),
        *out.shape,
        *map(address, (batch_sizes, weight, *rest)),
    )
    check(getattr(library_for(out.dtype), name)(packed))


def _fill(x: Tensor, gates: int = 1) -> Tensor:
    """Make the channels of each gate ``[*, gates * H]`` a multiple of the vectors, contiguous."""
    missing = -(x.size(-1) // gates) % _VECTOR
    return (F.pad(x.unflatten(-1, (gates, -1)), (0, missing)).flatten(-2) if missing else x).contiguous()


def _cut(x: Tensor, size: int, gates: int = 1) -> Tensor:
    """The channels that :func:`_fill` found."""
    if x.size(-1) == gates * size:
        return x
    return x.unflatten(-1, (gates, -1))[..., :size].flatten(-2).contiguous()


def _fill_both(weight: Tensor, gates: int) -> Tensor:
    """Fill the channels ``[gates * H, H]`` of both sides."""
    weight = weight.detach()
    if weight.size(1) % _VECTOR:
        weight = _fill(_fill(weight).t(), gates).t()
    return weight.contiguous()


def _check(rows: Tensor, batch_sizes: Tensor, h0: Tensor, c0: Tensor | None, *weights: Tensor | None) -> None:
    """Raise a ValueError where the library would read memory that is not the tensors'."""
    if h0.dim() != 2 or rows.dim() != 2 or (weights[2] is None) != (weights[3] is None):
        raise ValueError(f"expected 'rows' and 'h0' of 2 dimensions and both biases or none, got {_list(rows, h0)}")
    (count, size), outputs = h0.shape, (3 if c0 is None else 4) * h0.size(1)
    shapes = [(count, size), (count, size), (outputs, rows.size(1)), (outputs, size), (outputs,), (outputs,)]
    values = (h0, c0, *weights)
    dtype = torch.float32 if rows.dtype == torch.bfloat16 else rows.dtype
    for value, shape in zip(values, shapes, strict=True):
        if value is not None and (value.shape != shape or value.dtype != dtype or not value.is_cpu or not rows.is_cpu):
            raise ValueError(
                f"expected states, weights and biases on the CPU, {dtype}, of shapes {shapes}, "
                f"got {_list(*values)}, and rows on {rows.device}"
            )
    if batch_sizes.dim() != 1 or batch_sizes.dtype != torch.int64 or not batch_sizes.is_cpu:
        raise ValueError(f"expected 'batch_sizes' on the CPU, int64 and of one dimension, got {_list(batch_sizes)}")
    sizes = batch_sizes.tolist()
    falling = all(a >= b for a, b in pairwise([count, *sizes, 0]))
    if not falling or sum(sizes) != rows.size(0) or count != (sizes[0] if sizes else 0):
        raise ValueError(
            f"expected 'batch_sizes' to begin with {count} sequences, not to increase and to sum to {rows.size(0)} "
            f"rows, got {sizes}"
        )


def _list(*values: Tensor | None) -> str:
    return ", ".join("None" if v is None else f"{v.dtype} {list(v.shape)} on {v.device}" for v in values)


def _empty(
    rows: Tensor, batch_sizes: Tensor, h0: Tensor, c0: Tensor | None, weight_ih: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    size = h0.size(1)
    filled, kept = size + -size % _VECTOR, rows.size(0) if rest[-1] else 0
    c = h0.new_empty(0) if c0 is None else h0.new_empty(h0.shape)
    active = h0.new_empty(kept, (3 if c0 is None else 4) * filled)
    return h0.new_empty(rows.size(0), size), h0.new_empty(h0.shape), c, active, h0.new_empty(kept, filled)


def _fake_backward(*inputs: Any) -> tuple[Tensor, ...]:
    rows, _, *others, wanted = inputs[6:]
    return gradients_like((rows, *others), wanted)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[3:], *(output[2:3] if inputs[3] is None else ()))
    ctx.save_for_backward(*inputs[:-1], output[0], *output[3:])


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, out, active, kept = ctx.saved_tensors
    wanted = [need for number, need in enumerate(ctx.needs_input_grad[:8]) if number != 1]
    grads = grads[:3]
    if all(grad is None for grad in grads):
        return (None,) * 9
    if takes_plain_gradient(*grads) or kept.size(0) != out.size(0):

        def run(rows: Tensor, *others: Tensor | None) -> list[Tensor]:
            outputs = plain_packed_rnn(rows, inputs[1], *others)
            return [one for one, grad in zip(outputs, grads, strict=True) if grad is not None]

        leaves = [inputs[0], *inputs[2:]]
        found = differentiable_gradients(run, leaves, wanted, [grad for grad in grads if grad is not None])
    else:
        found = _rnn_backward(*grads, out, active, kept, *inputs, wanted)
        found = [value if want else None for value, want in zip(found, wanted, strict=True)]
    return found[0], None, *found[1:], None


def _flops(rows: Any, batch_sizes: Any, h0: Any, c0: Any, weight_ih: Any, *rest: Any, **kwargs: Any) -> int:
    """The products of all rows with both weights."""
    return 2 * rows[0] * weight_ih[0] * (rows[1] + h0[1])


def _backward_flops(*shapes: Any, **kwargs: Any) -> int:
    """As many for the gradient of the states, and for those that are wanted of the rows and of the weights."""
    rows, _, h0, _, weight_ih, *_, wanted = shapes[6:]
    return 2 * rows[0] * weight_ih[0] * ((wanted[0] + wanted[3]) * rows[1] + (1 + wanted[4]) * h0[1])


_TENSORS = (
    "Tensor rows, Tensor batch_sizes, Tensor h0, Tensor? c0, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, "
    "Tensor? bias_hh"
)
_rnn_backward = operator(
    "packed_rnn_backward(Tensor? grad, Tensor? grad_h, Tensor? grad_c, Tensor out, Tensor active, Tensor kept, "
    f"{_TENSORS}, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
    flops=_backward_flops,
)
_rnn = operator(
    f"packed_rnn({_TENSORS}, bool keeps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run,
    _empty,
    save=_save,
    backward=_backward,
    flops=_flops,
)
