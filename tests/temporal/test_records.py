"""Events and tables."""

import numpy as np
import pytest
import torch
from torch_geometric.data import TemporalData

from rstg_pyg.temporal import from_events, from_table, to_snapshots


def make_events(num_events=50):
    return TemporalData(
        src=torch.randint(6, (num_events,)),
        dst=torch.randint(6, (num_events,)),
        t=torch.randint(100, 200, (num_events,)),
        msg=torch.randn(num_events, 3),
        y=torch.randint(2, (num_events,)),
    )


@pytest.mark.parametrize("kind", [torch.int64, torch.float64])
def test_a_frame_holds_the_events_of_its_window(kind):
    events = make_events()
    events.t = events.t.to(kind)
    data = from_events(events, window=7, start=95, num_frames=16, num_nodes=8)
    assert data.x.shape == (8, 16, 2)
    for k in range(16):
        mine = (events.t >= 95 + k * 7) & (events.t < 95 + (k + 1) * 7)
        own = data.edge_time == k
        assert torch.equal(data.edge_index[:, own], torch.stack([events.src, events.dst])[:, mine])
        assert torch.equal(data.edge_attr[own], events.msg[mine])
        assert torch.equal(data.edge_label[own], events.y[mine])
        assert torch.equal(data.edge_timestamp[own], events.t[mine])
        active = torch.zeros(8, dtype=torch.bool).index_fill(0, data.edge_index[:, own].flatten(), True)
        assert torch.equal(data.mask[:, k], active)
        assert torch.equal(data.x[:, k, 0], events.src[mine].bincount(minlength=8).float())
    assert data.frame_start[0, :2].tolist() == [95, 102]
    assert torch.equal(to_snapshots(data)[3].edge_attr, data.edge_attr[data.edge_time == 3])


def test_features_of_nodes_of_events():
    x = torch.randn(6, 4)
    data = from_events(make_events(), window=10, num_nodes=6, x=x, active_only=False)
    assert torch.equal(data.x[:, 3], x)
    assert "mask" not in data


def test_a_window_of_a_float_is_exact_by_its_definition():
    events = TemporalData(src=torch.tensor([0, 0]), dst=torch.tensor([1, 1]), t=torch.tensor([0.0, 0.75]).double())
    assert from_events(events, window=0.25).edge_time.tolist() == [0, 3]
    # Three years of seconds: in float32 a frame's start is off by some.
    events.t = torch.tensor([0, 114_467_938])
    assert from_events(events, window=60.0).edge_time.tolist() == [0, 114_467_938 // 60]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"t": torch.zeros(3)}, {}, r"'src', 'dst' and 't' of one shape \[E\]"),
        ({"t": torch.full((50,), float("nan"))}, {}, "expected finite numbers as 't'"),
        ({}, {"window": 0}, "expected 'window' to be a positive number, got 0"),
        ({}, {"start": 300}, "expected 't' from 300 to before 300, got 1"),
        ({}, {"start": 0, "num_frames": 3}, "expected 't' from 0 to before 30, got 1"),
        ({}, {"num_nodes": 2}, "expected 'edge_index' within 0 to 1, got"),
        ({}, {"window": 1e-9}, "nodes times frames, got 6 and .* with window=1e-09"),
        ({"msg": torch.zeros(3)}, {}, "expected 'msg' with 50 rows"),
        ({}, {"x": torch.zeros(3, 2)}, r"expected 'x' of shape \[6, C\] or \[6, 10, C\], got \[3, 2\]"),
    ],
)
def test_wrong_events(change, options, message):
    events = make_events()
    events.src[:6], events.t[0], events.t[1] = torch.arange(6), 100, 199
    for name, value in change.items():
        events[name] = value
    with pytest.raises(ValueError, match=message):
        from_events(events, **{"window": 10, **options})
    with pytest.raises(ValueError, match="expected events with a tensor 'src', got None"):
        from_events(object(), window=10)


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64])
def test_a_table_of_people(kind):
    time = np.array([780, 790, 790, 810, 810], dtype=kind)
    node = np.array([8, 8, 3, 3, 70])
    values = np.arange(10.0).reshape(5, 2)
    order = np.random.default_rng(0).permutation(5)
    data = from_table(time[order], node[order], values[order])
    assert data.node_id.tolist() == [3, 8, 70]
    assert data.frame_start.tolist() == [[780, 790, 800, 810]]
    assert data.mask.int().tolist() == [[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]]
    assert data.x[data.mask].tolist() == [[4, 5], [6, 7], [0, 1], [2, 3], [8, 9]]
    assert not data.x[~data.mask].any()


def test_a_table_as_people_have_it():
    """Lists of float times are exact, features are of the weights' type, and edges may be none."""
    start = 1_700_000_000.0
    data = from_table([start, start + 100, start + 200], [0, 0, 0], np.arange(3.0))
    assert data.frame_start.tolist() == [[start, start + 100, start + 200]]
    assert data.x.dtype == from_table([0, 1], [0, 0], [1, 2]).x.dtype == torch.get_default_dtype()
    assert from_table(torch.tensor([1e6, 1e6 + 1, 1e6 + 3]), [0, 0, 0], [1, 2, 3]).x.size(1) == 4
    none = {"edge_index": torch.empty(2, 0).long(), "edge_attr": torch.empty(0, 3), "edge_time": []}
    assert from_table([0, 1], [0, 0], [1, 2], **none).edge_attr.shape == (0, 3)


@pytest.mark.parametrize("step", [None, 0.4])
def test_times_that_are_rounded(step):
    time = torch.arange(500) * 0.4
    data = from_table(time, torch.zeros(500).long(), torch.arange(500.0), step=step)
    assert data.x[0, :, 0].tolist() == list(range(500))
    torch.testing.assert_close(data.frame_start[0], torch.arange(500).double() * 0.4, rtol=0, atol=1e-4)


def test_small_integers_do_not_overflow():
    data = from_table(torch.tensor([-100, 100], dtype=torch.int8), [0, 0], [1.0, 2.0])
    assert data.x.flatten().tolist() == [1, 2] and data.frame_start.tolist() == [[-100, 100]]


@pytest.mark.parametrize("kind", [int, np.int64, float, torch.tensor])
def test_where_frames_start_is_exact_whatever_its_type(kind):
    first = 1_700_000_000_000_000_000
    time = torch.tensor([1, 101, 301]) + first
    events = TemporalData(src=torch.zeros(3).long(), dst=torch.ones(3).long(), t=time)
    data = from_events(events, window=100, start=kind(first + (kind is not float)))
    assert data.edge_time.tolist() == [0, 1, 3]
    assert data.frame_start[0, 1].item() - first == 100 + (kind is not float)
    with pytest.raises(ValueError, match=r"a whole number as 'start' for times of torch\.int64 .* got 0\.5"):
        from_events(events, window=10**18, start=0.5)


def test_features_of_nodes_are_copies():
    x = torch.zeros(3, 2)
    events = TemporalData(src=torch.tensor([0, 1]), dst=torch.tensor([2, 2]), t=torch.tensor([10, 31]))
    data = from_events(events, window=10, x=x)
    data.x[:, 0] += 1
    assert not x.any() and not data.x[:, 1:].any()


def test_times_that_small_floats_can_not_tell_apart():
    start = 1_700_000_000_000_000_000
    time = torch.tensor([0, 3, 10]) + start
    data = from_table(time, [0, 1, 2], torch.zeros(3, 1), step=1)
    assert data.mask.nonzero()[:, 1].tolist() == [0, 3, 10]
    events = TemporalData(src=torch.arange(3), dst=torch.arange(3), t=time)
    assert from_events(events, window=5).edge_time.tolist() == [0, 0, 2]
    assert from_events(events, window=2.5).edge_time.tolist() == [0, 1, 4]


def test_a_table_with_edges_between_ids():
    rows = {"time": [0, 1, 1, 2], "node": [30, 10, 30, 20], "features": torch.randn(4, 2)}
    data = from_table(**rows, edge_index=[[30, 10], [10, 20]], edge_attr=[1.0, 2.0])
    assert data.edge_index.tolist() == [[2, 0], [0, 1]]
    assert data.edge_attr.tolist() == [[1], [2]]
    data = from_table(**rows, edge_index=[[30, 10], [10, 20]], edge_time=[2, 1], edge_attr=[1.0, 2.0])
    assert data.edge_index.tolist() == [[0, 2], [1, 0]]
    assert data.edge_time.tolist() == [1, 2]
    assert data.edge_attr.tolist() == [[2], [1]]


EDGES = {"edge_index": [[1], [2]]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": [0, 1]}, r"'time' \[R\], integer 'node' \[R\] and 'features' \[R, C\], R > 0"),
        ({"node": [1.0, 2.0, 1.0]}, r"integer 'node' \[R\]"),
        ({"time": [0, float("inf"), 1]}, "expected finite numbers as 'time'"),
        ({"time": [0, 10, 25]}, "expected 'time' on a grid of step 10 from 0, got 25: give a 'step' that divides"),
        ({"time": torch.tensor([0, 100, 200]) + 1.7e9}, "'time' as float64 or int64: torch.float32 cannot hold these"),
        ({"time": torch.tensor([0, 0.1, 0.2]) + 1e6}, r"it rounds 1e\+06 by up to 0.0596"),
        ({"time": np.array([0, 1, 2]) * 1e3 + 1.7e18}, "'time' as int64: torch.float64 cannot hold these times"),
        ({"features": [1, float("nan"), 2]}, "finite 'features', got NaN in 1 of 3 rows: leave these rows out"),
        ({"features": [1e300, 1, 1e300]}, "finite 'features', got infinity in 2 of 3 rows"),
        ({"node": ["a", "b", "a"]}, r"numbers as 'node', got <U1: names are numbered by np.unique\(node, return_inv"),
        ({"time": np.arange(3).astype("M8[s]")}, r"got datetime64\[s\]: dates are seconds as np.asarray\(time, 'dat"),
        ({"edge_index": [["a"], ["b"]]}, "'edge_index', got <U1: give the numbers of 'node', not names"),
        ({"step": -1}, "expected 'step' to be a positive number, got -1"),
        ({"time": [5, 10, 5]}, "expected every node once in a frame, got node 1 twice at time 5"),
        ({"time": [0, 1, 10**9]}, "on a grid, got 1,000,000,001 frames of step 1 for 3 rows: give 'step', or round"),
        ({"time": [0, 1, 10**12], "step": 1}, "nodes times frames, got 2 and 1000000000001 with step=1"),
        ({"edge_index": [[1], [7]]}, "expected 'edge_index' to hold ids of nodes, got 7"),
        ({**EDGES, "edge_time": [9]}, "expected 'edge_time' from 0 to 2, got 9"),
        ({**EDGES, "edge_time": [0.5]}, "expected 'edge_time' on a grid of step 1 from 0, got 0.5"),
        ({**EDGES, "edge_time": [0, 1]}, "expected 'edge_time' with 1 rows"),
        ({"edge_time": [0]}, "expected 'edge_index' with 'edge_time' or 'edge_attr', got none"),
    ],
)
def test_wrong_tables(options, message):
    with pytest.raises(ValueError, match=message):
        from_table(**{"time": [0, 1, 2], "node": [1, 2, 1], "features": [1.0, 2.0, 3.0], **options})


def test_narrow_ids_of_events_do_not_overflow():
    src, dst, t = torch.tensor([[0, 40, 7], [20, 3, 40], [0, 9, 4]])
    wide = from_events(TemporalData(src=src, dst=dst, t=t), window=1)
    narrow = from_events(TemporalData(src=src.to(torch.uint8), dst=dst.to(torch.int8), t=t), window=1)
    assert all(torch.equal(narrow[name], wide[name]) for name in ("x", "mask", "edge_index", "edge_time"))


def test_events_lie_in_the_frames_that_their_times_say():
    """Also where a quotient of floats is rounded to the other side."""
    for window in (0.1, 0.3, 0.7, 1.0):
        t = torch.arange(60).double() * window / 2
        ends = torch.zeros(60, dtype=torch.long)
        data = from_events(TemporalData(src=ends, dst=ends, t=t), window=window)
        start = data.frame_start[0].double()[data.edge_time]
        assert (start <= data.edge_timestamp).all()
        assert (data.edge_timestamp < (data.edge_time + 1) * window).all()
