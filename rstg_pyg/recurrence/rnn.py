"""The recurrent networks of time stages: one that is linear in its state, for long memories; gates that start with
memories of many lengths; and how PyTorch's networks are run.

Shape legend: R sequences, T frames, C channels; M rows, frames of sequences of different lengths.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import GRU, LSTM, Linear, Module, Parameter, init
from torch.nn.utils.rnn import PackedSequence

from rstg_pyg.arguments import check_positive, describe, num_dims
from rstg_pyg.ops.linear import linear
from rstg_pyg.ops.scan import gated_scan
from rstg_pyg.watched import everything_is_watched, is_bare


class LinearRNN(Module):
    r"""A gated linear recurrence, whose gates see the input alone:

    .. math::
        \mathbf{a}^t = \sigma(\mathbf{W}_a \mathbf{x}^t + \mathbf{b}_a), \qquad
        \mathbf{v}^t = \mathbf{W}_v \mathbf{x}^t + \mathbf{b}_v, \qquad
        \mathbf{h}^t = \mathbf{a}^t \, \mathbf{h}^{t-1} + (1 - \mathbf{a}^t) \, \mathbf{v}^t

    A state is a mean of what came in, so it never outgrows it, however long the memory is and however alike the frames
    are. At the start :math:`\sigma(\mathbf{b}_a)` goes from 0.9 to 0.999 over the channels, memories of some 10 to
    1,000 frames, as in linear recurrent units.

    Nothing but the state goes from frame to frame, so all products are one product of all frames, and the rest costs
    what reading and writing it does. The state is of float32 or wider, whatever the type of the frames: in bfloat16, a
    long memory would not notice what comes in.

    Args:
        channels: Size C of the frames and of the state.
        bias: Learn :math:`\mathbf{b}_v`; :math:`\mathbf{b}_a` is always learned.

    Shapes:
        - **x:** ``[R, T, C]``; with ``ptr [R + 1]``, which says where the rows of each sequence begin, ``[M, C]``.
        - **state:** ``[R, C]``, or None for zeros.
        - **output:** as x, and the state after the last frame of each sequence.

    Raises:
        ValueError: If an argument is out of its range, or ``state`` or ``ptr`` do not fit the input.

    Source: L. Feng et al., "Were RNNs all we needed?" (minGRU), `arXiv:2410.01201 <https://arxiv.org/abs/2410.01201>`_,
    for the gates; A. Orvieto et al., "Resurrecting recurrent neural networks for long sequences", ICML 2023,
    `arXiv:2303.06349 <https://arxiv.org/abs/2303.06349>`_, for the decays at the start.

    Example:
        >>> import torch
        >>> from rstg_pyg.recurrence import LinearRNN
        >>> out, state = LinearRNN(16)(torch.randn(14, 1000, 16))
        >>> out.shape, state.shape
        (torch.Size([14, 1000, 16]), torch.Size([14, 16]))
    """

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__()
        check_positive(channels=channels)
        self.channels = channels
        self.lin = Linear(channels, 2 * channels, bias=False)
        self.decay = Parameter(torch.empty(channels))
        self.bias = Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.lin.reset_parameters()
        self.decay.copy_(-torch.logspace(-1, -3, self.channels).logit())
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor, state: Tensor | None = None, ptr: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows, count = (x.flatten(0, 1), x.size(0)) if ptr is None else (x, ptr.size(0) - 1)
        if state is not None and (num_dims(state) != 2 or state.shape != (count, self.channels)):
            raise ValueError(f"expected a 'state' of shape {[count, self.channels]}, got {describe(state)}")
        bias = torch.cat([self.decay, torch.zeros_like(self.decay) if self.bias is None else self.bias])
        gates = linear(rows, self.lin.weight, bias) if is_bare(self.lin, Linear) else self.lin(rows) + bias
        dtype = torch.promote_types(gates.dtype, torch.float32)
        state = gates.new_zeros(count, self.channels, dtype=dtype) if state is None else state.to(dtype)
        out, state = gated_scan(gates, state, ptr)
        return out.view(x.shape), state


@torch.no_grad()
def chrono_init(rnn: Module, max_frames: int) -> None:
    r"""Draw the biases of gates so that memories last from 1 to ``max_frames`` frames: "Can recurrent neural networks
    warp time?" (Tallec, Ollivier, ICLR 2018, `arXiv:1804.11188 <https://arxiv.org/abs/1804.11188>`_).

    .. math::
        \mathbf{b}_f = \log \mathcal{U}(1, T_{max} - 1), \qquad \mathbf{b}_i = -\mathbf{b}_f

    for the forget and input gates of an LSTM. A gate that keeps the state is drawn as :math:`\mathbf{b}_f`: the update
    gate z of PyTorch's GRU, whose input gate is 1 - z, and the decays of a
    :class:`~rstg_pyg.recurrence.LinearRNN`.

    Args:
        rnn: The network, of one layer or several.
        max_frames: :math:`T_{max}`, 2 or more.

    Raises:
        ValueError: If the network is none of these or has no biases, or the number is too small.

    Example:
        >>> import torch
        >>> from rstg_pyg.recurrence import chrono_init
        >>> lstm = torch.nn.LSTM(8, 8)
        >>> chrono_init(lstm, max_frames=100)
        >>> kept = (lstm.bias_ih_l0 + lstm.bias_hh_l0)[8:16].sigmoid()
        >>> bool((kept >= 0.5).all() and (kept <= 0.99).all())
        True
    """
    if not isinstance(max_frames, int) or isinstance(max_frames, bool) or max_frames < 2:
        raise ValueError(f"expected 'chrono' to be an int of 2 or more, or None, got {max_frames!r}")
    if isinstance(rnn, LinearRNN):
        _draw(rnn.decay, max_frames)
    elif isinstance(rnn, LSTM | GRU) and rnn.bias:
        for name, bias in rnn.named_parameters():
            if not name.startswith("bias"):
                continue
            gates = bias.chunk(4 if isinstance(rnn, LSTM) else 3)  # i, f, g, o; or r, z, n
            # The two biases of a gate are summed.
            init.zeros_(gates[1])
            if name.startswith("bias_ih"):
                _draw(gates[1], max_frames)
            if isinstance(rnn, LSTM):
                gates[0].copy_(-gates[1])
    else:
        raise ValueError(f"expected 'chrono' with an LSTM or GRU with biases or a LinearRNN, got {rnn}")


def _draw(bias: Tensor, max_frames: int) -> None:
    init.uniform_(bias, 1, max_frames - 1).log_()


def autocast_takes_float16(rows: Tensor | PackedSequence) -> bool:
    """Whether PyTorch would run a recurrent network in float16 there, though bfloat16 was asked for: so it does on CUDA
    wherever autocast is on. The small gradients of a mean over many clips and frames become 0 then, for nothing scales
    a loss that is to be trained in bfloat16."""
    return rows.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16


def onednn_lacks_bfloat16() -> bool:
    """Whether oneDNN finds no instructions for bfloat16 in this CPU. Its convolutions take several times as long in it
    then as in float32, and its LSTM is an error."""
    return torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def run_rnn(rnn: Module, rows: Tensor | PackedSequence, memory: Any | None = None) -> tuple[Tensor, Any]:
    """Return what ``rnn`` gives; where autocast would take float16, without autocast, in the type of its weights. Where
    somebody follows the operations, or oneDNN cannot, it is made of several, not of oneDNN's one.

    Shapes:
        - **rows:** ``[R, T, C]``, or packed. **memory:** what ``rnn`` takes, of any type. **output:** as of ``rnn``.

    Raises:
        ValueError: If it has more layers than one or two directions: nothing carries the state of the others.

    Example:
        >>> import torch
        >>> from rstg_pyg.recurrence.rnn import run_rnn
        >>> run_rnn(torch.nn.GRU(4, 4, batch_first=True), torch.randn(3, 5, 4))[0].shape
        torch.Size([3, 5, 4])
    """
    if autocast_takes_float16(rows):
        dtype = next(rnn.parameters()).dtype
        if memory is not None:
            memory = tuple(part.to(dtype) for part in memory) if isinstance(memory, tuple) else memory.to(dtype)
        with torch.autocast(rows.data.device.type, enabled=False):
            out, last = rnn(rows.to(dtype), memory)
    else:
        on_cpu = not rows.is_cuda and torch.is_autocast_enabled("cpu")
        several = everything_is_watched() or (on_cpu and onednn_lacks_bfloat16())
        with _without_onednn() if several else nullcontext():
            out, last = rnn(rows, memory)
    layers = (last[0] if isinstance(last, tuple) else last).size(0)
    if layers != 1:
        raise ValueError(f"expected a recurrent network of one layer and one direction, got {layers} in {rnn}")
    return out, last


def is_lstm(rnn: Module, kind: str) -> bool:
    """Whether the state of ``rnn`` is a pair; ``kind`` tells of modules that stand around such a network."""
    return getattr(rnn, "mode", kind.upper()) == "LSTM"


@contextmanager
def _without_onednn() -> Iterator[None]:
    enabled = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = enabled
