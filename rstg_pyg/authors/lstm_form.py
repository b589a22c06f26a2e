"""The form in which TensorFlow 1.13 saves a cuDNN LSTM, and the way from it to torch's.

The saved kernel is `[I + C, 4C]`: input rows over state rows, the gates i, c, f, o side by side. There is one bias per
gate, the sum of the two that the LSTM adds. torch stacks the gates in the order i, f, c, o, has a matrix for the input
and one for the state, and keeps both biases.
"""

import torch
from torch import Tensor


def split_saved_kernel(kernel: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
    """Split a saved kernel into torch's matrices of the input and of the state.

    Args:
        kernel: `[I + C, 4C]`, gates in the order i, c, f, o.
        inputs: width I of the input.

    Shapes:
        - output: `weight_ih` `[4C, I]` and `weight_hh` `[4C, C]`, gates in the order i, f, c, o

    Source: checkpoint form of TensorFlow 1.13's cuDNN LSTM (`cudnn_compatible_lstm_cell`).

    Example:
        >>> weight_ih, weight_hh = split_saved_kernel(torch.zeros(7, 16), inputs=3)
        >>> weight_ih.shape, weight_hh.shape
        (torch.Size([16, 3]), torch.Size([16, 4]))
    """
    rows = _torch_gate_order(kernel.t())
    return rows[:, :inputs], rows[:, inputs:]


def split_saved_bias(bias: Tensor) -> tuple[Tensor, Tensor]:
    """Split a saved bias into torch's two, of which the second is zero.

    Args:
        bias: `[4C]`, gates in the order i, c, f, o.

    Shapes:
        - output: `bias_ih` and `bias_hh`, each `[4C]`, gates in the order i, f, c, o

    Source: checkpoint form of TensorFlow 1.13's cuDNN LSTM (`cudnn_compatible_lstm_cell`).

    Example:
        >>> split_saved_bias(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        (tensor([1., 3., 2., 4.]), tensor([0., 0., 0., 0.]))
    """
    return _torch_gate_order(bias), torch.zeros_like(bias)


def _torch_gate_order(rows: Tensor) -> Tensor:
    """Gates i, c, f, o to i, f, c, o, along the first axis."""
    i, c, f, o = rows.chunk(4)
    return torch.cat([i, f, c, o])
