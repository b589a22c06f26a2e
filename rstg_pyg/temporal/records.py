"""Graphs that change, from records with a time: events between nodes, and rows of a table.

Shape legend: R records, N nodes, E edges, T frames, C channels.
"""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import check_edges, check_flags, describe, is_integer, num_dims
from rstg_pyg.temporal.convert import check_once
from rstg_pyg.temporal.series import check_edge_index

MAX_PLACES = 2**31
"""Of nodes and frames: more are a step or a window that does not fit the times."""

OFF_GRID = 1e-3
"""How far a time may lie off its frame, in steps."""

MANY_FRAMES, FRAMES_PER_ROW = 10_000, 100
"""More frames than both, of which 99 in 100 have no row, are no grid: a time is far off, or no two fit together. A week
of minutes from one sensor is one frame per row."""

_DATES = "dates are seconds as np.asarray({0}, 'datetime64[s]').astype(int)"
_NAMES = "names are numbered by np.unique({0}, return_inverse=True)"
_HINTS = {"time": _DATES, "edge_time": _DATES, "node": _NAMES, "edge_index": "give the numbers of 'node', not names"}


def from_events(
    events: Any,
    window: float,
    start: float | None = None,
    num_frames: int | None = None,
    num_nodes: int | None = None,
    x: Tensor | None = None,
    active_only: bool = True,
) -> Data:
    r"""Cut a stream of events into windows of time: frame k holds the events with
    ``start + k * window <= t < start + (k + 1) * window`` as its edges.

    Args:
        events: A :class:`~torch_geometric.data.TemporalData`, or what has its ``src``, ``dst``, ``t`` and maybe ``msg``
            and ``y``; sorted by time or not.
        window: Length of a frame in units of ``t``.
        start: Where frame 0 starts; the first event's time by default.
        num_frames: Number of frames T; up to the last event by default.
        num_nodes: Number of nodes N; up to the largest in ``src`` and ``dst`` by default.
        x: Node features; by default how many events a node sends and gets in a frame.
        active_only: Whether nodes are there (``mask``) in those frames alone in which they take part in an event; else
            all nodes are always there.

    Shapes:
        - **src, dst, t:** ``[E]``. **msg:** ``[E]`` or ``[E, D]``. **y:** ``[E, ...]``.
        - **x:** ``[N, C]`` (the same in every frame) or ``[N, T, C]``.
        - **output:** ``x [N, T, C]``, ``edge_index [2, E]``, ``edge_time [E]``, ``edge_timestamp [E]`` (times of the
          events), ``edge_attr [E, D]`` with ``msg``, ``edge_label [E, ...]`` with ``y``, ``mask [N, T]`` with
          ``active_only``, ``frame_start [1, T]``; sorted by frame, else in the order of the events.

    Raises:
        ValueError: If ``events`` are not as above, there are none, or a time lies outside the frames.

    Example:
        >>> from torch_geometric.data import TemporalData
        >>> src, dst, t = torch.tensor([[0, 1, 0], [2, 2, 1], [10, 14, 31]])
        >>> data = from_events(TemporalData(src=src, dst=dst, t=t), window=10)
        >>> data.edge_time.tolist(), data.mask.tolist()
        ([0, 0, 2], [[True, False, True], [True, False, True], [True, False, False]])
    """
    check_flags(active_only=active_only)
    source, destination, time = (_field(events, name) for name in ("src", "dst", "t"))
    if not (source.shape == destination.shape == time.shape) or source.dim() != 1 or time.numel() == 0:
        raise ValueError(
            f"expected 'src', 'dst' and 't' of one shape [E], E > 0, got {describe((source, destination, time))}"
        )
    source, destination = edge_index = torch.stack([source, destination]).long()
    num_nodes = int(edge_index.max()) + 1 if num_nodes is None else num_nodes
    check_edge_index(edge_index, num_nodes)
    _check_times("t", time)
    _check_step("window", window)
    _check_rounding("t", time, window)
    start = time.min().item() if start is None else _whole_start(time, start)
    since = _since(time, start, window)
    frame = torch.div(since, window, rounding_mode="floor").long()
    # A quotient that was rounded lies on the other side of a frame's start. Whole numbers times a Python float would be
    # of the default type, which has too few digits.
    count = frame.to(since.dtype)
    frame += ((count + 1) * window <= since).long() - (count * window > since).long()
    num_frames = max(int(frame.max()) + 1, 0) if num_frames is None else num_frames
    wrong = time[(frame < 0) | (frame >= num_frames)]
    if wrong.numel() > 0:
        raise ValueError(f"expected 't' from {start} to before {start + num_frames * window}, got {wrong[0].item()}")
    _check_places(num_nodes, num_frames, "window", window)
    order = frame.argsort(stable=True)
    sent, got = ((end * num_frames + frame).bincount(minlength=num_nodes * num_frames) for end in (source, destination))
    counts = torch.stack([sent, got], -1).view(num_nodes, num_frames, 2)
    if x is not None:
        x = _check_features(x, num_nodes, num_frames)
    out = Data(
        x=counts.to(torch.get_default_dtype()) if x is None else x,
        edge_index=edge_index[:, order],
        edge_time=frame[order],
        edge_timestamp=time[order],
    )
    for name, field in (("edge_attr", "msg"), ("edge_label", "y")):
        value = getattr(events, field, None)
        if value is not None:
            value = torch.as_tensor(value)
            if value.dim() == 0 or value.size(0) != time.size(0):
                raise ValueError(f"expected {field!r} with {time.size(0)} rows, got {describe(value)}")
            out[name] = (value.unsqueeze(1) if name == "edge_attr" and value.dim() == 1 else value)[order]
    if active_only:
        out.mask = counts.any(-1)
    out.frame_start = _frame_start(start, window, num_frames, time.device)
    return out


def from_table(
    time: Any,
    node: Any,
    features: Any,
    edge_index: Any = None,
    edge_time: Any = None,
    edge_attr: Any = None,
    step: float | None = None,
) -> Data:
    r"""Put the rows of a table, each with what one node was at one time, into a graph that changes.

    Times lie on a regular grid and become its frames. Where a node has no row it is absent, also in frames without any
    row; so rows whose values are missing are to be left out. Features become :func:`torch.get_default_dtype`, the type
    of the weights of a new network.

    Args:
        time: The time of every row, in any order.
        node: The id of every row's node.
        features: The values of every row.
        edge_index: Edges between ids of nodes, which serve every frame, but with ``edge_time``.
        edge_time: The time of every edge, on the grid of the rows.
        edge_attr: Edge features.
        step: From one frame to the next, in units of ``time``; the smallest difference of two times by default, which
            may make no more than 10,000 frames, or 100 for each row.

    Shapes:
        Tensors, arrays, lists or columns of a pandas table:

        - **time, node:** ``[R]``; ids are int64. **features:** ``[R, C]``, or ``[R]`` with C = 1.
        - **edge_index:** ``[2, E]``. **edge_time:** ``[E]``. **edge_attr:** ``[E, D]``, or ``[E]`` with D = 1.
        - **output:** ``x [N, T, C]``, ``mask [N, T]``, ``node_id [N]`` (sorted), ``frame_start [1, T]`` (times of
          frames), and of edges ``edge_index [2, E]``, ``edge_time [E]`` (frames; edges are sorted by them),
          ``edge_attr [E, D]``.

    Raises:
        ValueError: If shapes do not fit, a feature is NaN or infinite, a time lies off the grid or is rounded by its
            type, a node has two rows of one time, or an edge has an id that no row has, or a time before or after all
            rows.

    Example:
        >>> data = from_table(time=[0, 10, 10, 40], node=[5, 5, 2, 2], features=[1.0, 2.0, 3.0, 4.0])
        >>> data.node_id.tolist(), data.frame_start.tolist()
        ([2, 5], [[0, 10, 20, 30, 40]])
        >>> data.x[:, :, 0].tolist()
        [[0.0, 3.0, 0.0, 0.0, 4.0], [1.0, 2.0, 0.0, 0.0, 0.0]]
    """
    time, node, features = (
        _numbers(name, value) for name, value in (("time", time), ("node", node), ("features", features))
    )
    features = features.unsqueeze(1) if features.dim() == 1 else features
    num_rows = time.numel()
    fits = time.shape == node.shape == (num_rows,) and features.dim() == 2 and features.size(0) == num_rows
    if not fits or num_rows == 0 or not is_integer(node):
        raise ValueError(
            "expected 'time' [R], integer 'node' [R] and 'features' [R, C], R > 0, got "
            f"{describe((time, node, features), typed=True)}"
        )
    features = _values("features", features)
    _check_times("time", time)
    given, step = step, _smallest_step(time) if step is None else step
    _check_step("step", step)
    start = time.min().item()
    frame = _frames("time", time, start, step)
    num_frames = int(frame.max()) + 1
    if given is None and num_frames > max(MANY_FRAMES, FRAMES_PER_ROW * num_rows):
        raise ValueError(
            f"expected 'time' on a grid, got {num_frames:,} frames of step {step} for {num_rows} rows: give 'step', or "
            "round the times"
        )
    node_id, number = node.long().unique(return_inverse=True)
    _check_places(node_id.size(0), num_frames, "step", step)
    place = number * num_frames + frame
    check_once(place, lambda row: f"node {node[row]} twice at time {time[row]}")
    x = features.new_zeros(node_id.size(0) * num_frames, features.size(1)).index_copy(0, place, features)
    mask = torch.zeros(x.size(0), dtype=torch.bool, device=x.device).index_fill(0, place, True)
    out = Data(
        x=x.unflatten(0, (-1, num_frames)),
        mask=mask.unflatten(0, (-1, num_frames)),
        node_id=node_id,
        frame_start=_frame_start(start, step, num_frames, time.device),
    )
    if edge_index is not None:
        _add_edges(out, edge_index, edge_time, edge_attr, start, step)
    elif edge_time is not None or edge_attr is not None:
        raise ValueError("expected 'edge_index' with 'edge_time' or 'edge_attr', got none")
    return out


def _add_edges(out: Data, edge_index: Any, edge_time: Any, edge_attr: Any, start: float, step: float) -> None:
    """Edges between ids, at times, into ``out``."""
    ids = _numbers("edge_index", edge_index)
    check_edges(ids)
    out.edge_index = torch.searchsorted(out.node_id, ids.long().contiguous()).clamp(max=out.node_id.size(0) - 1)
    wrong = ids[out.node_id[out.edge_index] != ids]
    if wrong.numel() > 0:
        raise ValueError(f"expected 'edge_index' to hold ids of nodes, got {wrong[0].item()}")
    values = {"edge_time": edge_time, "edge_attr": edge_attr}
    values = {name: _numbers(name, value) for name, value in values.items() if value is not None}
    for name, value in values.items():
        if value.dim() == 0 or value.size(0) != ids.size(1) or value.dim() > (2 if name == "edge_attr" else 1):
            raise ValueError(f"expected {name!r} with {ids.size(1)} rows, got {describe(value)}")
    if "edge_attr" in values:
        value = values["edge_attr"]
        out.edge_attr = _values("edge_attr", value.unsqueeze(1) if value.dim() == 1 else value)
    if "edge_time" in values:
        time = values["edge_time"]
        _check_times("edge_time", time)
        frame = _frames("edge_time", time, start, step)
        wrong = time[(frame < 0) | (frame >= out.x.size(1))]
        if wrong.numel() > 0:
            last = out.frame_start[0, -1].item()
            raise ValueError(f"expected 'edge_time' from {start} to {last}, got {wrong[0].item()}")
        order = frame.argsort(stable=True)
        out.edge_index, out.edge_time = out.edge_index[:, order], frame[order]
        if "edge_attr" in values:
            out.edge_attr = out.edge_attr[order]


def _numbers(name: str, value: Any) -> Tensor:
    """A tensor of what people have numbers in; those of a list are doubles, for a float32 rounds times."""
    if isinstance(value, Tensor):
        return value
    value = np.asarray(value)
    if value.dtype.kind not in "biuf":
        hint = f": {_HINTS[name].format(name)}" if name in _HINTS else ""
        raise ValueError(f"expected numbers as {name!r}, got {value.dtype}{hint}")
    return torch.tensor(value)


def _values(name: str, values: Tensor) -> Tensor:
    """Rows ``[R, C]`` in the type of weights, once all are finite."""
    values = values.to(torch.get_default_dtype())
    wrong = int((~values.isfinite()).any(1).sum())
    if wrong:
        got = "NaN" if values.isnan().any() else "infinity"
        raise ValueError(f"expected finite {name!r}, got {got} in {wrong} of {len(values)} rows: leave these rows out")
    return values


def _frames(name: str, time: Tensor, start: float, step: float) -> Tensor:
    """The frames of times on a grid."""
    _check_rounding(name, time, step)
    steps = _since(time, start, step).double() / step
    frame = steps.round()
    wrong = time[(steps - frame).abs() > OFF_GRID]
    if wrong.numel() > 0:
        raise ValueError(
            f"expected {name!r} on a grid of step {step} from {start}, got {wrong[0].item()}: give a 'step' that "
            "divides all differences, or round the times"
        )
    return frame.long()


def _field(events: Any, name: str) -> Tensor:
    value = getattr(events, name, None)
    if num_dims(value) < 0:
        raise ValueError(f"expected events with a tensor {name!r}, got {describe(value)}")
    return value


def _since(time: Tensor, start: float, step: float) -> Tensor:
    """``time - start`` in integers where all are, else in doubles; small floats would round."""
    since = (time.long() if is_integer(time) and isinstance(start, int) else time.double()) - start
    return since if isinstance(step, int) else since.double()


def _whole_start(time: Tensor, start: Any) -> float:
    """An integer where times are integers and ``start`` is whole, of whatever type: a double has too few digits of
    nanoseconds."""
    try:
        start = operator.index(start)
    except TypeError:
        start = float(start)
    if not is_integer(time) or isinstance(start, int):
        return start
    if start.is_integer():
        return int(start)
    if time.abs().max() >= 2**52:
        raise ValueError(f"expected a whole number as 'start' for times of {time.dtype} as large as these, got {start}")
    return start


def _frame_start(start: float, step: float, num_frames: int, device: torch.device) -> Tensor:
    """``[1, T]``, when frames start."""
    whole = isinstance(start, int) and isinstance(step, int)
    frames = torch.arange(num_frames, dtype=torch.int64 if whole else torch.float64, device=device)
    return (start + step * frames).unsqueeze(0)


def _smallest_step(time: Tensor) -> float:
    """The smallest difference of two times; of floats, whose differences are rounded, what divides the whole best."""
    time = (time.long() if is_integer(time) else time).unique()
    if time.size(0) < 2:
        return 1
    step = time.diff().min().item()
    if isinstance(step, int):
        return step
    whole = (time[-1].double() - time[0].double()).item()
    return whole / round(whole / step)


def _check_times(name: str, time: Tensor) -> None:
    if time.dtype == torch.bool or time.is_complex() or not time.isfinite().all():
        raise ValueError(f"expected finite numbers as {name!r}, got {describe(time)} with others")


def _check_step(name: str, step: Any) -> None:
    if not isinstance(step, (int, float)) or not 0 < step < float("inf"):
        raise ValueError(f"expected {name!r} to be a positive number, got {describe(step)}")


def _check_rounding(name: str, time: Tensor, step: float) -> None:
    """Raise where the type of the times rounds them by more than they may lie off their frames."""
    if time.numel() == 0 or not time.is_floating_point():
        return
    largest = time.abs().max().item()
    rounding = largest * torch.finfo(time.dtype).eps / 2
    is_exact = rounding <= 1 and bool((time == time.round()).all())  # whole numbers, up to 2^24 of float32
    if not is_exact and rounding > OFF_GRID * step:
        wider = "int64" if time.dtype == torch.float64 else "float64 or int64"
        raise ValueError(
            f"expected {name!r} as {wider}: {time.dtype} cannot hold these times, it rounds {largest:g} by up to "
            f"{rounding:g}"
        )


def _check_places(num_nodes: int, num_frames: int, name: str, step: float) -> None:
    if num_nodes * num_frames > MAX_PLACES:
        raise ValueError(
            f"expected at most {MAX_PLACES} nodes times frames, got {num_nodes} and {num_frames} with {name}={step}"
        )


def _check_features(x: Any, num_nodes: int, num_frames: int) -> Tensor:
    whole = x.unsqueeze(1).repeat(1, num_frames, 1) if num_dims(x) == 2 else x
    if num_dims(whole) != 3 or list(whole.shape[:2]) != [num_nodes, num_frames]:
        raise ValueError(f"expected 'x' of shape [{num_nodes}, C] or [{num_nodes}, {num_frames}, C], got {describe(x)}")
    return whole
