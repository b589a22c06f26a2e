"""A forecaster on a graph: what it predicts, of whom, and what its errors count."""

import pytest
import torch
from cases import case

from rstg_pyg.models import Forecaster, PairForecaster, masked_error
from rstg_pyg.models.graph_rows import LinearAutoregression
from rstg_pyg.ops import GraphIndex

N, T, C, H = 5, 4, 2, 3
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
NAN = float("nan")


def make(**options):
    torch.manual_seed(3)
    return Forecaster(C, H, channels=8, num_stages=2, rnn="gru", **options).double()


def series(*inner):
    return torch.randn(N, *inner, T, C, dtype=torch.float64)


def changing():
    mask = torch.rand(N, T) < 0.7
    mask[0], mask[1] = True, False
    return {"edge_time": torch.arange(6) % T, "mask": mask}


def test_feeding_back_is_running_on_from_its_own_predictions():
    model, x = make(feed_back=True), series(2)
    expected, state = [], None
    for t in range(T + H - 1):
        frame = x[..., t, :] if t < T else expected[-1]
        h, state = model.rstg(model.lin_in(frame).unsqueeze(-2), EDGES, state=state)
        if t >= T - 1:
            expected.append(frame + model.lin_out(h[..., -1, :]))
    torch.testing.assert_close(model(x, EDGES), torch.stack(expected, -2))


@pytest.mark.parametrize("feed_back", [False, True])
@pytest.mark.parametrize("from_last", [False, True])
def test_a_stream_predicts_what_the_clip_does(feed_back, from_last):
    model, x, state = make(feed_back=feed_back, from_last=from_last), series(2), None
    for t in range(T):
        prediction, state = model.step(x[..., t, :], state, EDGES)
        torch.testing.assert_close(prediction, model(x[..., : t + 1, :], EDGES))


@pytest.mark.parametrize("feed_back", [False, True])
@pytest.mark.parametrize("stages", ["all-temp", "homogeneous"])
def test_a_stream_of_nodes_that_come_and_go_predicts_what_the_clip_does(feed_back, stages):
    """Also of those that are absent now, whom others hear in what is fed back, and of frames in one buffer."""
    model, x, mask, state = make(feed_back=feed_back, stages=stages), series(2), torch.rand(N, 2, T) < 0.6, None
    mask[0], mask[1, :, -1] = False, False
    mask[..., 0] = True
    frame = torch.empty(N, 2, C, dtype=x.dtype)
    for t in range(T):
        there = mask[..., t] if t else None  # without a mask all are there
        prediction, state = model.step(frame.copy_(x[..., t, :]), state, EDGES, mask=there)
        expected = model(x[..., : t + 1, :], EDGES, mask=mask[..., : t + 1])
        torch.testing.assert_close(prediction, expected)


def test_edges_are_given_to_what_is_fed_back_in_every_form():
    model, x, edge_time = make(feed_back=True, edge_dim=2), series(2), torch.arange(6) % T
    of_frames, of_edges = torch.randn(6, 1, T, 2).double(), torch.randn(6, 2).double()
    torch.testing.assert_close(model(x, EDGES, of_frames), model(x, EDGES, of_frames[:, 0]))
    torch.testing.assert_close(model(x, EDGES, of_frames.expand(-1, 2, -1, -1)), model(x, EDGES, of_frames))
    for given in ({}, {"edge_time": edge_time}):
        expected = model(x, EDGES, of_edges, **given)
        torch.testing.assert_close(model(x, GraphIndex(EDGES, N), of_edges, **given), expected)


@pytest.mark.parametrize("feed_back", [False, True])
def test_a_node_is_predicted_from_the_last_frame_in_which_it_was_there(feed_back):
    model, x, changes = make(feed_back=feed_back, pe_channels=1), series(), changing()
    mask, pe = changes["mask"], torch.randn(N, T, 1).double()
    x[~mask] = NAN
    out = model(x.requires_grad_(), EDGES, pe=pe, **changes)
    assert out.shape == (N, H, C) and not out[1].any() and not out.isnan().any()
    out.sum().backward()
    assert not x.grad.isnan().any() and not any(p.grad.isnan().any() for p in model.parameters() if p.grad is not None)
    if not feed_back:
        for n in mask.any(1).nonzero().flatten():
            last = mask[n].nonzero().max()
            upto = {"edge_time": changes["edge_time"][changes["edge_time"] <= last], "mask": mask[:, : last + 1]}
            edges = EDGES[:, changes["edge_time"] <= last]
            torch.testing.assert_close(model(x[:, : last + 1], edges, pe=pe[:, : last + 1], **upto)[n], out[n])


def test_forecasts_from_every_frame_are_those_of_the_frames_up_to_it():
    model, x, changes = make(num_nodes=N), series(), changing()
    x[~changes["mask"]] = NAN
    for given in ({}, changes):
        x = x if given else series()
        out = model(x, EDGES, **given, num_last=3)
        assert out.shape == (N, 3, H, C)
        for number, t in enumerate(range(T - 3, T)):
            upto, edges = {}, EDGES
            if given:
                keep = given["edge_time"] <= t
                upto, edges = {"edge_time": given["edge_time"][keep], "mask": given["mask"][:, : t + 1]}, EDGES[:, keep]
            torch.testing.assert_close(out[:, number], model(x[:, : t + 1], edges, **upto))
    with pytest.raises(ValueError, match="'num_last' to be at most the 4 frames of 'x', and feed_back=False, got 5"):
        model(x, EDGES, num_last=5)


@pytest.mark.parametrize("own", ["enter", "leave", "pe"])
def test_nodes_have_something_of_their_own(own):
    """What of the rest is alike, a ring of nodes that see the same."""
    model, x = make(num_nodes=N, pe_channels=2), torch.randn(1, T, C, dtype=torch.float64).expand(N, T, C)
    ring = torch.stack([torch.arange(N), (torch.arange(N) + 1) % N])
    for name, table in model.own.items():
        torch.nn.init.normal_(table.weight) if name == own else torch.nn.init.zeros_(table.weight)
    out = model(x, ring)
    assert (out[0] - out[1]).abs().max() > 1e-9
    torch.testing.assert_close(model(torch.cat([x, x]), torch.cat([ring, ring + N], 1))[N:], out)
    torch.nn.init.zeros_(model.own[own].weight)
    out = model(x, ring)
    torch.testing.assert_close(out, out[:1].expand_as(out))
    with pytest.raises(ValueError, match="a multiple of num_nodes=5 nodes, got 4 in 'x'"):
        model(x[:4], ring[:, :2])


def test_errors_count_what_is_there():
    prediction, target = (torch.randn(N, H, C).double().requires_grad_() for _ in range(2))
    mask = torch.rand(N, H) < 0.5
    gaps = torch.where(mask[..., None], target, NAN)
    for power in (0.5, 1.0, 2.0):
        expected = (prediction - target)[mask].abs().pow(power).mean()
        for where in (mask, mask[..., None].expand(N, H, C)):
            error = masked_error(prediction, gaps, where, power)
            torch.testing.assert_close(error, expected)
            assert not torch.autograd.grad(error, prediction)[0].isnan().any()
    assert masked_error(prediction, gaps, torch.zeros_like(mask)) == 0
    torch.testing.assert_close(masked_error(prediction, target), (prediction - target).abs().mean())


def test_narrow_times_of_edges_are_the_same_times():
    model = Forecaster(C, horizon=2, channels=8, feed_back=True, num_stages=1, rnn="linear").double().eval()
    x, edges = torch.randn(N, 300, C).double(), torch.tensor([[0, 1], [1, 2]])
    time = torch.tensor([299 - 256, 200])
    torch.testing.assert_close(model(x, edges, edge_time=time.to(torch.uint8)), model(x, edges, edge_time=time))


def test_it_learns_to_go_on():
    """Points on a circle, each at its own speed."""
    torch.manual_seed(0)
    model = Forecaster(2, H, channels=16, num_stages=1)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(100):
        speed, start = torch.rand(2, 64, 1) * 0.5
        angle = start * 12 + speed * torch.arange(T + H)
        path = torch.stack([angle.cos(), angle.sin()], -1)
        loss = masked_error(model(path[:, :T], torch.empty(2, 0).long()), path[:, T:], power=2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = masked_error(path[:, T - 1 : T].expand(-1, H, -1), path[:, T:], power=2)
    assert loss < 0.25 * still, (loss, still)


def test_inputs_of_another_type_than_the_weights():
    x, edges = torch.zeros(2, T, 4, dtype=torch.float64), torch.tensor([[0, 1], [1, 0]])
    for model in (Forecaster(4, H), LinearAutoregression(4, T, H), PairForecaster(H)):
        with (
            case(model),
            pytest.raises(ValueError, match=r"'x' of type torch.float32, as the weights, got torch.float64"),
        ):
            model(x, edges)
    with pytest.raises(ValueError, match=r"'x' of type torch.float32, as the weights, got torch.int64"):
        Forecaster(4, H).step(x[:, 0].long(), None, edges)


def test_bad_input():
    for options, message in [
        ({"horizon": 0}, "'horizon' to be a positive int, got 0"),
        ({"out_channels": 3}, "'out_channels' to be at most in_channels=2, got 3"),
        ({"out_channels": 1, "feed_back": True}, "'out_channels' to be in_channels=2, got 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Forecaster(**{"in_channels": C, "horizon": H, **options})
    with pytest.raises(TypeError, match=r"option of Forecaster, got 'hedas' \(did you mean 'heads'\?\)"):
        Forecaster(C, H, hedas=2)
    model = make()
    with pytest.raises(ValueError, match=r"'x' of shape \[N, \*, T, 2\], got \[5, 4, 3\]"):
        model(torch.randn(N, T, 3), EDGES)
    with pytest.raises(ValueError, match=r"a frame of shape \[N, \*, 2\], got \[5, 3\]"):
        model.step(torch.randn(N, 3), None, EDGES)
    with pytest.raises(ValueError, match=r"a target of shape \[5, 3, 2\], got \[5, 3\]"):
        masked_error(torch.zeros(N, H, C), torch.zeros(N, H))
    with pytest.raises(ValueError, match=r"a mask of shape \[5, 3\], got torch.bool of shape \[5\]"):
        masked_error(torch.zeros(N, H, C), torch.zeros(N, H, C), torch.zeros(N).bool())
