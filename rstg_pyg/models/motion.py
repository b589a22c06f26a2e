"""Forecasts of where people or other bodies go, each seen from its own place and heading.

Shape legend: N nodes, T frames seen, H frames foretold, E edges.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torch_geometric.typing import Adj, OptTensor

from rstg_pyg.arguments import check_positive, describe, num_dims
from rstg_pyg.models.forecaster import foretold, last_there
from rstg_pyg.ops.frames import check_mask

PAST = 7
"""Frames before the present one that a node brings along."""
STANDS = 0.02
"""Metres a frame: who moves less has no heading."""
NEAR = 0.3
"""Metres: where the inverse of a distance stops to grow fast."""


class MotionForecaster(Module):
    r"""Let a forecaster of any kind foretell positions in the plane, so that it need not learn that the world has no
    centre and no north.

    .. math::
        \hat{\mathbf{p}}_i^{t+k} = \mathbf{p}_i^t + k \, \mathbf{v}_i^t + {\mathbf{R}_i^t}^\top f(\ldots)_{i,k}, \qquad
        \mathbf{v}_i^t = \mathbf{p}_i^t - \mathbf{p}_i^{t-1}

    where :math:`\mathbf{R}_i^t` turns the heading of i in frame t to the first axis: that of its velocity, or where it
    stands that of its way, or where it has just come that of those whom it hears; else it is 0. So f gets in every frame

    - of a node its way up to there, :math:`\mathbf{R}_i^t (\mathbf{p}_i^{t-k} - \mathbf{p}_i^t)` for k = 1, ..., 7, and
      of each whether it was there then, else 0;
    - of an edge j -> i :math:`[\mathbf{R}_i^t (\mathbf{p}_j^t - \mathbf{p}_i^t) \,|\, \mathbf{R}_i^t (\mathbf{v}_j^t -
      \mathbf{v}_i^t) \,|\, e^{-d} \,|\, (d + 0.3)^{-1}]` with their distance d.

    Where f gives 0, everybody goes on as in the last two frames. Where the whole scene is moved or turned, the forecast
    is, too.

    Args:
        forecaster: f, with the call of :class:`~rstg_pyg.models.Forecaster`: from ``[N, T, 21]`` and edges with 6
            features to ``[N, H, 2]``.
        horizon: Number H of frames to foretell.

    Shapes:
        - **x:** ``[N, T, 2]``, positions. **edge_index, edge_time, mask:** as of :class:`~rstg_pyg.RSTG`.
        - **output:** ``[N, H, 2]``, positions, or with ``num_last`` of F ``[N, F, H, 2]``; 0 of nodes that were not
          there before.

    Raises:
        ValueError: If an input does not fit.

    Source: this package's.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import Forecaster, MotionForecaster
        >>> model = MotionForecaster(Forecaster(21, 12, 16, out_channels=2, edge_dim=6, from_last=False), horizon=12)
        >>> model(torch.randn(3, 8, 2), torch.tensor([[0, 1, 2], [1, 2, 0]])).shape
        torch.Size([3, 12, 2])
    """

    in_channels, out_channels, edge_dim = 3 * PAST, 2, 6
    """Of the forecaster within."""

    def __init__(self, forecaster: Module, horizon: int) -> None:
        super().__init__()
        check_positive(horizon=horizon)
        self.forecaster = forecaster
        self.horizon = horizon

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters."""
        self.forecaster.reset_parameters()

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
        """Foretell the positions after ``x``, or with ``num_last`` those after each of the last so many frames. Edge
        features are made from positions: ``edge_attr`` is not used."""
        if num_dims(x) != 3 or x.size(-1) != 2:
            raise ValueError(f"expected 'x' of shape [N, T, 2], got {describe(x)}")
        if num_dims(edge_index) != 2:
            raise ValueError(f"expected 'edge_index' of shape [2, E], got {describe(edge_index)}")
        there = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else check_mask(mask, x.shape[:-1])
        x = torch.where(there[..., None], x, 0)
        way, known = _way(x, there)
        velocity = -way[:, :, 0]
        source, destination = ((end,) if edge_time is None else (end, edge_time) for end in edge_index)
        around = torch.zeros_like(velocity).index_put(destination, velocity[source], accumulate=True)
        turn = _turn(velocity, -way.sum(2), around)
        nodes = torch.cat([(way @ turn).flatten(-2), known.to(x.dtype)], -1)
        body = torch.cat([x, velocity], -1)
        edges = _edge_features(body[source] - body[destination], turn[destination])
        last = {} if num_last is None else {"num_last": num_last}
        change = self.forecaster(nodes, edge_index, edges, pe, edge_time=edge_time, mask=mask, **last)
        place, speed, turn = (last_there(value.flatten(2), there, num_last) for value in (x, velocity, turn))
        out = _go_on(place, speed, self.horizon) + change @ turn.unflatten(-1, (2, 2)).mT
        return foretold(out, there, num_last)


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
    there = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else check_mask(mask, x.shape[:-1])
    x = torch.where(there[..., None], x, 0)
    velocity = -_way(x, there)[0][:, :, 0]
    return _go_on(last_there(x, there), last_there(velocity, there), horizon)


def _way(x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Where every node was in the frames before each, the latest first, as seen from where it is, ``[N, T, 7, 2]``, and
    whether it was there, ``[N, T, 7]``; 0 where it was not."""
    before = F.pad(x, (0, 0, PAST, 0)).unfold(1, PAST + 1, 1)[..., :-1].flip(-1).mT
    known = F.pad(there, (PAST, 0)).unfold(1, PAST + 1, 1)[..., :-1].flip(-1) & there[..., None]
    return torch.where(known[..., None], before - x[:, :, None], 0), known


def _go_on(place: Tensor, speed: Tensor, horizon: int) -> Tensor:
    ahead = torch.arange(1, horizon + 1, dtype=place.dtype, device=place.device)[:, None]
    return place[..., None, :] + ahead * speed[..., None, :]


def _turn(*headings: Tensor) -> Tensor:
    """What turns row vectors of every node in every frame so that the first of its headings ``[N, T, 2]`` that is long
    enough becomes (1, 0), ``[N, T, 2, 2]``; 0 where none is."""
    along = torch.zeros_like(headings[0])
    for heading in headings:
        length = heading.norm(dim=-1, keepdim=True)
        new = ~along.any(-1, keepdim=True) & (length > STANDS)
        along = torch.where(new, heading / length.clamp(min=STANDS), along)
    return torch.stack([along, torch.stack([-along[..., 1], along[..., 0]], -1)], -1)


def _edge_features(offset: Tensor, turn: Tensor) -> Tensor:
    """How j stands and moves as i sees it, ``[E, *, 6]``, from the differences of their positions and velocities
    ``[E, *, 4]`` and from what turns those of i."""
    turned = (offset.unflatten(-1, (2, 2)) @ turn).flatten(-2)
    distance = offset[..., :2].norm(dim=-1, keepdim=True)
    return torch.cat([turned, (-distance).exp(), 1 / (distance + NEAR)], -1)
