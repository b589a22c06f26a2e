"""The time stage: one recurrent cell per node, over the node's own past."""

from functools import partial

import torch
from torch import Tensor

from rstg_pyg.arguments import check_choice, check_flags, check_memory, check_positive, check_type, describe, num_dims
from rstg_pyg.norm import Norm, normalised, resolve_norm
from rstg_pyg.recurrence.float32_rnn import is_lstm, run_rnn
from rstg_pyg.watched import everything_is_watched, is_bare

RNNState = Tensor | tuple[Tensor, Tensor]
"""``h`` of a GRU or ``(h, c)`` of an LSTM, each ``[N, *, C]``."""

_CELL_ROWS = 128
"""Up to this many nodes, one frame at a time goes through the cell's own function: on a CPU the network's call first
copies its weights to another layout, which only several frames or many nodes are worth."""

_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")

_CELLS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def check_sequence(x: Tensor, channels: int) -> None:
    """Raise unless ``x`` is a sequence of node features ``[N, *, T >= 1, channels]``."""
    if num_dims(x) < 3 or x.size(-1) != channels or x.size(-2) < 1:
        raise ValueError(f"expected a node sequence 'x' of shape [num_nodes, *, T >= 1, {channels}], got {describe(x)}")


class TimeStage(torch.nn.Module):
    r"""The time stage of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
    `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    .. math::
        \mathbf{h}_i^t = f_{time}(\mathbf{v}_i^t, \mathbf{h}_i^{t-1})

    for every node on its own: one call of a recurrent network over all nodes and frames.

    Args:
        channels: Size C of the node features.
        rnn: ``"lstm"`` or ``"gru"``.
        norm: Normalisation of the stage's input, see :class:`~rstg_pyg.RSTGConv`.
        residual: Add the stage's input to its output.
        bias: Learn additive biases.

    Shapes:
        - **x:** ``[N, *, T, C]``. **state:** ``h`` or ``(h, c)``, each ``[N, *, C]``; None starts at zero.
        - **output:** ``([N, *, T, C], state)``.

    Raises:
        ValueError: If an argument is out of its range or the state does not fit the input.

    Example:
        >>> import torch
        >>> from rstg_pyg import TimeStage
        >>> out, (h, c) = TimeStage(16)(torch.randn(14, 10, 16))
        >>> out.shape, h.shape
        (torch.Size([14, 10, 16]), torch.Size([14, 16]))
    """

    def __init__(
        self, channels: int, rnn: str = "lstm", norm: Norm = None, residual: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        check_positive(channels=channels)
        check_choice("rnn", rnn, tuple(_CELLS))
        check_flags(residual=residual, bias=bias)
        self.channels = channels
        self.residual = residual
        self.norm = resolve_norm(norm, channels)
        self.kind = rnn
        self.rnn = _CELLS[rnn](channels, channels, bias=bias, batch_first=True)

    def reset_parameters(self) -> None:
        self.rnn.reset_parameters()
        if self.norm is not None and hasattr(self.norm, "reset_parameters"):
            self.norm.reset_parameters()

    def forward(self, x: Tensor, state: RNNState | None = None) -> tuple[Tensor, RNNState]:
        check_sequence(x, self.channels)
        check_type("x", x, self)
        node_shape = x.shape[:-2]
        v = normalised(self.norm, x)
        run = self._one_frame if self._takes_cell(v) else partial(run_rnn, self.rnn)
        out, last = run(v.flatten(0, -3), self._to_rnn(state, node_shape, v.dtype))
        out = out.unflatten(0, node_shape)
        if self.residual:
            out = x + out
        # Not unflatten: compilers of torch before 2.13 take an LSTM's state to have another dimension of size 1.
        state = tuple(part.view(*node_shape, part.size(-1)) for part in (last if isinstance(last, tuple) else (last,)))
        return out, state if isinstance(last, tuple) else state[0]

    def _takes_cell(self, v: Tensor) -> bool:
        return (
            is_bare(self.rnn, *_CELLS.values())
            and not torch.compiler.is_compiling()
            and not everything_is_watched()
            and v.is_cpu
            and v.size(-2) == 1
            and v.shape[:-2].numel() <= _CELL_ROWS
            and not torch.is_autocast_enabled("cpu")
            and (self.rnn.num_layers, self.rnn.bidirectional, self.rnn.proj_size) == (1, False, 0)
        )

    def _one_frame(self, rows: Tensor, memory: RNNState | None) -> tuple[Tensor, RNNState]:
        """What ``self.rnn`` returns for ``rows [R, 1, C]``."""
        zero = rows.new_zeros(rows.size(0), self.channels) if memory is None else None
        weights = [getattr(self.rnn, name, None) for name in _WEIGHTS]
        if isinstance(self.rnn, torch.nn.LSTM):
            h, c = (zero, zero) if memory is None else (memory[0][0], memory[1][0])
            h, c = torch.lstm_cell(rows[:, 0], (h, c), *weights)
            return h.unsqueeze(1), (h.unsqueeze(0), c.unsqueeze(0))
        h = torch.gru_cell(rows[:, 0], zero if memory is None else memory[0], *weights)
        return h.unsqueeze(1), h.unsqueeze(0)

    def _to_rnn(self, state: RNNState | None, node_shape: torch.Size, dtype: torch.dtype) -> RNNState | None:
        if state is None:
            return None
        is_pair = is_lstm(self.rnn, self.kind)
        check_memory("the state of a time stage", state, "hc" if is_pair else "h", [*node_shape, self.channels])
        flat = tuple(part.to(dtype).flatten(0, -2).unsqueeze(0) for part in (state if is_pair else (state,)))
        return flat if is_pair else flat[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, rnn={type(self.rnn).__name__.lower()!r})"
