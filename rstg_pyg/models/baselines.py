"""Recurrent networks on the backbone's features: Mean + LSTM and Conv + LSTM, the baselines of the paper."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import GRU, LSTM, Conv2d

from rstg_pyg.arguments import check_choice, check_memory, check_positive
from rstg_pyg.blocks.volume_pool import FrameVectorBlock
from rstg_pyg.norm import Norm, normalised
from rstg_pyg.recurrence.rnn import is_lstm, run_rnn

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
            check_memory("the state", state, "hc" if is_pair else "h", [x.size(0), self.channels], x.device)
            memory = tuple(part.to(x.dtype).unsqueeze(0) for part in (state if is_pair else (state,)))
            state = memory if is_pair else memory[0]
        out, last = run_rnn(self.rnn, x, state)
        return out, (last[0][0], last[1][0]) if is_pair else last[0]


class ConvLSTM(FrameVectorBlock):
    r"""The convolutional LSTM of "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting"
    (Shi et al., NeurIPS 2015, `arXiv:1506.04214 <https://arxiv.org/abs/1506.04214>`_), without the products of gates
    and cell ("peepholes"), averaged over its places: Conv + LSTM of arXiv:1904.05582.

    .. math::
        (\mathbf{i}, \mathbf{f}, \mathbf{g}, \mathbf{o})_t &= \mathbf{W} * \mathbf{F}_t + \mathbf{U} * \mathbf{H}_{t-1}
            + \mathbf{b}

        \mathbf{C}_t &= \sigma(\mathbf{f}_t) \odot \mathbf{C}_{t-1} + \sigma(\mathbf{i}_t) \odot \tanh \mathbf{g}_t

        \mathbf{H}_t &= \sigma(\mathbf{o}_t) \odot \tanh \mathbf{C}_t

        \mathbf{z} &= \frac{1}{HW} \sum_{y,x} \mathbf{H}_{T,y,x} \quad \text{or its mean over time}

    :math:`\mathbf{W} * \mathbf{F}_t` is one convolution over all frames of all clips. ``step`` takes a stream's next
    frame and returns what ``forward`` returns for all frames up to it.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the hidden state (default: C).
        kernel_size: Side of both convolutions, odd; they are padded, so a map keeps its size.
        readout: ``"last"`` or ``"mean"`` over time.
        input_norm: Normalisation of the volume's features, see :class:`~rstg_pyg.RSTGConv`.

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, G]``.
        - **step:** ``[B, C, H, W], state -> ([B, G], state)``.

    Raises:
        ValueError: If an argument is out of its range, or a volume, a frame or a state does not fit.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import ConvLSTM
        >>> block = ConvLSTM(64, channels=32)
        >>> block(torch.randn(2, 64, 10, 6, 6)).shape
        torch.Size([2, 32])
        >>> vector, state = block.step(torch.randn(2, 64, 6, 6), None)
    """

    def __init__(
        self,
        in_channels: int,
        channels: int | None = None,
        kernel_size: int = 3,
        readout: str = "last",
        input_norm: Norm = None,
    ) -> None:
        super().__init__(in_channels, channels, readout, input_norm)
        check_positive(kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"expected 'kernel_size' to be odd, got {kernel_size}")
        gates = 4 * self.channels
        self.conv_input = Conv2d(in_channels, gates, kernel_size, padding="same")
        self.conv_hidden = Conv2d(self.channels, gates, kernel_size, padding="same", bias=False)
        self.to(memory_format=torch.channels_last)

    def run(self, volume: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the averaged hidden states ``[B, T, G]`` of a volume and ``(h, c)``, each ``[B, G, H, W]``."""
        frames = volume.transpose(1, 2)
        if self.input_norm is not None:
            frames = normalised(self.input_norm, frames.movedim(2, -1)).movedim(-1, 2)
        frames = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        gates = self.conv_input(frames).unflatten(0, (volume.size(0), volume.size(2)))

        h = c = None
        if state is not None:
            check_memory("the state", state, "hc", [volume.size(0), self.channels, *volume.shape[-2:]], volume.device)
            h, c = state
        vectors = []
        for gate in gates.unbind(1):
            if h is not None:
                gate = gate + self.conv_hidden(h)
            taken, kept, new, shown = gate.chunk(4, 1)
            new = taken.sigmoid() * new.tanh()
            c = new if c is None else kept.sigmoid() * c + new
            h = shown.sigmoid() * c.tanh()
            vectors.append(h.mean((2, 3)))
        return torch.stack(vectors, 1), (h, c)
