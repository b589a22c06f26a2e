"""Forecasters on graphs, side by side: RSTG in its forms, parts of it, and what people write instead; one set of sizes
for all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Identity, Linear, Module, ModuleList
from torch_geometric.nn import GATv2Conv, TransformerConv
from torch_geometric.typing import Adj, OptTensor

from rstg_pyg.arguments import check_like, check_name, check_positive, describe, num_dims
from rstg_pyg.models.forecaster import Forecaster, last_there, were_there, zero_where_absent
from rstg_pyg.norm import Norm, resolve_norm
from rstg_pyg.ops import FrameIndex, GraphIndex
from rstg_pyg.recurrence import RSTG, TimeStage


@dataclass(frozen=True)
class GraphNetwork:
    """The sizes and options that all rows of a table share, so that rows differ in their method alone.

    Args:
        in_channels: Channels of a node's frame.
        history: Frames that are seen.
        horizon: Frames that are predicted.
        out_channels: Channels that are predicted, the first ones (default: all).
        channels: Size of the graph's features.
        num_stages: Number K of space stages, and of layers of messages in other rows.
        rnn: Cell of the time stages.
        heads: Attention heads.
        edge_dim: Features of an edge.
        pe_channels: Width of the positional encodings.
        norm: Normalisation of every stage's input.
        residual: Whether every stage adds its input to its output.
        dropout: Dropout of attention.
        feed_back: Feed predictions back instead of predicting all frames at once.
        from_last: Predict the difference to the last frame.
        num_nodes: Learn what every node has of its own, of graphs that always have the same ones.
    """

    in_channels: int
    history: int
    horizon: int
    out_channels: int | None = None
    channels: int = 32
    num_stages: int = 2
    rnn: str = "gru"
    heads: int = 4
    edge_dim: int | None = None
    pe_channels: int = 0
    norm: Norm = "layer_norm"
    residual: bool = True
    dropout: float = 0.0
    feed_back: bool = False
    from_last: bool = True
    num_nodes: int | None = None

    def forecaster(self, recurrence: Callable[[int], Module] | None = None, **options: Any) -> Forecaster:
        """Make a forecaster of these sizes around RSTG with these options and ``options``, or around another module."""
        options = {"pe_channels": self.pe_channels} if recurrence is not None else {**self.graph(), **options}
        return Forecaster(
            self.in_channels,
            self.horizon,
            self.channels,
            self.out_channels,
            feed_back=self.feed_back,
            from_last=self.from_last,
            num_nodes=self.num_nodes,
            recurrence=recurrence,
            **options,
        )

    def graph(self) -> dict[str, Any]:
        """Arguments of every RSTG."""
        names = ("num_stages", "rnn", "heads", "edge_dim", "pe_channels", "norm", "residual", "dropout")
        return {name: getattr(self, name) for name in names}


class LinearAutoregression(Module):
    r"""Predict a node's next frames by one linear map of its last T, the same for all nodes, of the channels that are
    predicted.

    .. math::
        \hat{\mathbf{x}}^{T+k} = \mathbf{x}^T + \mathbf{b}_k
            + \sum_{t < T} \mathbf{W}_{k,t} (\mathbf{x}^t - \mathbf{x}^T)

    In place of frames in which a node is absent stands the last one in which it was there.

    Args:
        in_channels: Size C of a node's frame.
        history: Number T of frames that it takes.
        horizon: Number H of frames to predict.
        out_channels: Size O of a predicted frame, the first channels (default: C).

    Shapes:
        - **x:** ``[N, *, T, C]``, of which the last T count; it is called as :class:`Forecaster` is.
          **output:** ``[N, *, H, O]``.

    Example:
        >>> LinearAutoregression(2, history=5, horizon=3)(torch.randn(4, 5, 2)).shape
        torch.Size([4, 3, 2])
    """

    def __init__(self, in_channels: int, history: int, horizon: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.out_channels = in_channels if out_channels is None else out_channels
        check_positive(in_channels=in_channels, history=history, horizon=horizon, out_channels=self.out_channels)
        self.history, self.horizon = history, horizon
        self.lin = Linear(history * self.out_channels, horizon * self.out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Begin with the last frame as the forecast."""
        for parameter in self.lin.parameters():
            torch.nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        edge_index: Adj | None = None,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
        num_last: int | None = None,
    ) -> Tensor:
        history, count = self.history, num_last or 1
        if num_dims(x) < 3 or x.size(-1) < self.out_channels or x.size(-2) < history + count - 1:
            raise ValueError(
                f"expected 'x' of at least {history + count - 1} frames and {self.out_channels} channels, "
                f"[N, *, T, C], got {describe(x)}"
            )
        check_like("x", x, self)
        last = last_there(x, mask, count)[..., : self.out_channels]
        lags = x[..., x.size(-2) - history - count + 1 :, : self.out_channels].unfold(-2, history, 1)
        change = lags - last.unsqueeze(-1)
        if mask is not None:
            there = mask[..., mask.size(-1) - history - count + 1 :].unfold(-1, history, 1)
            change = torch.where(there.unsqueeze(-2), change, 0)
        out = self.lin(change.flatten(-2)).unflatten(-1, (self.horizon, self.out_channels)) + last.unsqueeze(-2)
        return zero_where_absent(out if num_last is not None else out.squeeze(-3), mask, were_there(x, mask, num_last))


class ConvRNN(Module):
    r"""PyG's layers on every frame, then a recurrent network over every node's frames: what people write today, called
    as :class:`~rstg_pyg.RSTG` is. All frames go through a layer at once.

    .. math::
        \mathbf{v}^{t,k+1} = \mathbf{v}^{t,k} + \mathrm{ReLU}(\mathrm{conv}_k(\mathrm{norm}([\mathbf{v}^{t,k} |
        \mathbf{p}])))
        \qquad \mathbf{h}^t = \mathrm{RNN}(\mathbf{v}^{t,K}, \mathbf{h}^{t-1})

    Args:
        conv: A layer such as ``GATv2Conv``: ``conv(in_channels, channels, heads=heads, edge_dim=edge_dim)``.
        channels: Size C of the node features.
        num_stages: Number K of layers.
        rnn, norm, residual: As of :class:`~rstg_pyg.RSTG`.
        heads: Attention heads, which divide C.
        edge_dim: Features of an edge.
        pe_channels: Width of the positional encodings, which every layer gets.
        dropout: Dropout of attention.

    Example:
        >>> from torch_geometric.nn import GATv2Conv
        >>> x, edges = torch.randn(3, 5, 16), torch.tensor([[0, 1], [1, 2]])
        >>> ConvRNN(GATv2Conv, 16)(x, edges)[0].shape
        torch.Size([3, 5, 16])
    """

    def __init__(
        self,
        conv: Callable[..., Module],
        channels: int,
        num_stages: int = 2,
        rnn: str = "gru",
        heads: int = 1,
        edge_dim: int | None = None,
        pe_channels: int = 0,
        norm: Norm = None,
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(channels=channels, num_stages=num_stages, heads=heads)
        if channels % heads:
            raise ValueError(f"expected 'channels' to be a multiple of heads={heads}, got {channels}")
        options = {"heads": heads, "edge_dim": edge_dim, "dropout": dropout}
        self.convs = ModuleList(conv(channels + pe_channels, channels // heads, **options) for _ in range(num_stages))
        self.norms = ModuleList(resolve_norm(norm, channels) or Identity() for _ in range(num_stages))
        self.time_stage = TimeStage(channels, rnn, norm=norm, residual=residual)
        self.residual = residual

    def reset_parameters(self) -> None:
        for layer in (*self.convs, *self.norms, self.time_stage):
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        state: Any = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> tuple[Tensor, Any]:
        frames = FrameIndex(x.shape[:-1], GraphIndex(edge_index, x.size(0)), edge_time, mask)
        v, pe, edge_attr = frames.take(x), frames.take_pe(pe), frames.take_edge_attr(edge_attr)
        edges = torch.stack([frames.edges.source, frames.edges.destination])
        for conv, norm in zip(self.convs, self.norms, strict=True):
            given = norm(v)
            out = conv(given if pe is None else torch.cat([given, pe], -1), edges, edge_attr).relu()
            v = v + out if self.residual else out
        return self.time_stage(frames.put(v), state, mask)


class Mean(Module):
    """The mean over all frames so far, in the place of a recurrent network: a memory that tells no order.

    Shapes:
        - **x, output:** ``[R, T, C]``. **state:** ``(sum [R, C], count [R, 1])``. **lengths:** ``[R]``.
    """

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, lengths: OptTensor = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        total, count = (x.new_zeros(len(x), x.size(2)), x.new_zeros(len(x), 1)) if state is None else state
        total = total[:, None] + x.cumsum(1)
        count = count[:, None] + torch.arange(1, x.size(1) + 1, device=x.device, dtype=x.dtype)[:, None]
        last = x.new_full((len(x),), x.size(1) - 1, dtype=torch.long) if lengths is None else lengths - 1
        rows = torch.arange(len(x), device=x.device)
        return total / count, (total[rows, last], count[rows, last])


class WithoutEdgeFeatures(RSTG):
    """RSTG that takes no notice of edge features, for the homogeneous form makes edges that have none."""

    def forward(self, x: Tensor, edge_index: Adj, edge_attr: OptTensor = None, *args: Any, **kwargs: Any) -> Any:
        return super().forward(x, edge_index, None, *args, **kwargs)


@dataclass(frozen=True)
class GraphRow:
    """One forecaster of the tables.

    Args:
        name: What a command line calls it.
        title: What a table calls it.
        build: From the shared sizes to the model with new weights.
        has_cell: Whether it has a recurrent cell, which may be another one.
    """

    name: str
    title: str
    build: Callable[[GraphNetwork], Module]
    has_cell: bool = True


def _autoregression(net: GraphNetwork) -> Module:
    return LinearAutoregression(net.in_channels, net.history, net.horizon, net.out_channels)


def _gru(net: GraphNetwork) -> Module:
    return net.forecaster(stages=("time",), norm=None, residual=False)


def _form(stages: str) -> Callable[[GraphNetwork], Module]:
    return lambda net: net.forecaster(stages=stages)


def _space_only(net: GraphNetwork) -> Module:
    return net.forecaster(stages="1-temp", rnn=lambda channels: Mean())


def _homogeneous(net: GraphNetwork) -> Module:
    options = {**net.graph(), "edge_dim": None, "stages": "homogeneous"}
    return net.forecaster(lambda channels: WithoutEdgeFeatures(channels, **options))


def _conv_rnn(conv: Callable[..., Module]) -> Callable[[GraphNetwork], Module]:
    return lambda net: net.forecaster(lambda channels: ConvRNN(conv, channels, **net.graph()))


GRAPH_ROWS: dict[str, GraphRow] = {
    row.name: row
    for row in (
        GraphRow("autoregression", "linear autoregression, one for all nodes", _autoregression, False),
        GraphRow("gru", "one recurrent network per node, no messages", _gru),
        GraphRow("time-only", "RSTG time-only: memory, no messages", _form("time-only")),
        GraphRow("space-only", "RSTG space-only: messages, the mean over time", _space_only, False),
        GraphRow("gatv2-gru", "GATv2Conv, then a recurrent network", _conv_rnn(GATv2Conv)),
        GraphRow("transformer-gru", "TransformerConv, then a recurrent network", _conv_rnn(TransformerConv)),
        GraphRow("homogeneous", "RSTG homogeneous", _homogeneous, False),
        GraphRow("1-temp-stage", "RSTG 1-temp-stage", _form("1-temp")),
        GraphRow("all-temp-stages", "RSTG all-temp-stages", _form("all-temp")),
    )
}
"""By name; the forms are those of the paper's ablation."""


def build_graph_row(name: str, network: GraphNetwork, rows: Mapping[str, GraphRow] = GRAPH_ROWS) -> Module:
    """Make the forecaster of one of ``rows`` with new weights; ``"NAME:RNN"`` is a row with another cell, as
    ``"all-temp-stages:lstm"``.

    Raises:
        ValueError: If no row has that name, or no time stage that cell.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import GraphNetwork, build_graph_row
        >>> network = GraphNetwork(in_channels=2, history=5, horizon=3)
        >>> build_graph_row("all-temp-stages:lstm", network)(torch.randn(4, 5, 2), torch.tensor([[0], [1]])).shape
        torch.Size([4, 3, 2])
    """
    row, _, rnn = name.partition(":") if isinstance(name, str) else (name, "", "")
    check_name("the name of a row", row, rows)
    if not isinstance(network, GraphNetwork):
        raise ValueError(f"expected 'network' to be a GraphNetwork, got {describe(network)}")
    if rnn and not rows[row].has_cell:
        raise ValueError(f"expected a row with a recurrent cell before ':{rnn}', got {row!r}")
    return rows[row].build(replace(network, rnn=rnn) if rnn else network)
