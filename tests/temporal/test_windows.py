"""Windows over a series, and their parts for large graphs."""

import warnings

import pytest
import torch
import torch_geometric.typing
from cases import case
from changing_series import N, T, make_rstg, make_series, run
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader, NeighborLoader

from rstg_pyg.temporal import NeighborWindows, Series, Windows, pad, sample_neighbors, slice_frames


def same_memory(value, other):
    return value.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def test_node_tensors_are_views_and_edges_slices():
    data = make_series(pe=torch.randn(N, 3), y=torch.randn(N, T))
    windows = Windows(data, history=4, horizon=2, stride=3)
    series = windows.series.data
    assert len(windows) == 3
    assert same_memory(series.x, data.x)
    for number, window in enumerate(windows):
        start = 3 * number
        assert window.first_frame == start
        assert torch.equal(window.x, data.x[:, start : start + 4])
        assert torch.equal(window.y, data.y[:, start + 4 : start + 6])
        assert torch.equal(window.mask, data.mask[:, start : start + 4])
        assert torch.equal(window.y_mask, data.mask[:, start + 4 : start + 6])
        assert window.pe is data.pe
        for name in ("x", "mask", "y", "edge_index", "edge_attr"):
            assert same_memory(window[name], series[name]), name
        own = (data.edge_time >= start) & (data.edge_time < start + 4)
        order = data.edge_time[own].argsort(stable=True)
        assert torch.equal(window.edge_index, data.edge_index[:, own][:, order])
        assert torch.equal(window.edge_attr, data.edge_attr[own][order])
        assert torch.equal(window.edge_time, data.edge_time[own][order] - start)
    assert torch.equal(windows[-1].x, windows[2].x)
    with pytest.raises(IndexError, match="number of a window within 0 to 2, got 3"):
        windows[3]


def test_a_set_of_edges_that_serves_every_frame_is_shared():
    data = make_series(static=True)
    window = Windows(data, history=4, horizon=2)[5]
    assert window.edge_index is data.edge_index
    assert window.edge_attr is data.edge_attr
    data.edge_attr = torch.randn(80, T, 2)
    assert torch.equal(Windows(data, history=4, horizon=2)[5].edge_attr, data.edge_attr[:, 5:9])


@pytest.mark.parametrize(("gap", "start"), [(0, 4), (2, 6), (-1, 3), (-4, 0)])
def test_the_target_is_where_it_is_asked_for(gap, start):
    data = make_series()
    windows = Windows(data, history=4, horizon=3, gap=gap)
    assert torch.equal(windows[1].y, data.x[:, start + 1 : start + 4])
    assert windows[-1].y.size(1) == 3
    assert len(windows) == T - max(4, start + 3) + 1


@pytest.mark.parametrize("static", [True, False])
def test_a_batch_of_windows_gives_what_each_gives_alone(static):
    windows = Windows(make_series(static=static), history=4, horizon=2, stride=2)
    rstg, batch = make_rstg(), next(iter(DataLoader(windows, batch_size=4)))
    assert batch.first_frame.tolist() == [0, 2, 4, 6]
    out = run(rstg, batch)
    assert out.shape[0] == batch.y.size(0) == batch.y_mask.size(0) == 4 * N
    for window, own in zip(windows, out.split(N), strict=False):
        torch.testing.assert_close(own, run(rstg, window))


@pytest.mark.parametrize("static", [True, False])
def test_nodes_that_are_there_alone(static):
    data = make_series(static=static)
    data.mask[::2, :6] = False
    rstg = make_rstg()
    whole = Windows(data, history=4, horizon=2)[1]
    window = Windows(data, history=4, horizon=2, present_only=True)[1]
    there = whole.mask.any(1)
    assert window.num_nodes == int(there.sum()) < N
    assert torch.equal(window.y, whole.y[there])
    assert torch.equal(window.y_mask, whole.y_mask[there])
    torch.testing.assert_close(run(rstg, window), run(rstg, whole)[there])
    batch = next(iter(DataLoader(Windows(data, 4, 2, present_only=True), batch_size=3)))
    torch.testing.assert_close(run(rstg, batch)[batch.batch == 1], run(rstg, window))


def test_targets_of_the_graph():
    data = make_series(y=torch.randn(1, T, 2))
    batch = next(iter(DataLoader(Windows(data, history=4, horizon=2), batch_size=3)))
    assert torch.equal(batch.y, torch.stack([data.y[0, start + 4 : start + 6] for start in range(3)]))


@pytest.mark.parametrize("options", [{}, {"y": torch.randn(1, T, 2)}])
def test_targets_without_a_mask_are_all_there(options):
    data = make_series(**options)
    del data.mask
    window = Windows(data, history=4, horizon=2)[1]
    assert window.y_mask.shape == window.y.shape[:2] and window.y_mask.all()


def test_a_class_of_ones_own_says_how_its_windows_batch():
    class Asked(Data):
        def __inc__(self, key, value, *args, **kwargs):
            return self.num_nodes if key == "asked_node" else super().__inc__(key, value, *args, **kwargs)

    data = Asked(x=torch.randn(3, 9, 1), edge_index=torch.tensor([[0], [1]]), asked_node=torch.tensor([2]))
    batch = next(iter(DataLoader(Windows(data, 3, 1), batch_size=3)))
    assert batch.asked_node.tolist() == [2, 5, 8]


def test_a_slice_is_a_view():
    windows = Windows(make_series(), history=4, horizon=2)
    for items in (windows, NeighborWindows(windows, [-1], num_seeds=4)):
        assert [item.first_frame for item in items[1:-1:2]] == [
            items[i].first_frame for i in range(1, len(items) - 1, 2)
        ]


def test_sizes_with_two_readings_bring_a_warning():
    """Two rows are nodes or edges, eight numbers are of frames or of none."""
    data, edges = Data(x=torch.zeros(2, 8, 1), y=torch.zeros(2, 8)), torch.zeros(2, 2).long()
    for more, cut, message in [
        ({"lat": torch.zeros(2, 8)}, lambda data: slice_frames(data, 0, 4), r"'lat' .* \[2, 1, 8\] .* \[2, 8, 1\]"),
        ({"lat": torch.zeros(2, 8)}, lambda data: pad(data, 9), "'lat' of shape .2, 8. is read as one number for each"),
        (
            {"weight": torch.zeros(2), "edge_index": edges},
            lambda data: slice_frames(data, 0, 4),
            "'weight' has 2 rows, .* put 'edge' into its name",
        ),
    ]:
        with case(message), pytest.warns(UserWarning, match=message) as caught:
            cut(data.clone().update(more))
        assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clear = {"node_lat": torch.zeros(2, 1, 8), "node_heat": torch.zeros(2, 8, 1), "edge_weight": torch.zeros(2)}
        Windows(data.update({**clear, "edge_index": edges}), 2, 2)


def test_frames_of_a_series_are_those_of_its_windows():
    data = make_series()
    later = slice_frames(data, 3, T)
    for name, value in Windows(later, 4, 2)[1].to_dict().items():
        other = Windows(data, 4, 2)[4][name]
        assert name == "first_frame" or torch.equal(value, other)


def test_rows_and_frames_of_attributes():
    data = Data(x=torch.zeros(4, 5, 2), edge_index=torch.zeros(2, 4).long(), edge_time=torch.zeros(4).int())
    data.edge_attr, data.pe, data.pos = torch.zeros(4, 5), torch.zeros(4, 5), torch.zeros(4, 5, 2)
    data.node_label, data.y, data.name = torch.zeros(4, 5).int(), torch.zeros(1, 5), "clip"
    series = Series(data)
    assert series.timed == {"x", "pos", "node_label", "y"}
    assert [name for name, rows in series.rows.items() if rows == "edge"] == ["edge_index", "edge_time", "edge_attr"]
    assert series.rows["y"] == series.rows["name"] == "graph"
    assert slice_frames(data, 1, 3).pe is data.pe
    assert pad(data, 7).node_label.shape == (4, 7)


# Large graphs.


def large_series(static):
    """A ring of 40 nodes with chords, on which two hops are few nodes."""
    ring = torch.arange(40)
    edges = torch.cat([torch.stack([ring, (ring + step) % 40]) for step in (1, 39, 2)], 1)
    data = make_series(40, edges.size(1) * (1 if static else 5), static)
    data.edge_index = edges if static else edges.repeat(1, 5)
    return data


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("form", ["all-temp", "homogeneous"])
def test_seeds_get_what_the_whole_graph_gives_them(static, flow, form):
    windows = Windows(large_series(static), history=5, horizon=2, stride=4)
    rstg = make_rstg(flow=flow, stages=form, edge_dim=None if form == "homogeneous" else 2)
    parts = NeighborWindows(windows, [-1, -1], num_seeds=3, nodes=torch.tensor([7, 0, 20, 33]), flow=flow)
    assert len(parts) == 2 * len(windows) == 4
    for number, part in enumerate(parts):
        whole = windows[number // 2]
        if form == "homogeneous":
            whole.edge_attr = part.edge_attr = None
        assert sorted(part.n_id[part.seed_mask].tolist()) == ([0, 7, 20], [33])[number % 2]
        assert part.num_nodes < 25
        assert torch.equal(part.y, whole.y[part.n_id])
        torch.testing.assert_close(run(rstg, part)[part.seed_mask], run(rstg, whole)[part.n_id][part.seed_mask])


@pytest.mark.skipif(
    not (torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE),
    reason="neither pyg-lib nor torch-sparse is installed",
)
@pytest.mark.parametrize("static", [True, False])
def test_a_window_goes_through_the_loader_of_pyg(static):
    window, rstg = Windows(large_series(static), history=5, horizon=2)[0], make_rstg(edge_dim=2)
    whole = run(rstg, window)
    for part in NeighborLoader(window, [-1, -1], batch_size=3, input_nodes=torch.tensor([7, 0, 20, 33])):
        assert part.num_nodes < 25
        assert torch.equal(part.y, window.y[part.n_id])
        seeds = part.n_id[: part.batch_size]
        torch.testing.assert_close(run(rstg, part)[: part.batch_size], whole[seeds])


def test_what_is_of_the_graph_is_not_cut_where_a_window_has_as_many_edges():
    data = Data(x=torch.randn(10, 6, 1), edge_index=torch.randint(10, (2, 14)), centre=torch.arange(7.0))
    data.edge_time = torch.arange(14) // 7 * 3  # the first window has seven
    for part in NeighborWindows(Windows(data, 3, 1), [1, 1], num_seeds=5):
        assert part.centre.shape == (7,)


def test_parts_batch():
    parts = NeighborWindows(Windows(large_series(False), 5, 2), [4, 2], num_seeds=8)
    batch = next(iter(DataLoader(parts, batch_size=5)))
    assert int(batch.seed_mask.sum()) == 40
    out = run(make_rstg(), batch)
    torch.testing.assert_close(out[batch.ptr[1] : batch.ptr[2]], run(make_rstg(), batch[1]))


@pytest.mark.parametrize("static", [True, False])
def test_a_node_keeps_at_most_so_many_edges_in_a_frame(static):
    data = large_series(static)
    part = sample_neighbors(data, torch.arange(40), [2])
    place = part.edge_index[1] * T + (0 if static else part.edge_time)
    _, kept = place.unique(return_counts=True)
    _, given = (data.edge_index[1] * T + (0 if static else data.edge_time)).unique(return_counts=True)
    assert torch.equal(kept, given.clamp(max=2))
    assert sample_neighbors(data, torch.tensor([3]), [0]).num_nodes == 1


SERIES = make_series()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Windows(SERIES, 10, 3), ValueError, "expected at least 13 frames, got 12"),
        (lambda: Windows(SERIES, 0, 3), ValueError, "expected 'history' to be a positive int, got 0"),
        (lambda: Windows(SERIES, 4, 3, gap=-5), ValueError, "expected 'gap' to be an int of at least -4, got -5"),
        (lambda: Windows(make_series(y=torch.zeros(N)), 4, 3), ValueError, r"expected 'y' of shape \[N, T, ...\]"),
        (lambda: Windows(None, 4, 3), ValueError, "expected a Data of a graph that changes, got None"),
        (lambda: Windows(Data(x=torch.zeros(3, 2)), 1, 1), ValueError, r"'x' of shape \[N, T, C\], got \[3, 2\]"),
        (lambda: slice_frames(SERIES, 3, 13), ValueError, "'stop' to be an integer within 3 to 12, got 13"),
        (lambda: slice_frames(SERIES, 3, None), ValueError, "'stop' to be an integer within 3 to 12, got None"),
        (
            lambda: Series(Data(x=torch.zeros(3, 5, 1), edge_index=torch.tensor([[0], [4]]))),
            ValueError,
            r"within 0 to 2, got 4, as 'x' of shape \[3, 5, 1\] has 3 nodes \(nodes come first\)",
        ),
        (lambda: pad(SERIES, 5), ValueError, "expected at most num_frames=5 frames, got 12"),
        (
            lambda: Series(make_series().update({"mask": torch.ones(N, T)})),
            ValueError,
            r"bool 'mask' of shape \[9, 12\]",
        ),
        (
            lambda: Series(make_series().update({"edge_time": torch.ones(3)})),
            ValueError,
            r"'edge_time' of shape \[80\]",
        ),
        (
            lambda: Series(make_series().update({"edge_time": torch.full((80,), 12)})),
            ValueError,
            "within 0 to 11, got 12",
        ),
        (lambda: Series(make_series().update({"edge_index": torch.ones(2, 80)})), ValueError, "integer 'edge_index'"),
        (lambda: sample_neighbors(SERIES, torch.tensor([9]), [1]), IndexError, "'nodes' within 0 to 8, got 9"),
        (lambda: sample_neighbors(SERIES, torch.ones(2), [1]), ValueError, r"integer 'nodes' of shape \[S\]"),
        (lambda: sample_neighbors(SERIES, torch.tensor([0]), [-2]), ValueError, "one int of at least -1 per hop"),
        (
            lambda: NeighborWindows(SERIES, [1], 2),
            ValueError,
            "expected 'windows' to be Windows of all nodes, got Data",
        ),
        (
            lambda: NeighborWindows(Windows(SERIES, 4, 3, present_only=True), [1], 2),
            ValueError,
            "got some with present_only",
        ),
    ],
)
def test_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["edge_index", "edge_time"])
def test_narrow_integers_are_refused(name):
    """Bytes would be taken for a mask, and the difference of two wraps around."""
    data = Data(x=torch.zeros(3, 4, 1), edge_index=torch.tensor([[0, 1, 2]] * 2), edge_time=torch.tensor([3, 0, 2]))
    data[name] = data[name].to(torch.uint8)
    with pytest.raises(
        ValueError, match=f"expected '{name}' of type torch.int64 or torch.int32, got torch.uint8 .*{name}.long"
    ):
        Windows(data, 2, 1)
