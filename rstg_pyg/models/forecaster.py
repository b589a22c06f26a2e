"""Forecasting on a graph: an encoder, the recurrence, a head; and errors that count what is there.

Shape legend: N nodes, ``*`` inner dimensions, T frames seen, H frames predicted, C channels of a node, O channels
predicted, G channels of the graph.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, Linear, Module, ModuleDict
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import is_sparse

from rstg_pyg.arguments import check_entries, check_flags, check_like, check_options, check_positive, describe, num_dims
from rstg_pyg.conv import RSTGConv
from rstg_pyg.formula import Formula
from rstg_pyg.ops import FrameIndex, GraphIndex
from rstg_pyg.ops.frames import check_mask
from rstg_pyg.recurrence import RSTG
from rstg_pyg.recurrence.rstg import State

OWN_SCALES = {"enter": 0.1, "leave": 0.0, "pe": 0.3}
"""Standard deviations with which what nodes have of their own begins."""


class Forecaster(Formula):
    r"""Predict a node's next H frames from what all nodes of a graph did.

    .. math::
        \mathbf{h}^{1..T} = \mathrm{RSTG}(\mathbf{W}_{in} \mathbf{x}^{1..T}), \qquad
        \hat{\mathbf{x}}_i^{T+k} = \mathbf{x}_i^T + \mathbf{W}_k \mathbf{h}_i^T + \mathbf{b}_k, \qquad k = 1, \ldots, H

    or, with ``feed_back``, one frame at a time, :math:`\hat{\mathbf{x}}^{t+1} = \mathbf{x}^t + \mathbf{W}_1
    \mathbf{h}^t + \mathbf{b}_1`: the recurrence goes on from its own prediction, with all nodes that were there, on the
    edges and the encodings of the last frame.

    A node that is absent in the last frame is predicted from the last frame in which it was there; one that never was
    there gets 0.

    Args:
        in_channels: Size C of a node's frame.
        horizon: Number H of frames to predict.
        channels: Size G of the graph's features.
        out_channels: Size O of a predicted frame: the first O channels of a node's frame (default: C).
        feed_back: Feed predictions back instead of predicting all frames at once; needs O = C.
        from_last: Predict the difference to the last frame that was seen, as in the formulas; else the frame itself.
        pe_channels: Size P of the positional encodings.
        num_nodes: Learn what each of so many nodes has of its own, for graphs, and batches of graphs, that have the
            same nodes in the same order every time: a vector :math:`\mathbf{u}_i` that is added to what enters the
            recurrence, a factor :math:`1 + \mathbf{s}_i` of what leaves it, and where none are given the encodings.
        recurrence: A function from G to a module of one's own in the place of :class:`~rstg_pyg.RSTG`, with its call.
        **kwargs: Arguments of :class:`~rstg_pyg.RSTG` and :class:`~rstg_pyg.RSTGConv` (``num_stages``, ``rnn``,
            ``edge_dim``, ``heads``, ...).

    Shapes:
        - **x:** ``[N, *, T, C]``. **edges, edge_time, pe, mask:** as of :class:`~rstg_pyg.RSTG`.
        - **forward:** ``[N, *, H, O]``, or with ``num_last`` of F ``[N, *, F, H, O]``. **step:** ``frame [N, *, C],
          state -> ([N, *, H, O], state)``.

    Raises:
        ValueError: If an argument is out of its range, or an input does not fit.

    Source: the recurrence is that of arXiv:1904.05582 (NeurIPS 2019); its use for forecasts is this package's.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import Forecaster
        >>> model, edges = Forecaster(2, horizon=12, channels=16), torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> model(torch.randn(3, 8, 2), edges).shape
        torch.Size([3, 12, 2])
        >>> prediction, state = model.step(torch.randn(3, 2), None, edges)
    """

    def __init__(
        self,
        in_channels: int,
        horizon: int,
        channels: int = 64,
        out_channels: int | None = None,
        *,
        feed_back: bool = False,
        from_last: bool = True,
        pe_channels: int = 0,
        num_nodes: int | None = None,
        recurrence: Callable[[int], Module] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_options(self, kwargs, *((RSTG, RSTGConv) if recurrence is None else ()))
        out_channels = in_channels if out_channels is None else out_channels
        check_positive(in_channels=in_channels, horizon=horizon, channels=channels, out_channels=out_channels)
        check_flags(feed_back=feed_back, from_last=from_last)
        if out_channels > in_channels or (feed_back and out_channels != in_channels):
            raise ValueError(
                f"expected 'out_channels' to be {'' if feed_back else 'at most '}in_channels={in_channels}, "
                f"got {out_channels}"
            )
        self.in_channels, self.horizon, self.out_channels = in_channels, horizon, out_channels
        self.feed_back, self.from_last = feed_back, from_last
        self.formula = {"from_last": from_last}
        self.lin_in = Linear(in_channels, channels)
        self.num_nodes, self.own = num_nodes, ModuleDict()
        if num_nodes is not None:
            check_positive(num_nodes=num_nodes)
            widths = {"enter": channels, "leave": channels, "pe": pe_channels}
            self.own.update({name: Embedding(num_nodes, width) for name, width in widths.items() if width})
        options = {"pe_channels": pe_channels, **kwargs}
        self.rstg = RSTG(channels, **options) if recurrence is None else recurrence(channels)
        self.lin_out = Linear(channels, out_channels * (1 if feed_back else horizon))
        self._reset_own()

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters."""
        for layer in (self.lin_in, self.rstg, self.lin_out):
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        self._reset_own()

    def _reset_own(self) -> None:
        for name, table in self.own.items():
            torch.nn.init.normal_(table.weight, std=OWN_SCALES[name])

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
        num_last: int | None = None,
    ) -> Tensor:
        """Predict the frames after ``x``; with ``num_last`` the frames after each of the last so many frames, all at
        the cost of one, which is what makes training on long sequences cheap."""
        if num_last is None:
            return self._predict(x, None, edge_index, edge_attr, pe, edge_time, mask)[0]
        check_positive(num_last=num_last)
        if self.feed_back or num_last > x.size(-2):
            raise ValueError(
                f"expected 'num_last' to be at most the {x.size(-2)} frames of 'x', and feed_back=False, got "
                f"{num_last} and {self.feed_back}"
            )
        return self._predict(x, None, edge_index, edge_attr, pe, edge_time, mask, num_last)[0]

    def step(
        self,
        frame: Tensor,
        state: Any,
        edge_index: Adj,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        mask: OptTensor = None,
    ) -> tuple[Tensor, Any]:
        """Take a stream's next frame ``[N, *, C]``, the state that the frame before it returned (None at the start),
        the frame's edges, and ``mask [N, *]``, who is there; predict what ``forward`` does of all frames up to it."""
        if num_dims(frame) < 2 or frame.size(-1) != self.in_channels:
            raise ValueError(f"expected a frame of shape [N, *, {self.in_channels}], got {describe(frame)}")
        mask = None if mask is None else check_mask(mask, frame.shape[:-1], frame).unsqueeze(-1)
        # A copy: callers may write the next frame where this one is.
        return self._predict(frame.unsqueeze(-2).clone(), state, edge_index, edge_attr, pe, mask=mask)

    def _predict(
        self,
        x: Tensor,
        state: Any,
        edge_index: Adj,
        edge_attr: OptTensor,
        pe: OptTensor,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
        num_last: int | None = None,
    ) -> tuple[Tensor, Any]:
        """The forecasts, and a stream's state: that of the recurrence, and of every node the last frame in which it was
        there, what the recurrence made of it, and whether there was one."""
        if num_dims(x) < 3 or x.size(-1) != self.in_channels:
            raise ValueError(f"expected 'x' of shape [N, *, T, {self.in_channels}], got {describe(x)}")
        check_like("x", x, self.lin_in)
        if state is not None:
            check_entries(state, 4)
        after, *before = state or [None]
        h, after = self._run(x, after, edge_index, edge_attr, pe, edge_time, mask)
        now, last = last_there(x, mask, num_last), last_there(h, mask, num_last)
        there = were_there(x, mask, num_last)
        if before and mask is not None:
            now, last = (torch.where(there[..., None], new, old) for new, old in zip((now, last), before, strict=False))
            there = there | before[2]
        state = after, now, last, there
        if not self.feed_back:
            frames = self._head(last).unflatten(-1, (self.horizon, self.out_channels))
            frames = frames + now[..., None, : self.out_channels] if self.from_last else frames
            return zero_where_absent(frames, mask, there), state
        if edge_time is not None:
            edge_index = edge_index.adjacency if isinstance(edge_index, GraphIndex) else edge_index
            if is_sparse(edge_index):
                raise ValueError("expected edges as a tensor [2, num_edges] with 'edge_time' and feed_back=True")
            of_last = edge_time.long() == x.size(-2) - 1
            edge_index = edge_index[:, of_last]
            edge_attr = None if edge_attr is None else edge_attr[of_last]
        elif num_dims(edge_attr) > 2:
            edge_attr = edge_attr[..., -1:, :]
        pe = pe[..., -1:, :] if num_dims(pe) > 2 else pe
        goes_on = None if mask is None else there.unsqueeze(-1)
        frames = []
        for number in range(self.horizon):
            change = self._head(last)
            now = now + change if self.from_last else change
            frames.append(now)
            if number + 1 < self.horizon:
                h, after = self._run(now.unsqueeze(-2), after, edge_index, edge_attr, pe, None, goes_on)
                last = h[..., -1, :]
        return zero_where_absent(torch.stack(frames, -2), mask, there), state

    def _run(
        self,
        x: Tensor,
        state: State | None,
        edge_index: Adj,
        edge_attr: OptTensor,
        pe: OptTensor,
        edge_time: OptTensor,
        mask: OptTensor,
    ) -> tuple[Tensor, State]:
        if mask is None:
            v = self.lin_in(x)
        else:
            frames = FrameIndex(x.shape[:-1], mask=check_mask(mask, x.shape[:-1], x))
            v = frames.put(self.lin_in(frames.take(x)))
        if self.own:
            v = v + self._of_nodes("enter", x.size(0), v.dim())
            pe = self._of_nodes("pe", x.size(0), 2) if pe is None and "pe" in self.own else pe
        return self.rstg(v, edge_index, edge_attr, pe, state, edge_time=edge_time, mask=mask)

    def _head(self, h: Tensor) -> Tensor:
        return self.lin_out(h * (1 + self._of_nodes("leave", h.size(0), h.dim())) if self.own else h)

    def _of_nodes(self, name: str, num_rows: int, num_dims: int) -> Tensor:
        """What nodes have of their own, ``[N, 1, ..., 1, width]``."""
        copies, rest = divmod(num_rows, self.num_nodes)
        if rest:
            raise ValueError(f"expected a multiple of num_nodes={self.num_nodes} nodes, got {num_rows} in 'x'")
        return self.own[name].weight.repeat(copies, 1).view(num_rows, *[1] * (num_dims - 2), -1)


def last_there(x: Tensor, mask: OptTensor = None, num_last: int | None = None) -> Tensor:
    """Of every node the last frame in which it is there: ``[N, *, C]`` from ``x [N, *, T, C]`` and ``mask [N, *, T]``;
    0 of nodes that never are. With ``num_last`` that up to each of the last so many frames, ``[N, *, F, C]``."""
    count = 1 if num_last is None else num_last
    last = x[..., x.size(-2) - count :, :]
    if mask is not None:
        place = _places(mask)[..., x.size(-2) - count :, None]
        last = torch.where(place < 0, 0, x.gather(-2, place.clamp(min=0).expand(*place.shape[:-1], x.size(-1))))
    return last.squeeze(-2) if num_last is None else last


def _places(mask: Tensor) -> Tensor:
    """For every frame the number of the last one up to it in which a node is there, ``[N, *, T]``; -1 for none."""
    return torch.where(mask, torch.arange(mask.size(-1), device=mask.device), -1).cummax(-1).values


def were_there(x: Tensor, mask: OptTensor, num_last: int | None = None) -> Tensor:
    """Which nodes of ``x [N, *, T, C]`` were there at all, ``[N, *]``; with ``num_last`` up to each of the last so many
    frames, ``[N, *, F]``."""
    count = 1 if num_last is None else num_last
    if mask is None:
        there = torch.ones(*x.shape[:-2], count, dtype=torch.bool, device=x.device)
    else:
        there = _places(mask)[..., x.size(-2) - count :] >= 0
    return there.squeeze(-1) if num_last is None else there


def zero_where_absent(frames: Tensor, mask: OptTensor, there: Tensor) -> Tensor:
    """``frames [*, H, O]``, and 0 of nodes that were not there, ``[*]``; without a mask all were."""
    return frames if mask is None else torch.where(there[..., None, None], frames, 0)


def masked_error(prediction: Tensor, target: Tensor, mask: OptTensor = None, power: float = 1.0) -> Tensor:
    r"""The mean of :math:`|\hat y - y|^p` over what is there: with p = 1 the mean absolute error, with p = 2 the mean
    squared one.

    Args:
        prediction, target: Forecasts, and what came; what stands in ``target`` where the mask is False does not
            matter, nor does it for gradients.
        mask: Where a target is there; None for everywhere. Nothing there gives 0.
        power: The exponent p.

    Shapes:
        - **prediction, target:** ``[N, *, H, O]``. **mask:** ``[N, *, H]`` bool, or as the target. **output:** ``[]``.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import masked_error
        >>> target = torch.tensor([[[1.0], [float("nan")]]])
        >>> masked_error(torch.zeros(1, 2, 1), target, ~target.isnan())
        tensor(1.)
    """
    if prediction.shape != target.shape:
        raise ValueError(f"expected a target of shape {list(prediction.shape)}, got {describe(target)}")
    if mask is None:
        return (prediction - target).abs().pow(power).mean()
    if num_dims(mask) not in (target.dim() - 1, target.dim()):
        raise ValueError(f"expected a mask of shape {list(target.shape[:-1])}, got {describe(mask)}")
    mask = check_mask(mask, target.shape[: num_dims(mask)], target)
    mask = (mask if mask.dim() == target.dim() else mask.unsqueeze(-1)).expand_as(target)
    # 1 where there is nothing: of 0 a root has no finite gradient.
    error = torch.where(mask, prediction - target, 1).abs().pow(power)
    return torch.where(mask, error, 0).sum() / mask.sum().clamp(min=1)
