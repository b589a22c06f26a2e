"""Gates that start with memories of many lengths."""

import torch
from torch import Tensor
from torch.nn import GRU, LSTM, Module, init

from rstg_pyg.recurrence.linear_rnn import LinearRNN


@torch.no_grad()
def chrono_init(rnn: Module, max_frames: int) -> None:
    r"""Draw the biases of gates so that memories last from 1 to ``max_frames`` frames: "Can recurrent neural networks
    warp time?" (Tallec, Ollivier, ICLR 2018, `arXiv:1804.11188 <https://arxiv.org/abs/1804.11188>`_).

    .. math::
        \mathbf{b}_f = \log \mathcal{U}(1, T_{max} - 1), \qquad \mathbf{b}_i = -\mathbf{b}_f

    for the forget and input gates of an LSTM. A gate that keeps the state is drawn as :math:`\mathbf{b}_f`: the update
    gate z of PyTorch's GRU, whose input gate is 1 - z, and the decays of a
    :class:`~rstg_pyg.recurrence.linear_rnn.LinearRNN`.

    Args:
        rnn: The network, of one layer or several.
        max_frames: :math:`T_{max}`, 2 or more.

    Raises:
        ValueError: If the network is none of these or has no biases, or the number is too small.

    Example:
        >>> import torch
        >>> from rstg_pyg.recurrence.chrono import chrono_init
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
