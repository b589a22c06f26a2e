"""Predicting what moves by finding out who acts on whom: RSTG on nodes and on their pairs.

Shape legend: N nodes, E edges, P pairs (E / 2), T frames seen, M = T - 1 moves, H predicted frames, L laws.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.typing import OptTensor

from rstg_pyg.arguments import check_edges, check_flags, check_like, check_options, check_positive, describe, num_dims
from rstg_pyg.conv import RSTGConv
from rstg_pyg.ops import GraphIndex
from rstg_pyg.ops.index import check_ends
from rstg_pyg.recurrence import RSTG

TYPICAL = 0.25
"""A typical distance and a typical velocity, in data that are scaled to [-1, 1]."""

State = tuple[Tensor, tuple[Any, ...]]
"""The last frame ``[N, 4]``, and the state of :class:`~rstg_pyg.RSTG` in every pass, None before the first move."""


class Pairs(NamedTuple):
    """Every pair of nodes that edges join: ``first`` and ``second [P]``, the pair of an edge, ``of_edge [E]``, and the
    graph that joins pairs, numbered on from the nodes, to their nodes."""

    first: Tensor
    second: Tensor
    of_edge: Tensor
    graph: GraphIndex


class PairForecaster(Module):
    r"""Predict nodes that move, from a belief for every pair of them about the law by which one acts on the other.

    .. math::
        \mathbf{f}_{ij} &= \sum_l \beta_{ij,l} \left( a_l(g_{ij}) \mathbf{d}_{ij} + b_l(g_{ij})
            \mathbf{d}_{ij} / |\mathbf{d}_{ij}| \right), \qquad
            \Delta \mathbf{v}_i = \sum_j \mathbf{f}_{ij}, \qquad
            \Delta \mathbf{x}_i = \gamma (\mathbf{v}_i + \Delta \mathbf{v}_i / 2) + \delta

        \mathbf{r}_i &= \Delta \mathbf{v}_i^{seen} - \sum_j \mathbf{f}_{ij}, \qquad
            \beta^{1..T} = \mathrm{softmax}(\mathbf{W} \, \mathrm{RSTG}([\mathbf{r}, \beta, g]^{1..T}))

    The recurrence runs on the nodes and on the pairs, which are nodes of their own, joined to their two nodes: only a
    pair can remember whether it is joined. It runs in several passes with the same weights. A pass tells a pair what
    of the motion the other pairs' beliefs of the pass before leave for it to explain, :math:`\mathbf{r}_i +
    \mathbf{f}_{ij}` along the line between its nodes. Laws are small networks of the distance and the relative velocity
    :math:`g`, the same for all pairs; the first one is fixed: no force. Beliefs are an attention over laws that, unlike
    one over neighbours, can say "none". Nobody tells it who acts on whom: it learns to predict, with the belief of any
    frame, the moves of others, see :meth:`training_loss`.

    Predictions are fed back, with the beliefs of the last frame seen.

    Args:
        horizon: Number H of frames to predict.
        motion: How a frame follows from the one before, in the units of the data (as
            :attr:`~rstg_pyg.datasets.Particles.motion` gives them): by how much a velocity of 1 moves a place
            (:math:`\gamma`), by how much one of 0 does (:math:`\delta`), and a typical change of a velocity.
            It is kept with the weights.
        channels: Size of the recurrence's features.
        num_laws: Number of laws that are learned, beside "none".
        opposites: Have the opposite of every law too, after all of them, as for like and unlike charges.
        field: Learn what else acts on a node by its own place and velocity, such as walls.
        passes: Number of passes.
        rnn, stages, residual, share_space, attention, chrono: Of :class:`~rstg_pyg.RSTG`.
        **kwargs: Further arguments of :class:`~rstg_pyg.RSTG` and :class:`~rstg_pyg.RSTGConv`.

    Shapes:
        - **x:** ``[N, T, 4]``, places and velocities in the plane. **edge_index:** ``[2, E]``, both directions.
        - **forward:** ``[N, H, 4]``. **interactions:** ``[E, T, 1 + L]``.
        - **step:** ``frame [N, 4], state -> ([N, H, 4], state)``.

    Raises:
        ValueError: If an argument is out of its range, or an input does not fit.

    Source: this package's; laws that are shared by all pairs, of which each pair has one, are those of "Neural
    Relational Inference for Interacting Systems", ICML 2018, arXiv:1802.04687.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import PairForecaster
        >>> model = PairForecaster(20, motion=(0.035, 0.0, 0.01), num_laws=1)
        >>> edges = torch.tensor([[0, 1, 0, 2, 1, 2], [1, 0, 2, 0, 2, 1]])
        >>> x = torch.randn(3, 10, 4) / 4
        >>> model(x, edges).shape, model.interactions(x, edges).shape
        (torch.Size([3, 20, 4]), torch.Size([6, 10, 2]))
    """

    refused_options: ClassVar = {
        "num_stages": "'stages' says how many there are",
        "edge_dim": "edge features follow from 'x'",
        "pe_channels": "nodes have their places in 'x'",
    }

    def __init__(
        self,
        horizon: int,
        motion: Sequence[float] = (1.0, 0.0, 1.0),
        channels: int = 32,
        *,
        num_laws: int = 1,
        opposites: bool = False,
        field: bool = False,
        passes: int = 3,
        rnn: Any = "gru",
        stages: str | Sequence[str] = ("space", "time"),
        residual: bool = True,
        share_space: bool = False,
        attention: str = "mean",
        chrono: int | None = 40,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_options(self, kwargs, RSTG, RSTGConv)
        check_positive(horizon=horizon, channels=channels, num_laws=num_laws, passes=passes)
        check_flags(opposites=opposites, field=field)
        if len(motion) != 3 or not all(isinstance(value, (int, float)) for value in motion):
            raise ValueError(f"expected 'motion' to be three numbers, got {describe(motion)}")
        self.horizon, self.passes, self.opposites = horizon, passes, opposites
        self.num_laws = num_laws * (1 + opposites)
        if not motion[2] > 0:
            raise ValueError(f"expected a typical change of a velocity above 0 in 'motion', got {motion[2]}")
        self.register_buffer("motion", torch.tensor([float(value) for value in motion]))
        self.lin_node = Linear(4, channels)
        self.lin_pair = Linear(7 + self.num_laws, channels)
        self.rstg = RSTG(
            channels,
            num_stages=1,
            rnn=rnn,
            stages=stages,
            residual=residual,
            share_space=share_space,
            attention=attention,
            chrono=chrono,
            edge_dim=7,
            **kwargs,
        )
        self.lin_belief = Linear(channels, 1 + self.num_laws)
        self.laws = _mlp(channels, 2 * num_laws)
        self.field = _mlp(channels, 2) if field else None

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters."""
        networks = [*self.laws[::2], *([] if self.field is None else self.field[::2])]
        for layer in (self.lin_node, self.lin_pair, self.rstg, self.lin_belief, *networks):
            layer.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> Tensor:
        """Predict the frames after ``x``. What else a graph may have is refused."""
        given = {"edge_attr": edge_attr, "pe": pe, "edge_time": edge_time, "mask": mask}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"expected no {name!r}: pairs are all that this model looks at, got {describe(value)}")
        pairs = self._pairs(x, edge_index)
        return self._predict(x[:, -1], self._believe(x, pairs)[0][-1][:, -1], pairs)

    def step(self, frame: Tensor, state: State | None, edge_index: Tensor) -> tuple[Tensor, State]:
        """Take a stream's next frame ``[N, 4]`` and the state that the frame before it returned, None at the start;
        predict the frames after it."""
        if num_dims(frame) != 2:
            raise ValueError(f"expected a frame of shape [N, 4], got {describe(frame)}")
        pairs = self._pairs(frame[:, None], edge_index)
        x = frame[:, None] if state is None else torch.stack([state[0], frame], 1)
        beliefs, memory = self._believe(x, pairs, None if state is None else state[1])
        return self._predict(frame, beliefs[-1][:, -1], pairs), (frame.clone(), memory)

    def interactions(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """After each frame, say by which law the nodes of an edge act on each other: probabilities ``[E, T, 1 + L]``,
        "none" first, and all alike after the first frame, before anything has moved."""
        pairs = self._pairs(x, edge_index)
        beliefs = self._believe(x, pairs)[0][-1]
        if x.size(1) > 1:
            start = beliefs.new_full((beliefs.size(0), 1, 1 + self.num_laws), 1 / (1 + self.num_laws))
            beliefs = torch.cat([start, beliefs], 1)
        return beliefs[pairs.of_edge]

    def pulls(self, interactions: Tensor) -> Tensor:
        """The probability, by :meth:`interactions`, that nodes pull each other. A law pulls if it does so at a typical
        distance, more than half as much as the law that does so most. Without labels, this names the laws: a spring
        pulls and "none" does not, unlike charges do and like ones do not.

        Shapes:
            - **interactions:** ``[*, 1 + L]``. **output:** ``[*]``.
        """
        apart = torch.tensor([[0.0, 0.0], [TYPICAL, 0.0]], device=interactions.device, dtype=interactions.dtype)
        frame = torch.cat([apart, torch.zeros_like(apart)], 1)
        pull = F.pad(self._law_forces(frame[:1], frame[1:])[0, :, 0], (1, 0))
        return (interactions * (pull > pull.max() / 2)).sum(-1)

    def training_loss(self, batch: Data) -> Tensor:
        r"""The Huber loss of changes of velocity, in units of a typical one, over all frames of ``batch.x`` and
        ``batch.y``, by the beliefs of every pass.

        A belief has to explain the move after its frame, and moves at two lags that are drawn at random, a short and a
        long one, and that go round from the last move to the first. One that fits the last move alone would pass else.
        """
        if batch.get("y") is None:
            raise ValueError("expected 'y' in the batch, the frames to predict, of shape [N, H, 4], got none")
        targets = batch.get("y_mask")
        if batch.get("mask") is not None or (targets is not None and not targets.all()):
            raise ValueError("expected particles that are there in all frames to learn from, got a mask")
        x = torch.cat([batch.x, batch.y], 1)
        pairs = self._pairs(x, batch.edge_index)
        if x.size(1) < 6:
            raise ValueError(f"expected 6 frames or more to learn from, got {x.size(1)}")
        beliefs, _ = self._believe(x, pairs)
        forces = self._law_forces(x[pairs.first, :-1], x[pairs.second, :-1])
        change = x[..., 2:].diff(dim=1) - self._field_change(x[:, :-1])
        moves = change.size(1)
        middle = max(2, moves // 4)
        lags = [1, *(int(torch.randint(*ends, ())) for ends in ((1, middle), (middle, moves)))]
        error = [
            self._sum(_weighed(forces.roll(-lag, 1), belief), pairs, x.size(0)) - change.roll(-lag, 1)
            for lag in lags
            for belief in beliefs
        ]
        error = torch.cat(error, 1) / self.motion[2]
        return F.huber_loss(error, torch.zeros_like(error))

    def measure(self, batch: Data) -> dict[str, Tensor]:
        """Of every edge whether :meth:`pulls` says the truth after the last frame, as ``interactions``, where the batch
        knows it (``edge_label``)."""
        if batch.get("edge_label") is None:
            return {}
        said = self.pulls(self.interactions(batch.x, batch.edge_index)[:, -1]) > 0.5
        return {"interactions": (said == batch.edge_label.bool()).float()}

    def _pairs(self, x: Tensor, edge_index: Tensor) -> Pairs:
        if num_dims(x) != 3 or x.size(-1) != 4 or x.size(1) < 1:
            raise ValueError(f"expected places and velocities of shape [N, T, 4], got {describe(x)}")
        check_like("x", x, self)
        return find_pairs(edge_index, x.size(0))

    def _believe(
        self, x: Tensor, pairs: Pairs, memory: tuple[Any, ...] | None = None
    ) -> tuple[list[Tensor], tuple[Any, ...]]:
        """After each of the moves between frames ``[N, 1 + M, 4]``, the beliefs of every pass, ``[P, M, 1 + L]``, and
        what they remember. Without a move, nothing is known."""
        num_nodes, moves, memory = x.size(0), x.size(1) - 1, (None,) * self.passes if memory is None else memory
        logits = x.new_zeros(pairs.first.size(0), max(moves, 1), 1 + self.num_laws)
        if moves == 0:
            return [logits.softmax(-1)], memory
        change = (x[..., 2:].diff(dim=1) - self._field_change(x[:, :-1])) / self.motion[2]
        middle = (x[:, 1:, :2] + x[:, :-1, :2]) / 2
        apart, direction, distance = _apart(middle[pairs.first], middle[pairs.second])
        space = [distance / TYPICAL, (distance / TYPICAL).log()]
        forces = self._law_forces(x[pairs.first, :-1], x[pairs.second, :-1]) / self.motion[2]
        force, beliefs, states = torch.zeros_like(apart), [], []
        for number in range(self.passes):
            rest = change - self._sum(force, pairs, num_nodes)
            along = (force * direction).sum(-1, keepdim=True)
            left = [
                _squeezed(along + sign * (rest[end] * direction).sum(-1, keepdim=True))
                for sign, end in ((1, pairs.first), (-1, pairs.second))
            ]
            which = torch.full_like(distance, float(number))
            of_pair = [left[0] + left[1], (left[0] - left[1]).abs(), *space, _squeezed(along), which, logits]
            of_node = [_squeezed(rest), _squeezed(change)]
            v = torch.cat([self.lin_node(torch.cat(of_node, -1)), self.lin_pair(torch.cat(of_pair, -1))])
            from_ends = [
                torch.cat([sign * apart / TYPICAL, sign * direction, to_explain, *space], -1)
                for sign, to_explain in zip((1, -1), left, strict=True)
            ]
            h, state = self.rstg(v, pairs.graph, torch.cat(from_ends * 2), state=memory[number])
            logits = self.lin_belief(h[num_nodes:])
            beliefs.append(logits.softmax(-1))
            states.append(state)
            force = _weighed(forces, beliefs[-1])
        return beliefs, tuple(states)

    def _law_forces(self, first: Tensor, second: Tensor) -> Tensor:
        """By each law, the change of the first node's velocity in the move after frames ``[P, *, 4]``,
        ``[P, *, L, 2]``; the second's is the opposite."""
        velocity = second[..., 2:] - first[..., 2:]
        # Halfway through the move.
        ahead = self.motion[0] / 2 * velocity
        apart, direction, distance = _apart(first[..., :2], second[..., :2] + ahead)
        speed = torch.cat([(velocity * direction).sum(-1, keepdim=True), velocity.norm(dim=-1, keepdim=True)], -1)
        known = torch.cat([distance / TYPICAL, (distance / TYPICAL).log(), speed / TYPICAL], -1)
        weights = self.laws(known).unflatten(-1, (-1, 2))
        forces = weights[..., :1] * apart[..., None, :] / TYPICAL + weights[..., 1:] * direction[..., None, :]
        return self.motion[2] * (torch.cat([forces, -forces], -2) if self.opposites else forces)

    def _field_change(self, frame: Tensor) -> Tensor | float:
        """What the field alone changes of velocities in the move after frames ``[N, *, 4]``."""
        if self.field is None:
            return 0.0
        place, velocity = frame.split(2, -1)
        ahead = place + self.motion[0] * velocity + self.motion[1]
        return TYPICAL * self.field(torch.cat([ahead, velocity / TYPICAL], -1))

    def _sum(self, force: Tensor, pairs: Pairs, num_nodes: int) -> Tensor:
        total = force.new_zeros(num_nodes, *force.shape[1:])
        return total.index_add(0, pairs.first, force).index_add(0, pairs.second, -force)

    def _predict(self, frame: Tensor, belief: Tensor, pairs: Pairs) -> Tensor:
        advance, drift, _ = self.motion
        frames = []
        for _ in range(self.horizon):
            force = _weighed(self._law_forces(frame[pairs.first], frame[pairs.second]), belief)
            change = self._sum(force, pairs, frame.size(0)) + self._field_change(frame)
            place, velocity = frame.split(2, -1)
            place = place + advance * (velocity + change / 2) + drift
            frame = torch.cat([place, velocity + change], -1)
            frames.append(frame)
        return torch.stack(frames, 1)


def _mlp(channels: int, out_channels: int) -> Sequential:
    hidden = Linear(4, channels), ReLU(), Linear(channels, channels), ReLU()
    return Sequential(*hidden, Linear(channels, out_channels))


def find_pairs(edge_index: Tensor, num_nodes: int) -> Pairs:
    """Number the pairs of nodes that edges join.

    Raises:
        ValueError: Unless every edge is there once in each direction, and none joins a node to itself.
        IndexError: If an edge points outside the nodes.

    Example:
        >>> pairs = find_pairs(torch.tensor([[0, 2, 1, 0], [2, 0, 0, 1]]), 3)
        >>> pairs.first.tolist(), pairs.second.tolist(), pairs.of_edge.tolist()
        ([0, 0], [1, 2], [1, 1, 0, 0])
    """
    check_edges(edge_index)
    source, destination = edge_index = edge_index.long()
    check_ends(source, destination, num_nodes)
    code = torch.minimum(source, destination) * num_nodes + torch.maximum(source, destination)
    codes, of_edge = code.unique(return_inverse=True)
    first, second = codes // num_nodes, codes % num_nodes
    forth = torch.bincount(of_edge[source < destination], minlength=codes.numel())
    back = torch.bincount(of_edge[source > destination], minlength=codes.numel())
    wrong = (forth != 1) | (back != 1)
    if wrong.any():
        pair = int(wrong.nonzero()[0])
        raise ValueError(
            "expected every edge once in each direction and none from a node to itself, got others between "
            f"{int(first[pair])} and {int(second[pair])}"
        )
    number = torch.arange(codes.numel(), device=edge_index.device) + num_nodes
    ends = torch.stack([torch.cat([first, second, number, number]), torch.cat([number, number, first, second])])
    return Pairs(first, second, of_edge, GraphIndex(ends, num_nodes + codes.numel()))


def _apart(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Difference, direction and distance ``[*, 1]``."""
    apart = second - first
    distance = apart.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    return apart, apart / distance, distance


def _weighed(forces: Tensor, belief: Tensor) -> Tensor:
    """The force of ``[*, L, 2]`` and beliefs ``[*, 1 + L]``, of which the first is in no force."""
    return (forces * belief[..., 1:, None]).sum(-2)


def _squeezed(value: Tensor) -> Tensor:
    """Nearly linear near 0, logarithmic far away, where charges meet."""
    return value.sign() * value.abs().log1p()
