"""Forecasts of where people or other bodies go, each seen from its own place and heading.

Shape legend: N nodes, T frames seen, H frames predicted, E edges.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torch_geometric.typing import Adj, OptTensor

from rstg_pyg.arguments import check_edges, check_positive, describe, num_dims
from rstg_pyg.models.forecaster import Forecaster, last_there
from rstg_pyg.ops.frames import check_mask

STANDS = 0.02
"""Metres a frame: who moves less has no heading."""
NEAR = 0.3
"""Metres: where the inverse of a distance stops to grow fast."""


class MotionForecaster(Module):
    r"""Let a forecaster of any kind predict positions in the plane, so that it need not learn that the world has no
    centre and no north.

    .. math::
        \hat{\mathbf{p}}_i^{T+k} = \mathbf{p}_i^T + k \, \mathbf{v}_i^T + \mathbf{R}_i^\top f(\ldots)_{i,k}, \qquad
        \mathbf{v}_i^t = \mathbf{p}_i^t - \mathbf{p}_i^{t-1}

    where :math:`\mathbf{R}_i` turns the heading of i in its last frame to the first axis, so that f gets

    - of a node :math:`[\mathbf{R}_i (\mathbf{p}_i^t - \mathbf{p}_i^T) \,|\, \mathbf{R}_i \mathbf{v}_i^t \,|\, b]`, with
      b = 1 where there is a velocity: a node that has just come has none;
    - of an edge j -> i :math:`[\mathbf{R}_i (\mathbf{p}_j^t - \mathbf{p}_i^t) \,|\, \mathbf{R}_i (\mathbf{v}_j^t -
      \mathbf{v}_i^t) \,|\, e^{-d} \,|\, (d + 0.3)^{-1}]` with their distance d.

    Where f gives 0, everybody goes on as in the last two frames: so a new model with a
    :class:`~rstg_pyg.models.Forecaster` starts. Where the whole scene is moved or turned, the forecast is, too.

    Args:
        forecaster: f, with the call of :class:`~rstg_pyg.models.Forecaster`: from ``[N, T, 5]`` and edges with 6
            features to ``[N, H, 2]``.
        horizon: Number H of frames to predict.

    Shapes:
        - **x:** ``[N, T, 2]``, positions. **edge_index, edge_time, mask:** as of :class:`~rstg_pyg.RSTG`.
        - **output:** ``[N, H, 2]``, positions; 0 of nodes that never are there.

    Raises:
        ValueError: If an input does not fit.

    Source: this package's.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import Forecaster, MotionForecaster
        >>> model = MotionForecaster(Forecaster(5, 12, 16, out_channels=2, edge_dim=6, from_last=False), horizon=12)
        >>> model(torch.randn(3, 8, 2), torch.tensor([[0, 1, 2], [1, 2, 0]])).shape
        torch.Size([3, 12, 2])
    """

    in_channels, out_channels, edge_dim = 5, 2, 6
    """Of the forecaster within."""

    def __init__(self, forecaster: Module, horizon: int) -> None:
        super().__init__()
        check_positive(horizon=horizon)
        self.forecaster = forecaster
        self.horizon = horizon
        self._start_at_zero()

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters."""
        self.forecaster.reset_parameters()
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        if isinstance(self.forecaster, Forecaster):
            torch.nn.init.zeros_(self.forecaster.lin_out.weight)
            torch.nn.init.zeros_(self.forecaster.lin_out.bias)

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> Tensor:
        """Predict the positions after ``x``. Edge features are made from positions: ``edge_attr`` is not used."""
        if num_dims(x) != 3 or x.size(-1) != 2:
            raise ValueError(f"expected 'x' of shape [N, T, 2], got {describe(x)}")
        check_edges(edge_index)
        x, there, velocity, moves = _motion(x, mask)
        last, speed = last_there(x, there), last_there(velocity, moves)
        turn = _turn(speed, velocity.sum(1))
        place = torch.where(there[..., None], x - last[:, None], 0)
        nodes = torch.cat([place @ turn, velocity @ turn, moves[..., None].to(x.dtype)], -1)
        edges = _edge_features(torch.cat([x, velocity], -1), turn, edge_index, edge_time)
        change = self.forecaster(nodes, edge_index, edges, pe, edge_time=edge_time, mask=mask)
        return torch.where(there.any(1)[:, None, None], _go_on(last, speed, self.horizon) + change @ turn.mT, 0)


def constant_velocity(x: Tensor, horizon: int, mask: OptTensor = None) -> Tensor:
    r"""Let everybody go on as in the last two frames: what a forecast has to be better than.

    .. math::
        \hat{\mathbf{p}}_i^{T+k} = \mathbf{p}_i^T + k \, (\mathbf{p}_i^T - \mathbf{p}_i^{T-1})

    Shapes:
        - **x:** ``[N, T, 2]``. **mask:** ``[N, T]`` bool, where a node is there; who is there for one frame stands.
        - **output:** ``[N, horizon, 2]``; 0 of nodes that never are there.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import constant_velocity
        >>> constant_velocity(torch.tensor([[[0.0, 0.0], [1.0, 2.0]]]), horizon=2)
        tensor([[[2., 4.],
                 [3., 6.]]])
    """
    x, there, velocity, moves = _motion(x, mask)
    return _go_on(last_there(x, there), last_there(velocity, moves), horizon)


def _motion(x: Tensor, mask: OptTensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, who is there, velocities, and who has one; 0 where nobody is there or has none."""
    there = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else check_mask(mask, x.shape[:-1], x)
    x = torch.where(there[..., None], x, 0)
    moves = F.pad(there[:, 1:] & there[:, :-1], (1, 0))
    return x, there, torch.where(moves[..., None], F.pad(x.diff(dim=1), (0, 0, 1, 0)), 0), moves


def _go_on(last: Tensor, speed: Tensor, horizon: int) -> Tensor:
    ahead = torch.arange(1, horizon + 1, dtype=last.dtype, device=last.device)[:, None]
    return last[:, None] + ahead * speed[:, None]


def _turn(speed: Tensor, way: Tensor) -> Tensor:
    """What turns row vectors ``[N, T, 2]`` of every node so that its heading becomes (1, 0), ``[N, 2, 2]``: that of its
    last velocity, or where it stands of its whole way, or else of the world."""
    heading = torch.where(speed.norm(dim=1, keepdim=True) > STANDS, speed, way)
    length = heading.norm(dim=1, keepdim=True)
    along = torch.where(length > STANDS, heading / length.clamp(min=STANDS), heading.new_tensor([1.0, 0.0]))
    across = torch.stack([-along[:, 1], along[:, 0]], 1)
    return torch.stack([along, across], -1)


def _edge_features(body: Tensor, turn: Tensor, edge_index: Tensor, edge_time: OptTensor) -> Tensor:
    """How j stands and moves as i sees it, from positions and velocities ``[N, T, 4]``: ``[E, 6]``, or without
    ``edge_time`` ``[E, T, 6]``."""
    source, destination = edge_index
    if edge_time is None:
        offset = body[source] - body[destination]
    else:
        edge_time = edge_time.long()  # a mask if it were uint8
        offset = (body[source, edge_time] - body[destination, edge_time])[:, None]
    turned = (offset.unflatten(-1, (2, 2)) @ turn[destination][:, None]).flatten(-2)
    distance = offset[..., :2].norm(dim=-1, keepdim=True)
    features = torch.cat([turned, (-distance).exp(), 1 / (distance + NEAR)], -1)
    return features if edge_time is None else features.squeeze(1)
