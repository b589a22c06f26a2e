"""A recurrent network over frames whose places are averaged."""

from typing import Any

from torch import Tensor
from torch.nn import GRU, LSTM

from rstg_pyg.arguments import check_choice, check_memory
from rstg_pyg.blocks.frame_vectors import FrameVectorBlock
from rstg_pyg.norm import Norm, normalised
from rstg_pyg.recurrence.time_stage import is_lstm, run_rnn

_CELLS = {"lstm": LSTM, "gru": GRU}


class MeanLSTM(FrameVectorBlock):
    r"""Mean + LSTM, the first baseline of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu,
    NeurIPS 2019, `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_): every frame is averaged over its places, and
    a recurrent network reads the averages.

    .. math::
        \mathbf{h}_t = \mathrm{LSTM}\left( \frac{1}{HW} \sum_{y,x} \mathbf{F}_{t,y,x}, \ \mathbf{h}_{t-1} \right),
        \qquad \mathbf{z} = \mathbf{h}_T \quad \text{or} \quad \frac{1}{T} \sum_t \mathbf{h}_t

    ``step`` takes a stream's next frame and returns what ``forward`` returns for all frames up to it.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the hidden state (default: C).
        rnn: ``"lstm"`` or ``"gru"``.
        readout: ``"last"`` or ``"mean"`` over time.
        input_norm: Normalisation of the averages, see :class:`~rstg_pyg.RSTGConv`.

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, G]``.
        - **step:** ``[B, C, H, W], state -> ([B, G], state)``.

    Raises:
        ValueError: If an argument is out of its range, or a volume, a frame or a state does not fit.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import MeanLSTM
        >>> block = MeanLSTM(64, channels=32)
        >>> block(torch.randn(2, 64, 10, 6, 6)).shape
        torch.Size([2, 32])
        >>> vector, state = block.step(torch.randn(2, 64, 6, 6), None)
    """

    def __init__(
        self,
        in_channels: int,
        channels: int | None = None,
        rnn: str = "lstm",
        readout: str = "last",
        input_norm: Norm = None,
    ) -> None:
        super().__init__(in_channels, channels, readout, input_norm)
        check_choice("rnn", rnn, tuple(_CELLS))
        self.kind = rnn
        self.rnn = _CELLS[rnn](in_channels, self.channels, batch_first=True)

    def run(self, volume: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the hidden states ``[B, T, G]`` of a volume and the memory: ``(h, c)`` or ``h``, each ``[B, G]``."""
        x = normalised(self.input_norm, volume.mean((3, 4)).transpose(1, 2))
        is_pair = is_lstm(self.rnn, self.kind)
        if state is not None:
            check_memory("the state", state, "hc" if is_pair else "h", [x.size(0), self.channels])
            memory = tuple(part.to(x.dtype).unsqueeze(0) for part in (state if is_pair else (state,)))
            state = memory if is_pair else memory[0]
        out, last = run_rnn(self.rnn, x, state)
        return out, (last[0][0], last[1][0]) if is_pair else last[0]
