"""Graphs that change, from a list of snapshots or a signal, and back to snapshots.

Shape legend: n, e nodes and edges of a snapshot; N, E of all; T snapshots; C channels.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from rstg_pyg.arguments import check_flags, describe, num_dims
from rstg_pyg.temporal.series import EDGE, GRAPH, NODE, Series, check_edge_index, subgraph


def from_snapshots(snapshots: Iterable[Data], ids: str = "node_id", static_edges: bool = False) -> Data:
    r"""Put snapshots of a graph, one for every frame, into one graph that changes.

    Where snapshots have ids, the set of nodes may change: the result has every node of any snapshot, in the order of
    their ids, and a mask. Without, all snapshots have the same nodes in the same order.

    An attribute belongs to nodes where every snapshot has as many rows of it as nodes, or to edges likewise (where both
    fit: to edges if "edge" is in the name), else to the snapshot.

    Args:
        snapshots: One :class:`~torch_geometric.data.Data` for every frame, with the same attributes.
        ids: Name of the attribute with the ids of a snapshot's nodes: any int64, in any order, each once.
        static_edges: Whether the edges are the same in all snapshots, so that one set of them serves every frame. It
            needs snapshots without ids.

    Shapes:
        - **snapshot.x:** ``[n, C]``. **snapshot.edge_index:** ``[2, e]``, or nothing. **snapshot.node_id:** ``[n]``.
        - **x:** ``[N, T, C]``, and every other node attribute ``[N, T, ...]``: 0 where the node is absent.
        - **node_id:** ``[N]``; **mask:** ``[N, T]`` bool, True where the node is there. Both with ids alone.
        - **edge_index:** ``[2, E]``, **edge_time:** ``[E]``, sorted; every other edge attribute ``[E, ...]``. With
          ``static_edges``: no ``edge_time``, and ``[E, T, ...]`` of attributes that differ from frame to frame
          (``[E, T, 1]``, where snapshots have ``[e]``).
        - **edge_attr:** ``[E, D]``, where snapshots have ``[e]`` with D = 1.
        - Attributes of a snapshot, such as ``y [1, ...]``: ``[1, T, ...]``.

    Raises:
        ValueError: If a snapshot is not as above, an id comes twice in one, or they do not fit together.

    Example:
        >>> first = Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0], [1]]), node_id=torch.tensor([7, 4]))
        >>> second = Data(x=torch.ones(1, 3), edge_index=torch.empty(2, 0).long(), node_id=torch.tensor([9]))
        >>> data = from_snapshots([first, second])
        >>> data
        Data(edge_index=[2, 1], edge_time=[1], node_id=[3], mask=[3, 2], x=[3, 2, 3])
        >>> data.node_id.tolist(), data.mask.tolist(), data.edge_index.tolist()
        ([4, 7, 9], [[True, False], [True, False], [False, True]], [[1], [0]])
    """
    check_flags(static_edges=static_edges)
    snapshots = list(snapshots)
    names = _check_snapshots(snapshots, ids)
    device = snapshots[0].x.device
    has_ids = ids in names
    sizes = torch.tensor([snapshot.x.size(0) for snapshot in snapshots], device=device)
    edges = [_edges(snapshot) for snapshot in snapshots]
    counts = torch.tensor([edge_index.size(1) for edge_index in edges], device=device)
    frames = torch.arange(len(snapshots), device=device)
    frame = frames.repeat_interleave(sizes)
    if has_ids:
        node_id, number = _number(snapshots, ids, frame)
    else:
        if (sizes != sizes[0]).any():
            raise ValueError(
                f"expected snapshots of as many nodes, or with ids in {ids!r}, got {sizes.unique().tolist()} nodes"
            )
        node_id = torch.arange(int(sizes[0]), device=device)
        number = node_id.repeat(len(snapshots))
    shape, out = (node_id.size(0), len(snapshots)), Data()
    place = number * shape[1] + frame
    if static_edges:
        if has_ids or not all(torch.equal(edges[0], others) for others in edges):
            got = "ids" if has_ids else "edges that differ"
            raise ValueError(
                f"expected snapshots with the same edges and without ids with static_edges=True, got {got}"
            )
        out.edge_index = edges[0]
    else:
        out.edge_index = number[torch.cat(edges, 1) + (sizes.cumsum(0) - sizes).repeat_interleave(counts)]
        out.edge_time = frames.repeat_interleave(counts)
    if has_ids:
        out.node_id = node_id
        out.mask = _put(torch.ones_like(place, dtype=torch.bool), place, shape)
    for name in [name for name in names if name not in (ids, "edge_index")]:
        values = [snapshot[name] for snapshot in snapshots]
        rows = _rows(name, values, sizes.tolist(), counts.tolist())
        if name == "edge_attr":
            values = [value.unsqueeze(-1) if value.dim() == 1 else value for value in values]
        if len({value.shape[1 if rows != GRAPH else 0 :] for value in values}) > 1:
            raise ValueError(f"expected {name!r} alike in all snapshots, got {describe(tuple(values))}")
        if rows == NODE:
            out[name] = _put(torch.cat(values), place, shape)
        elif rows == GRAPH:
            out[name] = torch.stack([value.unsqueeze(0) if value.dim() == 0 else value for value in values], 1)
        elif not static_edges:
            out[name] = torch.cat(values)
        else:
            same = all(torch.equal(values[0], value) for value in values)
            varying = [value.unsqueeze(-1) if value.dim() == 1 else value for value in values]
            out[name] = values[0] if same else torch.stack(varying, 1)
    return out


def to_snapshots(data: Data) -> list[Data]:
    r"""Cut a graph that changes into one snapshot for every frame, the way back from :func:`from_snapshots`.

    Args:
        data: See :class:`~rstg_pyg.temporal.Series`.

    Shapes:
        - **snapshot.x:** ``[n, C]`` of the nodes that are there, in their order; likewise all that has frames.
        - **snapshot.edge_index:** ``[2, e]``, the edges of the frame between them.
        - **snapshot.node_id:** ``[n]``, of ``data.node_id``, or with a ``mask`` alone the numbers of the nodes.

    Raises:
        ValueError: If ``data`` is not a graph that changes.

    Example:
        >>> data = Data(x=torch.ones(3, 2, 4), mask=torch.tensor([[True, True], [True, False], [False, True]]))
        >>> to_snapshots(data)
        [Data(x=[2, 4], node_id=[2]), Data(x=[2, 4], node_id=[2])]
    """
    series = Series(data).sorted()
    numbers = torch.arange(series.num_nodes, device=data.x.device)
    snapshots = []
    for t in range(series.num_frames):
        frame, rows = series.frames(t, t + 1), series.rows
        if "mask" in data:
            if "node_id" not in data:
                frame.node_id, rows = numbers, {**rows, "node_id": NODE}
            frame = subgraph(frame, rows, frame.pop("mask")[:, 0])
        for name in series.timed - {"mask"}:
            frame[name] = frame[name].squeeze(1)
        frame.pop("edge_time", None)
        snapshots.append(frame)
    return snapshots


def from_signal(signal: Any, ids: str = "node_id") -> Data:
    r"""Put a signal of pytorch-geometric-temporal into one graph that changes; that package is not needed.

    Args:
        signal: A ``StaticGraphTemporalSignal``, ``DynamicGraphTemporalSignal`` or ``DynamicGraphStaticTemporalSignal``,
            or any iterable of snapshots that has ``edge_index`` (the same edges in every frame) or ``edge_indices``. Of
            the batch forms of these, whose snapshots have ``batch``, the graphs come back as a
            :class:`~torch_geometric.data.Batch`.
        ids: See :func:`from_snapshots`; a signal takes ids as one of its further features.

    Shapes:
        - **x:** ``[N, T, C]``, of features ``[N, C]`` of a snapshot; lags ``[N, ...]`` are flattened into C.
        - **edge_attr:** ``[E, 1]``, of weights ``[E]``. **y:** ``[N, T, ...]``. See :func:`from_snapshots`.

    Raises:
        ValueError: If ``signal`` is no such signal, or its snapshots do not fit together.

    Example:
        >>> class Signal(list):
        ...     edge_index = [[0, 1], [1, 0]]
        >>> frame = Data(x=torch.ones(2, 4), edge_index=torch.tensor(Signal.edge_index), y=torch.zeros(2))
        >>> from_signal(Signal([frame] * 5))
        Data(edge_index=[2, 2], x=[2, 5, 4], y=[2, 5])
    """
    if not isinstance(signal, Iterable) or not (hasattr(signal, "edge_index") or hasattr(signal, "edge_indices")):
        raise ValueError(f"expected a signal with 'edge_index' or 'edge_indices', got {describe(signal)}")
    snapshots = [copy.copy(snapshot) for snapshot in signal]
    batches = [snapshot.pop("batch", None) for snapshot in snapshots]
    for snapshot in snapshots:
        if num_dims(snapshot.get("x")) > 0:
            snapshot.x = snapshot.x.unsqueeze(1) if snapshot.x.dim() == 1 else snapshot.x.flatten(1)
    data = from_snapshots(snapshots, ids, static_edges=hasattr(signal, "edge_index"))
    if batches[0] is None:
        return data
    if not all(batch is not None and torch.equal(batch, batches[0]) for batch in batches):
        raise ValueError("expected the same 'batch' in all snapshots, got others")
    rows, graphs = Series(data).rows, [batches[0] == number for number in range(int(batches[0].max()) + 1)]
    return Batch.from_data_list([subgraph(data, rows, graph) for graph in graphs])


def _check_snapshots(snapshots: Sequence[Any], ids: str) -> list[str]:
    """Raise unless all are graphs with the same tensors; give their names."""
    names: list[str] = []
    for t, snapshot in enumerate(snapshots):
        if not isinstance(snapshot, Data):
            raise ValueError(f"expected snapshot {t} to be a Data, got {describe(snapshot)}")
        if num_dims(snapshot.get("x")) != 2:
            raise ValueError(f"expected snapshot {t} with 'x' of shape [n, C], got {describe(snapshot.get('x'))}")
        mine = [name for name, _ in snapshot if name != "num_nodes"]
        names = names or mine
        if set(mine) != set(names):
            raise ValueError(f"expected snapshot {t} with {sorted(names)}, as the first, got {sorted(mine)}")
        for name in mine:
            if num_dims(snapshot[name]) < 0:
                raise ValueError(f"expected a tensor as {name!r} of snapshot {t}, got {describe(snapshot[name])}")
        try:
            check_edge_index(snapshot.edge_index, snapshot.x.size(0), snapshot.x)
        except ValueError as error:
            raise ValueError(f"snapshot {t}: {error}") from None
    if len(snapshots) == 0:
        raise ValueError("expected one snapshot or more, got none")
    made = ["edge_time"] + ["mask", "node_id"] * (ids in names)
    taken = [name for name in made if name in names and name != ids]
    if taken:
        raise ValueError(f"expected snapshots without {taken[0]!r}, which is made of their order and ids: rename it")
    return names


def _edges(snapshot: Data) -> Tensor:
    if snapshot.edge_index is None:
        return torch.empty(2, 0, dtype=torch.int64, device=snapshot.x.device)
    return snapshot.edge_index.long()


def _number(snapshots: Sequence[Data], ids: str, frame: Tensor) -> tuple[Tensor, Tensor]:
    """All ids in order, and the number of every row of every snapshot among them."""
    for t, snapshot in enumerate(snapshots):
        if snapshot[ids].shape != snapshot.x.shape[:1] or snapshot[ids].dtype != torch.int64:
            got = describe(snapshot[ids], typed=True)
            raise ValueError(f"expected int64 {ids!r} of shape [{snapshot.x.size(0)}] in snapshot {t}, got {got}")
    given = torch.cat([snapshot[ids] for snapshot in snapshots])
    node_id, number = given.unique(return_inverse=True)
    check_once(number * len(snapshots) + frame, lambda row: f"id {given[row]} twice in snapshot {frame[row]}")
    return node_id, number


def check_once(place: Tensor, describe_row: Any) -> None:
    """Raise where a place comes twice; ``describe_row`` says what stands in a row."""
    order = place.argsort(stable=True)
    again = (place[order].diff() == 0).nonzero()
    if again.numel() > 0:
        raise ValueError(f"expected every node once in a frame, got {describe_row(order[again[0, 0] + 1])}")


def _put(values: Tensor, place: Tensor, shape: tuple[int, int]) -> Tensor:
    """``[N, T, ...]`` from rows in their places, 0 elsewhere."""
    out = values.new_zeros(shape[0] * shape[1], *values.shape[1:])
    return out.index_copy(0, place, values).unflatten(0, shape)


def _rows(name: str, values: list[Tensor], sizes: list[int], counts: list[int]) -> str:
    """What an attribute of snapshots belongs to."""
    lengths = [value.size(0) if value.dim() > 0 else -1 for value in values]
    fits = {NODE: lengths == sizes, EDGE: lengths == counts, GRAPH: all(size in (-1, 1) for size in lengths)}
    for rows in (EDGE, NODE, GRAPH) if "edge" in name else (NODE, GRAPH, EDGE):
        if fits[rows]:
            return rows
    t = next(t for t, length in enumerate(lengths) if length != sizes[t])
    raise ValueError(
        f"expected {name!r} with one row per node, per edge or in all, alike in every snapshot, got {lengths[t]} in "
        f"snapshot {t} of {sizes[t]} nodes and {counts[t]} edges"
    )
