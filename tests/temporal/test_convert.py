"""Snapshots, signals, and back."""

import pytest
import torch
from changing_series import assert_same, make_rstg, make_series, run
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from rstg_pyg.temporal import from_signal, from_snapshots, pad, to_snapshots


def snapshot(ids=None, num_nodes=4, num_edges=6):
    num_nodes = num_nodes if ids is None else len(ids)
    data = Data(
        x=torch.randn(num_nodes, 3),
        edge_index=torch.randint(max(num_nodes, 1), (2, num_edges if num_nodes else 0)),
        z=torch.randint(5, (num_nodes,)),
        y=torch.randn(1, 2),
    )
    data.edge_attr = torch.randn(data.edge_index.size(1), 2)
    data.edge_label = torch.randn(data.edge_index.size(1))
    if ids is not None:
        data.node_id = torch.tensor(ids, dtype=torch.int64)
    return data


@pytest.mark.parametrize(
    "ids",
    [[None] * 4, [[2, 5, 9], [-7, 5], [], [5, 9, 40, 41]], [[3], [4], [3], [4]]],
    ids=["fixed", "changing", "one"],
)
def test_snapshots_and_back(ids):
    snapshots = [snapshot(of) for of in ids]
    data = from_snapshots(snapshots)
    for before, after in zip(snapshots, to_snapshots(data), strict=True):
        assert_same(before, after)
    assert_same(data, from_snapshots(to_snapshots(data)))
    assert data.y.shape == (data.num_nodes if ids[0] == [3] else 1, 4, 2)  # One row of one node is the node's.
    assert (data.edge_time.diff() >= 0).all()
    if ids[0] is not None:
        assert not data.x[~data.mask].any()


def test_what_is_of_the_graph_stays_so_where_there_is_one_node():
    nobody = Data(x=torch.zeros(0, 2), node_id=torch.empty(0, dtype=torch.int64), edge_index=torch.empty(2, 0).long())
    one = Data(x=torch.ones(1, 2), node_id=torch.tensor([7]), edge_index=torch.empty(2, 0).long())
    for number, snapshot_ in enumerate((one, nobody)):
        snapshot_.weather = torch.full((1, 3), float(number))
    back = to_snapshots(from_snapshots([one, nobody]))
    assert [snapshot_.weather.tolist() for snapshot_ in back] == [[[0.0] * 3], [[1.0] * 3]]


def test_ids_in_any_order_give_the_same_graph():
    first, second = snapshot([5, 2, 9]), snapshot([9, 5])
    data = from_snapshots([first, second])
    assert data.node_id.tolist() == [2, 5, 9]
    assert torch.equal(data.x[[1, 0, 2], 0], first.x)
    assert torch.equal(data.x[[2, 1], 1], second.x)
    ends = data.node_id[data.edge_index]
    assert torch.equal(ends[:, data.edge_time == 0], first.node_id[first.edge_index])
    assert torch.equal(ends[:, data.edge_time == 1], second.node_id[second.edge_index])


@pytest.mark.parametrize("static", [True, False])
def test_to_snapshots_cuts_any_graph_that_changes(static):
    data = make_series(static=static)
    back = from_snapshots(to_snapshots(data))
    rstg = make_rstg()
    torch.testing.assert_close(run(rstg, back), run(rstg, data)[back.node_id])


def test_edges_of_a_frame_without_a_mask():
    data = make_series()
    del data.mask
    for t, frame in enumerate(to_snapshots(data)):
        assert torch.equal(frame.edge_index, data.edge_index[:, data.edge_time == t])
        assert "node_id" not in frame


def test_static_edges_serve_every_frame():
    edges = torch.randint(4, (2, 6))
    snapshots = [Data(x=torch.randn(4, 3), edge_index=edges.clone(), edge_attr=torch.ones(6)) for _ in range(5)]
    data = from_snapshots(snapshots, static_edges=True)
    assert "edge_time" not in data
    assert data.edge_attr.shape == (6, 1)
    for number, frame in enumerate(snapshots):
        frame.edge_attr = torch.full((6, 1), float(number))
        frame.edge_label = torch.full((6,), number)
    data = from_snapshots(snapshots, static_edges=True)
    assert data.edge_attr.shape == data.edge_label.shape == (6, 5, 1)
    for frame in snapshots:
        frame.edge_label = frame.edge_label.unsqueeze(1)
    for before, after in zip(snapshots, to_snapshots(data), strict=True):
        assert_same(before, after)


class Signal:
    """As those of pytorch-geometric-temporal: with the edges of all frames, or one list for each."""

    def __init__(self, snapshots, static):
        self.snapshots = snapshots
        if static:
            self.edge_index = snapshots[0].edge_index.numpy()
        else:
            self.edge_indices = [snapshot.edge_index.numpy() for snapshot in snapshots]

    def __iter__(self):
        return iter(self.snapshots)


@pytest.mark.parametrize("static", [True, False])
def test_signals(static):
    fixed = torch.randint(5, (2, 7))
    frames = [
        Data(
            x=torch.randn(5, 2, 4),
            edge_index=fixed if static else torch.randint(5, (2, 7)),
            edge_attr=torch.rand(7),
            y=torch.randn(5),
        )
        for _ in range(6)
    ]
    data = from_signal(Signal(frames, static))
    assert data.x.shape == (5, 6, 8)
    assert data.y.shape == (5, 6)
    assert data.edge_attr.shape == ((7, 6, 1) if static else (42, 1))
    assert ("edge_time" in data) != static
    assert frames[0].x.shape == (5, 2, 4)
    for frame in frames:
        frame.batch, frame.edge_index = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([[0, 2, 3], [1, 4, 3]])
        frame.edge_attr = torch.rand(3)
    batch = from_signal(Signal(frames, static))
    assert isinstance(batch, Batch)
    assert batch.num_graphs == 2
    assert torch.equal(batch.x, data.x)
    assert torch.equal(batch[1].edge_index[:, :2], torch.tensor([[0, 1], [2, 1]]))


@pytest.mark.parametrize("static", [True, False])
def test_clips_of_different_lengths_batch(static):
    clips = [make_series(num_nodes, static=static) for num_nodes in (3, 5, 9)]
    for clip, length in zip(clips, (12, 4, 7), strict=True):
        clip.x, clip.mask = clip.x[:, :length], clip.mask[:, :length]
        if not static:
            clip.edge_time %= length
    rstg = make_rstg()
    out = run(rstg, next(iter(DataLoader([pad(clip, 12) for clip in clips], batch_size=3))))
    for clip, own in zip(clips, out.split([3, 5, 9]), strict=True):
        length = clip.x.size(1)
        torch.testing.assert_close(own[:, :length], run(rstg, clip))
        assert not own[:, length:].any()


def wrong(**changes):
    frame = snapshot([1, 2, 3])
    frame.update(changes)
    return frame


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [
        ([], "expected one snapshot or more, got none"),
        ([None], "expected snapshot 0 to be a Data, got None"),
        ([wrong(x=torch.zeros(3))], r"snapshot 0 with 'x' of shape \[n, C\], got \[3\]"),
        ([wrong(x=torch.zeros(3, 2)), snapshot([1])], "expected 'x' alike in all snapshots"),
        ([wrong(), wrong(node_id=torch.tensor([4, 7, 4]))], "every node once in a frame, got id 4 twice in snapshot 1"),
        ([wrong(node_id=torch.tensor([4, 7]))], r"int64 'node_id' of shape \[3\] in snapshot 0, got .*\[2\]"),
        ([wrong(node_id=torch.ones(3))], r"int64 'node_id' of shape \[3\] in snapshot 0"),
        (
            [wrong(), wrong(edge_index=torch.tensor([[0], [3]]))],
            "snapshot 1: expected 'edge_index' within 0 to 2, got 3",
        ),
        ([wrong(), snapshot()], "expected snapshot 1 with .*'node_id'.*, as the first"),
        ([snapshot(), snapshot(num_nodes=5)], r"of as many nodes, or with ids in 'node_id', got \[4, 5\] nodes"),
        ([wrong(z=torch.zeros(2))], "'z' with one row per node, per edge or in all.* got 2 in snapshot 0 of 3 nodes"),
        ([wrong(edge_time=torch.zeros(1).long())], "without 'edge_time', which is made of their order"),
        ([wrong(mask=torch.ones(3).bool())], "without 'mask', which is made of their order and ids: rename it"),
        ([wrong(z="red")], "expected a tensor as 'z' of snapshot 0, got str"),
    ],
)
def test_snapshots_that_do_not_fit(snapshots, message):
    with pytest.raises(ValueError, match=message):
        from_snapshots(snapshots)


def test_what_is_no_signal_or_not_static():
    with pytest.raises(ValueError, match="expected a signal with 'edge_index' or 'edge_indices', got "):
        from_signal([snapshot(), snapshot()])
    with pytest.raises(ValueError, match="with static_edges=True, got edges that differ"):
        from_snapshots([snapshot(), snapshot()], static_edges=True)
    with pytest.raises(ValueError, match="with static_edges=True, got ids"):
        from_snapshots([snapshot([1])] * 2, static_edges=True)
