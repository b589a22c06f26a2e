"""The program's time stage: one LSTM over each node's past."""

from torch import Tensor, nn

from rstg_pyg.authors.starting_weights import glorot_lstm
from rstg_pyg.recurrence.time_stage import run_rnn


class NodeLSTM(nn.Module):
    r"""One LSTM for all nodes, along time, from a zero state.

    .. math::
        h_i^t, c_i^t = \mathrm{LSTM}(v_i^t, (h_i^{t-1}, c_i^{t-1})), \qquad h_i^{-1} = c_i^{-1} = 0

    Args:
        channels: width of nodes and of the state.

    Shapes:
        - input: `[B, T, N, C]`
        - output: `[B, T, N, C]`, the hidden states

    Source: paper, eq. of f_time; program (IuliaDuta/RSTG at 788a7a3), departure 11.

    Example:
        >>> import torch
        >>> NodeLSTM(16)(torch.randn(2, 5, 14, 16)).shape
        torch.Size([2, 5, 14, 16])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, batch_first=True)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does."""
        glorot_lstm(self.lstm)

    def forward(self, nodes: Tensor) -> Tensor:
        """Hidden states `[B, T, N, C]`, all frames in one recurrent call."""
        sequences = nodes.transpose(1, 2)
        hidden, _ = run_rnn(self.lstm, sequences.flatten(0, 1))
        return hidden.unflatten(0, sequences.shape[:2]).transpose(1, 2)
