"""The recurrent space-time graph: time and space stages in alternation.

Shape legend: N nodes, T frames, C channels, K space stages, ``*`` inner dimensions between nodes and time (a batch of
clips on one graph), usually none.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor
from torch.nn import Module, ModuleList
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import is_sparse

from rstg_pyg.arguments import check_device, check_entries, check_flags, check_options, check_positive, num_dims
from rstg_pyg.conv import RSTGConv
from rstg_pyg.conv.inputs import changing_graph, check_index
from rstg_pyg.formula import Formula
from rstg_pyg.norm import Norm
from rstg_pyg.ops.frames import FrameIndex, with_inner_dims
from rstg_pyg.ops.index import GraphIndex, check_ends
from rstg_pyg.ops.stages import pays_in_one_call, run_stages
from rstg_pyg.recurrence.space_time_stage import WithPast, space_time_stage
from rstg_pyg.recurrence.time_stage import RNN, RNNState, TimeStage, check_sequence, one_or_all
from rstg_pyg.regions.graph import spacetime_edge_index
from rstg_pyg.watched import everything_is_watched, is_bare

TIME, SPACE, SPACE_TIME = "time", "space", "space-time"

FORMS = ("all-temp", "1-temp", "space-only", "time-only", "homogeneous")
"""Named forms, after the rows of the paper's ablation."""

State = tuple[RNNState, ...]
"""One entry per stage with a memory, in their order: ``h`` or ``(h, c)`` of a time stage, the last input of a
space-time stage; each ``[N, *, C]``. Of a graph that changes, the entry of a space-time stage is a tuple of the last
input, who was there, ``[N, *]`` bool, and where nodes move their last encodings ``[N, *, P]``."""


class RSTG(Formula):
    r"""The recurrent space-time graph of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu,
    NeurIPS 2019, `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_) over sequences on a graph.

    .. math::
        \mathbf{h}_i^{t,k} &= f_{time}(\mathbf{v}_i^{t,k}, \mathbf{h}_i^{t-1,k})

        \mathbf{v}_i^{t,k+1} &= f_{space}(\mathbf{h}_i^{t,k}, \{\mathbf{h}_j^{t,k}\}_{j \in \mathcal{N}(i)}),
            \qquad k = 0, \ldots, K - 1

        \mathbf{h}_i^{t,K} &= f_{last}(\mathbf{v}_i^{t,K}, \mathbf{h}_i^{t-1,K})

    Stage k at time t needs stage k at t-1 and stage k-1 at t and nothing else, so a clip costs K + 1 recurrent calls
    and K propagations whatever T is, and running frame by frame from the returned state gives the same numbers
    (not so with a ``norm`` that takes training-mode statistics over the clip or the batch).

    Graphs may change: with ``edge_time`` every edge belongs to one frame, and where ``mask`` is False a node is absent.
    It sends and receives nothing then, its output is 0, its memory stays what it was, and its input does not matter.
    (The homogeneous form has no memory but the frame before: after an absence it starts anew.) A clip that is shorter
    than others of its batch is a mask that ends in False.

    The K time stages share their weights and so do the K space stages, unless told otherwise; the last time stage has
    its own.

    Args:
        channels: Size C of the node features, in and out.
        num_stages: Number K of space stages.
        rnn: ``"lstm"``, ``"gru"``, ``"linear"``, or a function from C to a module of one's own, see
            :class:`~rstg_pyg.TimeStage`.
        stages: The form: ``"all-temp"`` (as above), ``"1-temp"`` (K space stages, then one time stage),
            ``"space-only"``, ``"time-only"`` (K + 1 time stages), ``"homogeneous"`` (K stages of message passing on the
            space-time graph, see :func:`~rstg_pyg.spacetime_graph`), or a sequence of ``"time"``, ``"space"`` and
            ``"space-time"``.
        share_time: Whether the time stages before the last share their weights.
        share_space: Whether the space stages share their weights.
        norm: Normalisation of every stage's input, see :class:`~rstg_pyg.RSTGConv`.
        residual: Whether every stage adds its input to its output.
        chrono: Start the time stages with memories of up to so many frames, see :class:`~rstg_pyg.TimeStage`.
        **kwargs: Arguments of :class:`~rstg_pyg.RSTGConv` such as ``pe_channels``, ``heads`` or ``attention``.

    Shapes:
        - **x:** ``[N, T, C]``, or ``[N, *, T, C]`` for clips that share one graph.
        - **edge_index:** ``[2, E]`` or any sparse adjacency matrix that :class:`~rstg_pyg.RSTGConv` takes; it serves
          every frame, but with ``edge_time [E]``. **pe:** ``[N, P]``, or ``[N, T, P]`` of nodes that move.
        - **mask:** ``[N, *, T]`` bool, where nodes are there. **edge_attr:** ``[E, D]``, or without ``edge_time`` also
          ``[E, T, D]``.
        - **state:** None (zero) or a tuple of K + 1 entries as returned, one per stage with a memory.
        - **output:** ``(out [N, *, T, C], state)``; with ``return_attention_weights``, a list with one
          ``(edge_index, alpha [E, *, T, heads])`` per space stage comes third (without T where an edge has one frame).

    Raises:
        ValueError: If an argument is out of its range, or an input's or a state's shape does not fit.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTG, region_graph
        >>> graph = region_graph((3, 2, 1))
        >>> rstg = RSTG(32, num_stages=3, pe_channels=36)
        >>> clip = torch.randn(14, 10, 32)
        >>> out, state = rstg(clip, graph.edge_index, pe=graph.heatmap)
        >>> out.shape, len(state)
        (torch.Size([14, 10, 32]), 4)
        >>> more, state = rstg(torch.randn(14, 1, 32), graph.edge_index, pe=graph.heatmap, state=state)
    """

    refused_options: ClassVar = {"num_layers": "'num_stages' is the number of space stages"}

    def __init__(
        self,
        channels: int,
        *,
        num_stages: int = 3,
        rnn: RNN = "lstm",
        stages: str | Sequence[str] = "all-temp",
        share_time: bool = True,
        share_space: bool = True,
        norm: Norm = None,
        residual: bool = False,
        chrono: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_options(self, kwargs, RSTGConv)
        check_positive(channels=channels, num_stages=num_stages)
        check_flags(share_time=share_time, share_space=share_space, residual=residual)
        self.channels, self.num_stages = channels, num_stages
        self.stages = stage_sequence(stages, num_stages)
        self.formula = {"stages": self.stages}
        if SPACE_TIME in self.stages and kwargs.get("edge_dim") is not None:
            raise ValueError(
                "expected no 'edge_dim' with space-time stages, whose edges between frames have no features, got "
                f"{kwargs['edge_dim']!r}"
            )

        def time_stage() -> TimeStage:
            bias = kwargs.get("bias", True)
            return TimeStage(channels, rnn, norm=norm, residual=residual, bias=bias, chrono=chrono)

        def space_stage() -> RSTGConv:
            return RSTGConv(channels, channels, norm=norm, residual=residual, **kwargs)

        last = len(self.stages) - 1 if self.stages[-1] == TIME else None
        time = [i for i, stage in enumerate(self.stages) if stage == TIME and i != last]
        space = [i for i, stage in enumerate(self.stages) if stage != TIME]
        self.time_stages = ModuleList(time_stage() for _ in (time[:1] if share_time else time))
        self.space_stages = ModuleList(space_stage() for _ in (space[:1] if share_space else space))
        self.last_time_stage = time_stage() if last is not None else None

    def _stage_modules(self) -> list[tuple[str, Module]]:
        """Every stage of the sequence with the module that runs it."""
        time, space, last = cycle(self.time_stages), cycle(self.space_stages), self.last_time_stage
        before = self.stages if last is None else self.stages[:-1]
        modules = [(stage, next(time if stage == TIME else space)) for stage in before]
        return modules if last is None else [*modules, (TIME, last)]

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters."""
        for stage in [*self.time_stages, *self.space_stages]:
            stage.reset_parameters()
        if self.last_time_stage is not None:
            self.last_time_stage.reset_parameters()

    @property
    def num_states(self) -> int:
        """Number of entries of the state: stages with a memory."""
        return len(self.stages) - self.stages.count(SPACE)

    @overload
    def forward(
        self,
        x: Tensor,
        edge_index: Adj | GraphIndex,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        state: State | None = None,
        return_attention_weights: Literal[False] | None = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> tuple[Tensor, State]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        edge_index: Adj | GraphIndex,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        state: State | None = None,
        *,
        return_attention_weights: Literal[True],
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> tuple[Tensor, State, list[Any]]: ...

    def forward(
        self,
        x: Tensor,
        edge_index: Adj | GraphIndex,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        state: State | None = None,
        return_attention_weights: bool | None = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> Any:
        r"""Run a clip, or the next frames of a stream.

        Args:
            x: Node sequence ``[N, *, T, C]``.
            edge_index: Edges of one frame, or with ``edge_time`` of all, see :class:`~rstg_pyg.RSTGConv`; sorted once
                for all stages.
            edge_attr: Edge features ``[E, edge_dim]``; of edges that serve every frame also ``[E, T, edge_dim]``.
            pe: Positional encodings ``[N, P]``, or ``[N, T, P]`` of nodes that move.
            state: What an earlier call returned, or None at the start of a stream.
            return_attention_weights: If true, also return the attention of every space stage.
            edge_time: The frame of every edge ``[E]``, 0 to T - 1 within this call.
            mask: Where a node is there, ``[N, *, T]`` bool.
        """
        check_sequence(x, self.channels)
        if state is not None:
            check_entries(state, self.num_states)
        memory = list(state) if state is not None else [None] * self.num_states
        weighs, changes = bool(return_attention_weights), edge_time is not None or mask is not None
        if not changes and (found := self._one_frame(x, edge_index, edge_attr, pe, memory, weighs)) is not None:
            return found
        frames = self._frames(x, edge_index, edge_attr, pe, memory, edge_time, mask)
        unrolled, of_frames, given = None, (), (edge_attr, pe)
        if frames is None:
            edges = self._index(edge_index, x.size(0))
            if x.dim() > 3:
                edge_attr, pe = (value if value is None else with_inner_dims(value, x.dim()) for value in given)
        else:
            x, of_frames = frames.take(x), (frames,)
            if SPACE in self.stages:
                edges = self._index(frames.index, frames.num_rows)
                if edge_attr is None and getattr(self.space_stages[0], "edge_dim", None) is not None:
                    edge_attr = frames.graph.values
                edge_attr, pe = frames.take_edge_attr(edge_attr), frames.take_pe(pe)
        new_state: list[Any] = []
        attention: list[Any] = []
        for stage, module in self._stage_modules():
            if stage == TIME:
                x, entry = module(x, memory[len(new_state)], *of_frames)
                new_state.append(entry)
                continue
            if stage == SPACE:
                out = module(x, edges, edge_attr, pe, return_attention_weights)
            elif frames is not None:
                unrolled = unrolled or WithPast(frames, self.channels, given[1], memory[len(new_state)], self._index)
                out, entry = unrolled.run(module, x, memory[len(new_state)], return_attention_weights)
                new_state.append(entry)
            else:
                past = memory[len(new_state)]
                new_state.append(x[..., -1, :].clone())
                if unrolled is None:
                    graph = self._graph(x, edges, edge_attr, pe)
                    unrolled = self._unrolled(graph, x.size(-2) + (past is not None))
                out = space_time_stage(module, x, unrolled, pe, past, return_attention_weights)
            if return_attention_weights:
                x, weights = out
                attention.append(weights if frames is None or stage != SPACE else frames.put_attention(weights))
            else:
                x = out
        x = x if frames is None else frames.put(x)
        if return_attention_weights:
            return x, tuple(new_state), attention
        return x, tuple(new_state)

    def _one_frame(
        self, x: Tensor, edge_index: Any, edge_attr: OptTensor, pe: OptTensor, memory: list[Any], weighs: bool
    ) -> tuple[Any, ...] | None:
        """The next frame of a stream through all stages in one call; None where that cannot be, or does not pay."""
        is_other = x.size(-2) != 1 or edge_attr is not None or num_dims(pe) > 2 or SPACE_TIME in self.stages
        if is_other or not pays_in_one_call(x, self.channels) or everything_is_watched():
            return None
        modules, index, known = self._stage_modules(), None, {}
        for stage, module in dict.fromkeys(modules):
            if not is_bare(module, TimeStage if stage == TIME else RSTGConv):
                return None
            if stage == SPACE:
                index = module._index(x, edge_index if index is None else index, None, pe)
            known[module] = module.as_stage(x) if stage == TIME else module.as_stage(x, index, pe)
            if known[module] is None:
                return None
        shape, rows, states, pe = x.shape[:-2], x.flatten(1, -2), [], None if index is None else pe
        for module, entry in zip([module for stage, module in modules if stage == TIME], memory, strict=True):
            parts = () if entry is None else module._parts(entry, shape, x.device)
            states.append([part.to(x.dtype).reshape(rows.shape) for part in parts])
        out, after, alphas = run_stages(rows, [known[module] for _, module in modules], index, pe, states, weighs)
        of_state = *shape, self.channels
        found = out.view(x.shape), tuple([one_or_all([part.view(of_state) for part in one]) for one in after])
        return (*found, [index.with_attention(a.unflatten(1, x.shape[1:-1])) for a in alphas]) if weighs else found

    def _frames(
        self,
        x: Tensor,
        edge_index: Adj | GraphIndex,
        edge_attr: OptTensor,
        pe: OptTensor,
        memory: list[Any],
        edge_time: OptTensor,
        mask: OptTensor,
    ) -> FrameIndex | None:
        """What changes from frame to frame; None where nothing does."""
        moves = SPACE_TIME in self.stages and (num_dims(pe) > 2 or any(isinstance(entry, tuple) for entry in memory))
        if edge_time is None and mask is None and not moves:
            return None
        check_device(x, mask=mask)
        graph = None
        if len(self.space_stages) > 0:
            graph = self._graph(x, edge_index, edge_attr, pe, edge_time)
        frames = FrameIndex(x.shape[:-1], graph, None if graph is None else edge_time, mask)
        return None if frames.is_static and not moves else frames

    def _index(self, edge_index: Adj | GraphIndex, num_nodes: int) -> Adj | GraphIndex:
        """One index for all stages, unless one of them is a layer of somebody else."""
        if not all(isinstance(stage, RSTGConv) for stage in self.space_stages):
            return edge_index.adjacency if isinstance(edge_index, GraphIndex) else edge_index
        if isinstance(edge_index, GraphIndex) or len(self.space_stages) == 0:
            return edge_index
        return GraphIndex(edge_index, num_nodes, self._flow)

    @property
    def _flow(self) -> str:
        return next((getattr(stage, "flow", None) for stage in self.space_stages), None) or "source_to_target"

    def _graph(
        self, x: Tensor, edge_index: Adj | GraphIndex, edge_attr: OptTensor, pe: OptTensor, edge_time: OptTensor = None
    ) -> GraphIndex:
        """The edges as given, once the inputs are checked."""
        conv = self.space_stages[0]
        if isinstance(conv, RSTGConv):
            graph = changing_graph(conv, x, edge_index, edge_attr, pe, edge_time)
        else:
            is_index = isinstance(edge_index, GraphIndex)
            graph = edge_index if is_index else GraphIndex(edge_index, x.size(0), self._flow)
            check_index(graph, x, self._flow)
        if SPACE_TIME in self.stages and (edge_attr is not None or is_sparse(graph.adjacency)):
            raise ValueError(
                "expected a homogeneous stage to get edges as a tensor [2, num_edges] and no 'edge_attr': the edges "
                "between frames are made from them"
            )
        return graph

    def _unrolled(self, graph: GraphIndex, num_frames: int) -> Adj | GraphIndex:
        check_ends(graph.source, graph.destination, graph.num_nodes)
        ends = torch.stack([graph.source, graph.destination])
        ends = spacetime_edge_index(ends, graph.num_nodes, num_frames)
        # Edges from the past lead into the present, whichever end comes first.
        ends = ends if graph.flow == "source_to_target" else ends.flip(0)
        return self._index(ends, graph.num_nodes * num_frames)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, num_stages={self.num_stages}, stages={self.stages})"


def stage_sequence(stages: str | Sequence[str], num_stages: int) -> tuple[str, ...]:
    """Return the sequence of stages that a form with K = ``num_stages`` runs.

    - ``"all-temp"``: time and space stages alternate K times, then one last time stage.
    - ``"1-temp"``: K space stages, then one time stage.
    - ``"space-only"``: K space stages.
    - ``"time-only"``: K + 1 time stages.
    - ``"homogeneous"``: K stages of message passing on the space-time graph.

    A sequence of ``"time"``, ``"space"`` and ``"space-time"`` is returned as it is.

    Raises:
        ValueError: If the form or a stage is unknown, or there is no stage.
    """
    if isinstance(stages, str):
        if stages not in FORMS:
            raise ValueError(
                f"expected 'stages' to be one of {', '.join(map(repr, FORMS))} or a sequence of stages, got {stages!r}"
            )
        stages = {
            "all-temp": (TIME, SPACE) * num_stages + (TIME,),
            "1-temp": (SPACE,) * num_stages + (TIME,),
            "space-only": (SPACE,) * num_stages,
            "time-only": (TIME,) * (num_stages + 1),
            "homogeneous": (SPACE_TIME,) * num_stages,
        }[stages]
    if (
        not isinstance(stages, Sequence)
        or len(stages) == 0
        or not all(isinstance(stage, str) and stage in (TIME, SPACE, SPACE_TIME) for stage in stages)
    ):
        raise ValueError(
            f"expected 'stages' to hold one or more of {TIME!r}, {SPACE!r} and {SPACE_TIME!r}, got {stages!r}"
        )
    return tuple(stages)
