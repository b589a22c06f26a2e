"""States between calls: cut off from what came before, or kept by the ids of nodes that come and go.

Shape legend: N nodes of a call, M nodes that are remembered.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rstg_pyg.arguments import check_entries, check_positive, describe, num_dims
from rstg_pyg.recurrence.rstg import RSTG, SPACE, SPACE_TIME, State


def detach_state(state: State) -> State:
    """The same numbers without the graph behind them: what a long series is trained with piece by piece, in memory that
    does not grow.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTG
        >>> from rstg_pyg.recurrence import detach_state
        >>> rstg, state, edges = RSTG(8), None, torch.tensor([[0, 1], [1, 0]])
        >>> for piece in torch.randn(2, 30, 8).split(10, dim=1):
        ...     out, state = rstg(piece, edges, state=state)
        ...     out.square().mean().backward()
        ...     state = detach_state(state)
    """
    return _map(Tensor.detach, state)


class NodeMemory:
    r"""Hands out and takes back what an :class:`~rstg_pyg.RSTG` remembers of nodes, by their ids.

    A call of the recurrence takes the nodes that are there, in any number and order: read their state, run, write the
    new state. The numbers are those of a fixed set of nodes with a mask. (Not in homogeneous forms: there a node that
    has left is heard for one frame more, and here it is not in the call.) A node that was never seen, or that was
    forgotten, starts at zero. What is written is detached, so a series of any length trains in constant memory.

    Args:
        rstg: The recurrence whose states are kept.
        max_nodes: How many nodes are kept at most; those that were absent for longest are forgotten first, and of
            equals those with the lower ids. None for no bound.

    Shapes:
        - **ids:** ``[N]`` int64, each once.
        - **state:** as of :class:`~rstg_pyg.RSTG`, each tensor ``[N, *, ...]``.

    Raises:
        ValueError: If ids are of another type or shape, come twice, or are more than ``max_nodes``, or a state is not
            of so many nodes.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTG
        >>> from rstg_pyg.recurrence import NodeMemory
        >>> rstg = RSTG(8)
        >>> memory = NodeMemory(rstg, max_nodes=1000)
        >>> for ids in (torch.tensor([7, 3]), torch.tensor([3, 12, 9])):
        ...     edges = torch.tensor([[0], [1]])
        ...     out, state = rstg(torch.randn(len(ids), 1, 8), edges, state=memory.read(ids))
        ...     memory.write(ids, state)
        >>> memory.ids
        tensor([ 3,  7,  9, 12])
    """

    def __init__(self, rstg: RSTG, max_nodes: int | None = None) -> None:
        if not isinstance(rstg, RSTG):
            raise ValueError(f"expected 'rstg' to be an RSTG, got {describe(rstg)}")
        if max_nodes is not None:
            check_positive(max_nodes=max_nodes)
        self._has_past = [stage == SPACE_TIME for stage in rstg.stages if stage != SPACE]
        self.max_nodes = max_nodes
        self.reset()

    def reset(self) -> None:
        """Forget all nodes."""
        self.ids: Tensor = torch.empty(0, dtype=torch.int64)
        self._written = torch.empty(0, dtype=torch.int64)
        self._clock = 0
        self._state: State | None = None

    def __len__(self) -> int:
        return self.ids.size(0)

    def read(self, ids: Tensor) -> State | None:
        """The state of these nodes; None where none is remembered."""
        self._check_ids(ids)
        if len(self) == 0:
            return None
        place = torch.searchsorted(self.ids, ids).clamp(max=len(self) - 1)
        known = self.ids[place] == ids

        def rows(kept: Tensor) -> Tensor:
            found = kept.index_select(0, place)
            return torch.where(known.view(-1, *[1] * (found.dim() - 1)), found, torch.zeros_like(found))

        return _map(rows, self._state)

    @torch.no_grad()
    def write(self, ids: Tensor, state: State) -> None:
        """Keep the state of these nodes, in place of what was kept of them."""
        self._check_ids(ids)
        check_entries(state, len(self._has_past))
        if any(entry is None for entry in state):
            return  # nobody has been there yet
        if self.max_nodes is not None and ids.size(0) > self.max_nodes:
            raise ValueError(f"expected at most max_nodes={self.max_nodes} ids, got {ids.size(0)}")
        # The past of a space-time stage is that of the frame before: who was not in it is not heard.
        state = tuple(
            (entry, torch.ones(entry.shape[:-1], dtype=torch.bool, device=entry.device))
            if past and isinstance(entry, Tensor)
            else entry
            for past, entry in zip(self._has_past, state, strict=True)
        )
        for part in _leaves(state):
            if part.size(0) != ids.size(0):
                raise ValueError(f"expected a state of {ids.size(0)} nodes, as there are ids, got {describe(part)}")
            if part.device != ids.device:
                raise ValueError(f"expected a state on {ids.device}, as 'ids', got {part.device}")
        if self._state is not None:
            given, kept = ([part.shape[1:] for part in _leaves(one)] for one in (state, self._state))
            if given != kept:
                raise ValueError(
                    f"expected a state like those that are kept, {describe(self._state)}, got {describe(state)}"
                )
        self._clock += 1
        stays = torch.isin(self.ids, ids, invert=True).nonzero().squeeze(1)
        merged = torch.cat([self.ids[stays], ids])
        written = torch.cat([self._written[stays], torch.full_like(ids, self._clock)])
        order = merged.argsort()
        if self.max_nodes is not None and order.size(0) > self.max_nodes:
            kept = written[order].argsort(stable=True)[-self.max_nodes :].sort().values
            order = order[kept]
        old = self._state if self._state is not None else _map(lambda new: new[:0], state)

        def merge(past: bool, kept: Tensor, new: Tensor) -> Tensor:
            # Who was there in the frame before: of a stage with a past, not of one's own.
            kept = torch.zeros_like(kept[stays]) if past and kept.dtype == torch.bool else kept[stays]
            dtype = torch.promote_types(kept.dtype, new.dtype)
            return torch.cat([kept.to(dtype), new.to(dtype)])[order]

        entries = zip(self._has_past, old, detach_state(state), strict=True)
        self._state = tuple(_map(partial(merge, past), kept, new) for past, kept, new in entries)
        self.ids, self._written = merged[order], written[order]

    def state_dict(self) -> dict[str, Any]:
        """All that is kept, as tensors, for :func:`torch.save`."""
        return {"ids": self.ids, "written": self._written, "clock": torch.tensor(self._clock), "state": self._state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` gave."""
        missing = [name for name in ("ids", "written", "clock", "state") if name not in state_dict]
        if missing:
            raise ValueError(f"expected the state dict of a NodeMemory, got one without {', '.join(missing)}")
        if state_dict["state"] is not None:
            check_entries(state_dict["state"], len(self._has_past))
        self.ids, self._written, self._state = (state_dict[name] for name in ("ids", "written", "state"))
        self._clock = int(state_dict["clock"])
        if self.max_nodes is not None and len(self) > self.max_nodes:
            newest = self._written.argsort(stable=True)[-self.max_nodes :].sort().values
            self.ids, self._written = self.ids[newest], self._written[newest]
            self._state = _map(lambda kept: kept[newest], self._state)

    def _check_ids(self, ids: Any) -> None:
        if num_dims(ids) != 1 or ids.dtype != torch.int64:
            raise ValueError(f"expected 'ids' as int64 of shape [num_nodes], got {describe(ids, typed=True)}")
        values, counts = ids.unique(return_counts=True)
        if values.size(0) < ids.size(0):
            raise ValueError(f"expected each id once, got {values[counts > 1][0].item()} more than once")
        self.ids, self._written = self.ids.to(ids.device), self._written.to(ids.device)
        self._state = _map(lambda kept: kept.to(ids.device), self._state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} nodes, max_nodes={self.max_nodes})"


def _map(function: Callable[..., Tensor], *states: State) -> State:
    """Apply a function to the tensors of states of one form."""
    first = states[0]
    if first is None:  # of a module of one's own, where nobody has been there yet
        return None
    if isinstance(first, Tensor):
        return function(*states)
    return tuple(_map(function, *parts) for parts in zip(*states, strict=True))


def _leaves(state: State) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in _leaves(part)]
