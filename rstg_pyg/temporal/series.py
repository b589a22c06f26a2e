"""A graph that changes as one ``Data``: what of it belongs to nodes, to edges, to frames.

Shape legend: N nodes, E edges, T frames, C channels.
"""

import copy
import warnings
from collections.abc import Mapping
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch, Data

from rstg_pyg.arguments import check_edges, check_positive, describe, is_integer, num_dims, whole_number
from rstg_pyg.ops.frames import check_mask

NODE, EDGE, GRAPH = "node", "edge", "graph"

CONSTANT = ("pe", "pos")
"""Two dimensions of these are nodes and channels, and need three for frames."""

OF_NODES = ("x", "y", "mask", "y_mask", "pe", "pos", "n_id", "seed_mask", "virtual_mask")
"""Whose readings are clear by their names."""

WIDEST = 64
"""Vectors of nodes are rarely wider, and long series are rarely as short: as many frames may be either."""


class Series:
    r"""A graph that changes, held by one :class:`~torch_geometric.data.Data`, which is checked here once.

    The attributes that :class:`~rstg_pyg.RSTG` takes have their names and shapes. Whatever else is there belongs to
    nodes or edges where its first dimension is their number (to edges where it is both and "edge" is in the name), else
    to the graph. Of nodes and graphs it has frames where its second dimension is T (``pe`` and ``pos``: where there are
    three dimensions), of edges where there are three dimensions and no ``edge_time``. Where sizes have two readings,
    what cuts a series warns: ``"node"`` or ``"edge"`` in a name makes it clear, and ``[N, T, 1]`` with frames,
    ``[N, 1, D]`` without.

    Args:
        data: The graph. Nothing of it is changed.
        rows: What attributes belong to that are known already, as of a series of which this is a part.

    Shapes:
        - **data.x:** ``[N, T, C]``. **data.edge_index:** ``[2, E]``, or nothing.
        - **data.edge_time:** ``[E]`` integers in 0..T-1; without it, edges serve every frame.
        - **data.edge_attr:** ``[E, D]``, without ``edge_time`` also ``[E, T, D]``.
        - **data.mask:** ``[N, T]`` bool, True where the node is there. **data.pe:** ``[N, P]`` or ``[N, T, P]``.
        - **data.y:** ``[N, T, ...]`` of nodes, ``[1, T, ...]`` of the graph; a target without frames has another shape.

    Attributes:
        rows: What each attribute belongs to, ``"node"``, ``"edge"`` or ``"graph"``.
        timed: Names of the attributes that have frames.

    Raises:
        ValueError: If ``data`` is no such graph.

    Example:
        >>> from torch_geometric.data import Data
        >>> series = Series(Data(x=torch.zeros(3, 5, 2), edge_index=torch.tensor([[0], [1]]), pe=torch.zeros(3, 4)))
        >>> series.rows, series.timed
        ({'x': 'node', 'edge_index': 'edge', 'pe': 'node'}, {'x'})
    """

    def __init__(self, data: Data, rows: Mapping[str, str] | None = None) -> None:
        if not isinstance(data, Data) or isinstance(data, Batch):
            raise ValueError(f"expected a Data of a graph that changes, got {describe(data)}")
        if num_dims(data.get("x")) != 3:
            raise ValueError(f"expected 'x' of shape [N, T, C], got {describe(data.get('x'))}")
        self.data = data
        self.num_nodes, self.num_frames = data.x.shape[:2]
        self.num_edges = check_edge_index(data.get("edge_index"), self.num_nodes, data.x)
        self.edge_time = data.get("edge_time")
        if self.edge_time is not None:
            self._check_edge_time()
        if data.get("mask") is not None:
            check_mask(data.mask, data.x.shape[:2])
        attributes = [(name, value) for name, value in data if name != "num_nodes"]
        known = {} if rows is None else rows
        self.rows = {name: known.get(name) or self._rows(name, value) for name, value in attributes}
        self.timed = {name for name, value in attributes if self._has_frames(name, value)}

    def warn(self) -> None:
        """Warn where sizes have two readings, before a series is cut."""
        n, t, unclear = self.num_nodes, self.num_frames, []
        for name, value in self._items():
            if self.rows[name] != NODE or n == 1 or name in OF_NODES:
                continue
            if n == self.num_edges and "node" not in name:
                unclear.append(
                    f"{name!r} has {n} rows, as many as there are nodes and edges, and is read as of nodes: put 'edge' "
                    "into its name if it is of edges, else 'node'"
                )
            if name in self.timed and value.dim() == 2 and value.is_floating_point() and 1 < t <= WIDEST:
                unclear.append(
                    f"{name!r} of shape {[n, t]} is read as one number for each of the {t} frames: give it as "
                    f"{[n, 1, t]} if it has none, else as {[n, t, 1]}"
                )
        for message in unclear:
            warnings.warn(message, stacklevel=4)

    def _check_edge_time(self) -> None:
        time, wanted = self.edge_time, [self.num_edges]
        if num_dims(time) != 1 or list(time.shape) != wanted or not is_integer(time):
            raise ValueError(f"expected integer 'edge_time' of shape {wanted}, got {describe(time, typed=True)}")
        check_wide("edge_time", time)
        wrong = time[(time < 0) | (time >= self.num_frames)]
        if wrong.numel() > 0:
            raise ValueError(f"expected 'edge_time' within 0 to {self.num_frames - 1}, got {wrong[0].item()}")

    def _rows(self, name: str, value: object) -> str:
        if name == "edge_index":
            return EDGE
        size = value.size(0) if num_dims(value) > 0 else None
        # Of one row, only what is known to be of nodes is.
        of_nodes = size != 1 or name in OF_NODES or "node" in name
        if size == self.num_nodes and of_nodes and not (size == self.num_edges and "edge" in name):
            return NODE
        return EDGE if size == self.num_edges and (size != 1 or "edge" in name) else GRAPH

    def _has_frames(self, name: str, value: object) -> bool:
        rows, dims = self.rows[name], num_dims(value)
        if name == "edge_index" or dims < 2 or value.size(1) != self.num_frames:
            return False
        if rows == EDGE:
            return dims > 2 and self.edge_time is None
        return (rows == NODE or value.size(0) == 1) and (dims > 2 or name not in CONSTANT)

    @cached_property
    def edge_ptr(self) -> list[int]:
        """Where the edges of every frame start among the edges, which are sorted by time; T + 1 numbers."""
        frames = torch.arange(self.num_frames + 1, dtype=self.edge_time.dtype, device=self.edge_time.device)
        return torch.searchsorted(self.edge_time.contiguous(), frames).tolist()

    def sorted(self) -> "Series":
        """The same with its edges sorted by time, to be cut into frames."""
        self.warn()
        if self.edge_time is None or bool((self.edge_time.diff() >= 0).all()):
            return self
        order, data = self.edge_time.argsort(stable=True), empty_like(self.data)
        for name, value in self._items():
            data[name] = value if self.rows[name] != EDGE else value[:, order] if name == "edge_index" else value[order]
        return Series(data)

    def frames(self, start: int, stop: int) -> Data:
        """Frames ``start`` to ``stop - 1`` of edges that are sorted; all are views but ``edge_time``, which starts at
        0."""
        out = empty_like(self.data)
        first, last = (0, 0) if self.edge_time is None else (self.edge_ptr[start], self.edge_ptr[stop])
        for name, value in self._items():
            if name in self.timed:
                value = value[:, start:stop]
            elif self.edge_time is not None and self.rows[name] == EDGE:
                value = value[..., first:last] if name == "edge_index" else value[first:last]
                value = value - start if name == "edge_time" else value
            out[name] = value
        return out

    def _items(self) -> list[tuple[str, object]]:
        return [(name, self.data[name]) for name in self.rows]


def slice_frames(data: Data, start: int, stop: int) -> Data:
    r"""Frames ``start`` to ``stop - 1`` of a graph that changes: its node tensors are views, its edges those of the
    frames, ``edge_time`` starts at 0.

    Args:
        data: See :class:`Series`.
        start, stop: Numbers of frames, 0 to T.

    Shapes:
        - **output:** as ``data``, with ``stop - start`` frames.

    Raises:
        ValueError: If ``data`` is not a graph that changes, or the frames are not there.

    Example:
        >>> from torch_geometric.data import Data
        >>> edge_index, edge_time = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 3])
        >>> slice_frames(Data(x=torch.zeros(3, 5, 2), edge_index=edge_index, edge_time=edge_time), 2, 4)
        Data(x=[3, 2, 2], edge_index=[2, 1], edge_time=[1])
    """
    series = Series(data)
    start = whole_number("start", start, 0, series.num_frames)
    return series.sorted().frames(start, whole_number("stop", stop, start, series.num_frames))


def pad(data: Data, num_frames: int) -> Data:
    r"""Append frames in which nobody is there, so that clips of different lengths are alike in theirs and batch.

    Args:
        data: See :class:`Series`.
        num_frames: Number of frames of the result.

    Shapes:
        - **output:** as ``data``, with ``num_frames`` frames: 0 in the new ones, and a ``mask`` that is False there.

    Raises:
        ValueError: If ``data`` is not a graph that changes, or is longer.

    Example:
        >>> from torch_geometric.data import Data
        >>> from torch_geometric.loader import DataLoader
        >>> clips = [Data(x=torch.ones(3, 5, 2)), Data(x=torch.ones(4, 2, 2))]
        >>> batch = next(iter(DataLoader([pad(clip, 5) for clip in clips], batch_size=2)))
        >>> batch.x.shape, batch.mask[-1].tolist()
        (torch.Size([7, 5, 2]), [True, True, False, False, False])
    """
    series = Series(data)
    series.warn()
    check_positive(num_frames=num_frames)
    more = num_frames - series.num_frames
    if more < 0:
        raise ValueError(f"expected at most num_frames={num_frames} frames, got {series.num_frames}")
    out = empty_like(data)
    for name, value in series._items():
        out[name] = F.pad(value, [0, 0] * (value.dim() - 2) + [0, more]) if name in series.timed else value
    if "mask" not in out:
        mask = torch.ones(data.x.shape[:2], dtype=torch.bool, device=data.x.device)
        out.mask = F.pad(mask, [0, more])
    return out


def subgraph(data: Data, rows: dict[str, str], nodes: Tensor, edges: Tensor | None = None) -> Data:
    """The nodes where ``nodes [N]`` is True, and the edges where ``edges [E]`` is, all between them by default.

    ``rows`` says what every attribute belongs to, see :class:`Series`; attributes that are gone from ``data`` are left
    out.
    """
    out, number = empty_like(data), nodes.cumsum(0) - 1
    if edges is None and "edge_index" in data:
        edges = nodes[data.edge_index].all(0)
    for name in [name for name in rows if name in data]:
        value = data[name]
        if name == "edge_index":
            value = number[value[:, edges]]
        elif rows[name] != GRAPH:
            value = value[nodes if rows[name] == NODE else edges]
        out[name] = value
    return out


def empty_like(data: Data) -> Data:
    """Without attributes, of the same class: how a batch joins them is said there."""
    if isinstance(data, Batch):
        return Data()
    out = copy.copy(data)
    for name in list(out.keys()):
        del out[name]
    return out


def check_wide(name: str, value: Tensor) -> None:
    """Raise where integers are narrow: they overflow in products and differences, and bytes are taken for a mask."""
    if value.dtype.itemsize < 4:
        got = describe(value, typed=True)
        raise ValueError(f"expected {name!r} of type torch.int64 or torch.int32, got {got} ({name}.long()?)")


def check_edge_index(edge_index: object, num_nodes: int, x: Tensor | None = None) -> int:
    """Raise unless ``edge_index`` is None or joins nodes that are there; give the number of edges."""
    if edge_index is None:
        return 0
    check_edges(edge_index)
    check_wide("edge_index", edge_index)
    wrong = edge_index[(edge_index < 0) | (edge_index >= num_nodes)]
    if wrong.numel() > 0:
        why = f", as 'x' of shape {list(x.shape)} has {num_nodes} nodes (nodes come first)" if x is not None else ""
        raise ValueError(f"expected 'edge_index' within 0 to {num_nodes - 1}, got {wrong[0].item()}{why}")
    return edge_index.size(1)
