"""The parts that a stage of the program is made of: time, send, attention, gather and update."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rstg_pyg.authors.norms import stage_norm
from rstg_pyg.recurrence.rnn import run_rnn


class NodeLSTM(nn.Module):
    r"""One LSTM for all nodes, along time, from a zero state.

    .. math::
        h_i^t, c_i^t = \mathrm{LSTM}(v_i^t, (h_i^{t-1}, c_i^{t-1})), \qquad h_i^{-1} = c_i^{-1} = 0

    Args:
        channels: Width of nodes and of the state.

    Shapes:
        - **input:** ``[B, T, N, C]``. **output:** the hidden states, ``[B, T, N, C]``.

    Source: paper, eq. of f_time; program (IuliaDuta/RSTG at 788a7a3), departure 11.

    Example:
        >>> NodeLSTM(16)(torch.randn(2, 5, 14, 16)).shape
        torch.Size([2, 5, 14, 16])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, batch_first=True)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does: each gate's matrix on its own, zero biases."""
        for parameter in self.lstm.parameters():
            if parameter.dim() > 1:
                for gate in parameter.data.chunk(4):
                    nn.init.xavier_uniform_(gate)
            else:
                nn.init.zeros_(parameter)

    def forward(self, nodes: Tensor) -> Tensor:
        sequences = nodes.transpose(1, 2)
        hidden, _ = run_rnn(self.lstm, sequences.flatten(0, 1))
        return hidden.unflatten(0, sequences.shape[:2]).transpose(1, 2)


class AllPairsSend(nn.Module):
    r"""A message from every node to every node, itself included.

    .. math::
        m_{ji} = \mathrm{norm}\big(\mathrm{ReLU}(W_2\,\mathrm{ReLU}(
        W_1 [v_j | p_j | v_i | p_i] + b_1) + b_2)\big)

    :math:`W_1` is kept in two halves, one for the sender and one for the receiver. So its product is taken once per
    node and not once per pair: the same numbers for a third of the work.

    Args:
        channels: Width of nodes and messages.
        position_width: Width of a node's position :math:`p`, 0 for none.
        norm: None, ``"layer"`` or ``"batch"``.

    Shapes:
        - **nodes:** ``[B, T, N, C]``. **position:** ``[N, P]`` or None.
        - **output:** ``[B, T, receiver, sender, C]``.

    Source: paper, eq. of f_send; program (IuliaDuta/RSTG at 788a7a3), departure 4.

    Example:
        >>> AllPairsSend(16)(torch.randn(2, 5, 14, 16)).shape
        torch.Size([2, 5, 14, 14, 16])
    """

    def __init__(self, channels: int, position_width: int = 0, norm: str | None = None) -> None:
        super().__init__()
        width = channels + position_width
        self.sender = nn.Linear(width, channels)
        self.receiver = nn.Linear(width, channels, bias=False)
        self.second = nn.Linear(channels, channels)
        self.norm = stage_norm(norm, channels, node_axes=2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does: one Glorot uniform for the joined first layer."""
        part, out = self.sender.in_features, self.sender.out_features
        gain = ((part + out) / (2 * part + out)) ** 0.5
        glorot(self.sender, gain=gain)
        glorot(self.receiver, gain=gain)
        glorot(self.second)
        _reset_norm(self.norm)

    def forward(self, nodes: Tensor, position: Tensor | None = None) -> Tensor:
        if position is not None:
            position = position.expand(*nodes.shape[:-1], position.size(-1))
            nodes = torch.cat([nodes, position], dim=-1)
        pairs = self.sender(nodes).unsqueeze(-3) + self.receiver(nodes).unsqueeze(-2)
        return self.norm(self.second(pairs.relu()).relu())


class AdditiveAttention(nn.Module):
    r"""The attention that the program calls "simple".

    .. math::
        a_{ij} = \mathrm{softmax}_j\big(\mathrm{LeakyReLU}_{0.2}(
        A_{ij}(w_1 \cdot v_i + b_1 + w_2 \cdot v_j + b_2)) + A_{ij}\big)

    Non-neighbours and the node itself (:math:`A_{ij} = 0`) keep the logit 0 and so a weight.

    Args:
        channels: Width of a node.

    Shapes:
        - **nodes:** ``[B, T, N, C]``. **adjacency:** ``[N, N]`` of 0 and 1.
        - **output:** ``[B, T, 1, receiver, sender]``; the weights of a receiver sum to 1.

    Source: program (IuliaDuta/RSTG at 788a7a3), departures 5 and 6.

    Example:
        >>> AdditiveAttention(16)(torch.randn(2, 5, 14, 16), torch.ones(14, 14)).shape
        torch.Size([2, 5, 1, 14, 14])
    """

    heads = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(channels, 1)
        self.sender = nn.Linear(channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does."""
        glorot(self.receiver)
        glorot(self.sender)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        pairs = self.receiver(nodes) + self.sender(nodes).transpose(-1, -2)
        logits = nn.functional.leaky_relu(adjacency * pairs, 0.2) + adjacency
        return logits.softmax(dim=-1).unsqueeze(2)


class DotAttention(nn.Module):
    r"""Unscaled dot products, in one or several heads.

    .. math::
        a^h_{ij} = \mathrm{softmax}_j\big(A_{ij}
        \langle W_1^h v_i + b_1^h,\; W_2^h v_j + b_2^h \rangle\big)

    Every head reads the whole node and has width ``C / heads``. Non-neighbours and the node itself keep the logit 0 and
    so a weight.

    Args:
        channels: Width of a node.
        heads: Number of heads; the program has 1 or 8.

    Shapes:
        - **nodes:** ``[B, T, N, C]``. **adjacency:** ``[N, N]`` of 0 and 1.
        - **output:** ``[B, T, heads, receiver, sender]``; the weights of a receiver sum to 1.

    Source: program (IuliaDuta/RSTG at 788a7a3), departures 5 to 7.

    Example:
        >>> DotAttention(16, heads=8)(torch.randn(2, 5, 14, 16), torch.ones(14, 14)).shape
        torch.Size([2, 5, 8, 14, 14])
    """

    def __init__(self, channels: int, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.receiver = nn.Linear(channels, channels)
        self.sender = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does: head by head."""
        for layer in (self.receiver, self.sender):
            glorot(layer, self.heads)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        query, key = (
            layer(nodes).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for layer in (self.receiver, self.sender)
        )
        return (adjacency * (query @ key.transpose(-1, -2))).softmax(dim=-1)


class UnmaskedGather(nn.Module):
    r"""The weighted sum of all messages to a node, then bias, norm and ReLU.

    .. math::
        g_i = \mathrm{ReLU}\Big(\mathrm{norm}\Big(\sum_j a_{ij} m_{ji} + c\Big)\Big), \qquad
        g_i = \mathrm{ReLU}\Big(\Big\Vert_h \sum_j a^h_{ij} (W^h m_{ji} + b^h) + c^h\Big)

    for one head and for several. :math:`W^h` is applied after the sum, which is the same because the weights of a
    receiver sum to 1.

    Args:
        channels: Width of messages.
        heads: Number of heads of the attention.
        norm: Norm in front of the ReLU; the program has it for additive attention only.

    Shapes:
        - **alpha:** ``[B, T, heads, receiver, sender]``. **messages:** ``[B, T, receiver, sender, C]``.
        - **output:** ``[B, T, receiver, C]``.

    Source: program (IuliaDuta/RSTG at 788a7a3), departures 6 to 8.

    Example:
        >>> UnmaskedGather(16)(torch.rand(2, 5, 1, 14, 14), torch.randn(2, 5, 14, 14, 16)).shape
        torch.Size([2, 5, 14, 16])
    """

    def __init__(self, channels: int, heads: int = 1, norm: str | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(channels, channels) if heads > 1 else None
        self.bias = nn.Parameter(torch.empty(channels))
        self.norm = stage_norm(norm, channels, node_axes=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does: head by head, zero biases."""
        nn.init.zeros_(self.bias)
        if self.project is not None:
            glorot(self.project, self.heads)
        _reset_norm(self.norm)

    def forward(self, alpha: Tensor, messages: Tensor) -> Tensor:
        gathered = alpha.transpose(2, 3) @ messages
        if self.project is None:
            gathered = gathered.squeeze(-2)
        else:
            weight = self.project.weight.unflatten(0, (self.heads, -1))
            gathered = torch.einsum("btihc,hdc->btihd", gathered, weight).flatten(-2)
            gathered = gathered + self.project.bias
        return self.norm(gathered + self.bias).relu()


class NodeUpdate(nn.Module):
    r"""New nodes out of old nodes and gathered messages.

    .. math::
        v_i \leftarrow \mathrm{norm}\big(\mathrm{MLP}_{s(i)}([v_i | g_i])\big)

    with a ReLU after every layer of the MLP, the last too. :math:`s(i)` is the scale of node i where each scale has its
    own MLP; one norm serves all scales.

    Args:
        channels: Width of nodes and messages.
        layers: Number of layers of an MLP.
        sizes: How many nodes each MLP serves, in the order of the nodes; one entry for one MLP.
        norm: None, ``"layer"`` or ``"batch"``.

    Shapes:
        - **nodes, gathered, output:** ``[B, T, N, C]``.

    Source: paper, eq. of f_space; program (IuliaDuta/RSTG at 788a7a3), departures 9 and 10.

    Example:
        >>> update = NodeUpdate(16, layers=2, sizes=[9, 4, 1])
        >>> update(torch.randn(2, 5, 14, 16), torch.randn(2, 5, 14, 16)).shape
        torch.Size([2, 5, 14, 16])
    """

    def __init__(self, channels: int, layers: int, sizes: Sequence[int], norm: str | None = None) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.mlps = nn.ModuleList()
        for _ in self.sizes:
            widths = [2 * channels, *[channels] * (layers - 1)]
            self.mlps.append(nn.Sequential(*(m for width in widths for m in (nn.Linear(width, channels), nn.ReLU()))))
        self.norm = stage_norm(norm, channels, node_axes=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does."""
        for mlp in self.mlps:
            for layer in mlp[::2]:
                glorot(layer)
        _reset_norm(self.norm)

    def forward(self, nodes: Tensor, gathered: Tensor) -> Tensor:
        parts = torch.cat([nodes, gathered], dim=-1).split(self.sizes, dim=-2)
        updated = [mlp(part) for mlp, part in zip(self.mlps, parts, strict=True)]
        return self.norm(torch.cat(updated, dim=-2))


def glorot(layer: nn.Linear | nn.Conv2d, parts: int = 1, gain: float = 1.0) -> None:
    r"""Draw a layer's weight from :math:`U(-a, a)`, :math:`a = g \sqrt{6 / (f_{in} + f_{out})}`; its bias becomes 0.

    Args:
        layer: Linear layer or convolution.
        parts: Number of layers, such as heads, whose rows stand in it one after the other.
        gain: Factor g, of a layer that is a part of a wider one.

    Source: default initialiser of the program's framework.
    """
    for rows in layer.weight.data.chunk(parts):
        nn.init.xavier_uniform_(rows, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _reset_norm(norm: nn.Module) -> None:
    if not isinstance(norm, nn.Identity):
        norm.reset_parameters()
