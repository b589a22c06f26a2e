"""The rows of the tables of forecasts: each takes what the data sets have, and obeys the laws of graphs that change."""

import pytest
import torch

from rstg_pyg.models import GRAPH_ROWS, Forecaster, GraphNetwork, build_graph_row
from rstg_pyg.models.graph_rows import ConvRNN, Mean

N, T, H, C = 6, 5, 3, 2
NET = GraphNetwork(in_channels=C, history=T, horizon=H, channels=8, heads=2, edge_dim=1, pe_channels=2)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 5], [1, 2, 3, 4, 0, 2, 1]])


@pytest.fixture(params=GRAPH_ROWS)
def row(request):
    return make(request.param).double().eval()


def make(name):
    model = build_graph_row(name, NET)
    if name == "autoregression":
        torch.nn.init.normal_(model.lin.weight)
    return model


def inputs():
    mask = torch.rand(N, T) < 0.7
    mask[0], mask[1] = True, False
    given = {"edge_attr": torch.rand(EDGES.size(1), 1), "pe": torch.randn(N, 2)}
    given = {name: value.double() for name, value in given.items()}
    return torch.randn(N, T, C, dtype=torch.float64), {**given, "edge_time": torch.arange(7) % T, "mask": mask}


def test_absent_nodes_do_not_matter_and_batches_are_singles(row):
    x, given = inputs()
    mask = given["mask"]
    out = row(x, EDGES, **given)
    assert out.shape == (N, H, C) and not out[1].any() and out[0].any()
    hidden = torch.where(mask[..., None], x, float("nan")).requires_grad_()
    again = row(hidden, EDGES, **given)
    torch.testing.assert_close(again, out)
    again.sum().backward()
    assert not hidden.grad.isnan().any()
    twice = {name: torch.cat([value, value]) for name, value in given.items()}
    both = row(torch.cat([x.flip(0), x]), torch.cat([EDGES, EDGES + N], 1), **twice)
    torch.testing.assert_close(both[N:], out)


def test_all_there_all_the_time_is_a_graph_that_does_not_change(row):
    x, given = inputs()
    static = {name: given[name] for name in ("edge_attr", "pe")}
    edges, attr = EDGES.repeat(1, T), given["edge_attr"].repeat(T, 1)
    changing = {"edge_time": torch.arange(T).repeat_interleave(7), "mask": torch.ones(N, T, dtype=torch.bool)}
    torch.testing.assert_close(row(x, edges, attr, static["pe"], **changing), row(x, EDGES, **static))


def test_who_sends_messages_and_who_remembers():
    """By what a forecast depends on: a neighbour's last frame, a node's own first one."""
    heard, remembers = set(), set()
    for name in GRAPH_ROWS:
        x = torch.randn(N, T, C).requires_grad_()
        static = {"edge_attr": torch.rand(7, 1), "pe": torch.randn(N, 2)}
        make(name)(x, EDGES, **static)[1].sum().backward()
        heard |= {name} if x.grad[0].any() else set()
        remembers |= {name} if x.grad[1, 0].any() else set()
    assert heard == set(GRAPH_ROWS) - {"autoregression", "gru", "time-only"}
    assert remembers >= {"autoregression", "gru", "time-only", "gatv2-gru", "1-temp-stage", "all-temp-stages"}


def test_the_mean_of_a_stream_is_that_of_the_clip():
    x, mean, state = torch.randn(4, T, 3), Mean(), None
    whole, last = mean(x)
    torch.testing.assert_close(whole[:, 2], x[:, :3].mean(1))
    for t in range(T):
        out, state = mean(x[:, t : t + 1], state)
        torch.testing.assert_close(out[:, 0], whole[:, t])
    torch.testing.assert_close(state, last)
    lengths = torch.tensor([5, 3, 2, 1])
    _, (total, count) = mean(x, None, lengths)
    torch.testing.assert_close(total[1] / count[1], x[1, :3].mean(0))


def test_a_cell_by_name_and_bad_names():
    lstm = build_graph_row("all-temp-stages:lstm", NET)
    assert isinstance(lstm.rstg.last_time_stage.rnn, torch.nn.LSTM)
    for name, message in [
        ("all-temp", "did you mean"),
        ("all-temp-stages:rnn", "'rnn' to be one of"),
        ("space-only:gru", "a row with a recurrent cell before ':gru', got 'space-only'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_graph_row(name, NET)
    with pytest.raises(ValueError, match="a multiple of heads=3, got 8"):
        ConvRNN(None, 8, heads=3)
    with pytest.raises(TypeError, match="an option of Forecaster, got 'heads'"):
        Forecaster(2, 3, recurrence=lambda channels: None, heads=2)
