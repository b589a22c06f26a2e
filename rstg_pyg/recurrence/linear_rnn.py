"""A recurrence that is linear in its state, for long memories.

Shape legend: R sequences, T frames, C channels; M rows, frames of sequences of different lengths.
"""

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter

from rstg_pyg.arguments import check_positive, describe, num_dims
from rstg_pyg.ops.linear import linear
from rstg_pyg.ops.scan import gated_scan
from rstg_pyg.watched import is_bare


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
        >>> from rstg_pyg.recurrence.linear_rnn import LinearRNN
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
