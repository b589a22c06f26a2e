"""A node that hears all and is heard by all: there when anybody is, one per graph, and nothing else changes."""

import pytest
import torch
from changing_series import C, N, T, make_rstg, make_series, run
from laws import assert_batch_equals_singles, assert_permutation_equivariant
from torch_geometric.data import Batch, Data

from rstg_pyg.models import Forecaster, masked_error
from rstg_pyg.temporal import VirtualNode, Windows, slice_frames

add = VirtualNode()


def test_who_hears_whom_and_when():
    for static in (False, True):
        data = make_series(static=static)
        data.mask[:, 3] = False
        given = data.clone()
        out = add(data)
        assert all(torch.equal(value, given[name]) for name, value in data)
        new = out.edge_index[:, data.edge_index.size(1) :]
        assert torch.equal(out.edge_index[:, : data.edge_index.size(1)], data.edge_index)
        if static:
            expected = {(node, N) for node in range(N)}
            found = set(map(tuple, new.T.tolist()))
        else:
            expected = {(*place, N) for place in data.mask.T.nonzero().tolist()}
            time = out.edge_time[data.edge_time.size(0) :]
            found = set(map(tuple, torch.cat([time[None], new]).T.tolist()))
        assert found == expected | {(*rest, node, hub) for *rest, hub, node in expected}
        assert new.size(1) == len(found)
        assert torch.equal(out.mask[N], data.mask.any(0))
        assert not out.x[N].any()
        assert not out.edge_attr[data.edge_attr.size(0) :].any()
        assert out.virtual_mask.nonzero().tolist() == [[N]]


def test_rows_of_nobody():
    data = add(
        make_series(pe=torch.ones(N, 3), node_id=torch.arange(N), y=torch.ones(N, 2), y_mask=torch.ones(N, 2) > 0)
    )
    assert (data.pe[N].tolist(), data.node_id[N], data.y[N].tolist()) == ([0, 0, 0], -1, [0, 0])
    assert not data.y_mask[N].any()
    alone = add(Data(x=torch.ones(3, 2, 1)))
    assert alone.edge_index.tolist() == [[0, 1, 2, 3, 3, 3], [3, 3, 3, 0, 1, 2]]


def test_any_two_nodes_hear_each_other_over_two_stages():
    path = torch.stack([torch.arange(N - 1), torch.arange(1, N)])
    data = Data(x=torch.randn(N, T, C, dtype=torch.float64, requires_grad=True), edge_index=path)
    rstg = make_rstg(edge_dim=None, stages="space-only")
    for graph, heard in ((data, False), (add(data), True)):
        data.x.grad = None
        rstg(graph.x, graph.edge_index)[0][N - 1].sum().backward()
        assert bool(data.x.grad[0].any()) == heard


def test_the_laws_of_graphs_that_change_hold():
    rstg = make_rstg()
    graphs = [add(make_series(num)) for num in (N, 4)]
    assert_batch_equals_singles(lambda data: run(rstg, data), graphs)
    batch = add(Batch.from_data_list([make_series(num) for num in (N, 4)]))
    assert (batch.num_graphs, batch.virtual_mask.nonzero().flatten().tolist()) == (2, [N, N + 5])
    data, more = make_series(), torch.full((2, T, C), float("nan"), dtype=torch.float64)
    absent = make_series()
    absent.update(data.to_dict())
    absent.x, absent.mask = torch.cat([data.x, more]), torch.cat([data.mask, torch.zeros(2, T) > 0])
    torch.testing.assert_close(run(rstg, add(absent))[:N], run(rstg, add(data))[:N])
    torch.testing.assert_close(run(rstg, add(absent))[-1], run(rstg, add(data))[-1])


def test_another_order_of_nodes_and_frame_by_frame():
    plain = make_rstg(edge_dim=None)
    x = torch.randn(N, T, C, dtype=torch.float64)

    def of_nodes(x, edge_index, pe):
        data = add(Data(x=x, edge_index=edge_index))
        return plain(data.x, data.edge_index)[0][:-1]

    assert_permutation_equivariant(of_nodes, x, torch.randint(N, (2, 20)))
    rstg, data, state, outs = make_rstg(), make_series(), None, []
    for t in range(T):
        frame = add(slice_frames(data, t, t + 1))
        options = {"edge_time": frame.edge_time, "mask": frame.mask}
        out, state = rstg(frame.x, frame.edge_index, frame.edge_attr, state=state, **options)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), run(rstg, add(data)))


def test_nobody_asks_it_for_a_forecast():
    windows = Windows(make_series(num_edges=300), history=6, horizon=2)
    batch = add(Batch.from_data_list([windows[0], windows[3]]))
    model = Forecaster(C, horizon=2, channels=8, num_stages=1, edge_dim=2).double()
    prediction = model(batch.x, batch.edge_index, batch.edge_attr, edge_time=batch.edge_time, mask=batch.mask)
    error = masked_error(prediction, batch.y, batch.y_mask)
    real = ~batch.virtual_mask
    torch.testing.assert_close(error, masked_error(prediction[real], batch.y[real], batch.y_mask[real]))


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="expected a graph without a virtual node, got 'virtual_mask'"):
        add(add(make_series()))
    with pytest.raises(ValueError, match=r"expected 'x' of shape \[N, T, C\], got \[3, 2\]"):
        add(Data(x=torch.ones(3, 2)))
    batch = Batch.from_data_list([make_series(), make_series()])
    batch.extra = torch.ones(batch.num_nodes, 2)
    with pytest.raises(ValueError, match="a batch of what its graphs hold, got 'extra' beside"):
        add(batch)
