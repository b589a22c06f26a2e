"""Forecasts in the plane: they move and turn with the scene, and start from constant velocity."""

import math

import pytest
import torch

from rstg_pyg.models import Forecaster, MotionForecaster, constant_velocity

N, T, H = 6, 5, 3


def make(start=False):
    options = {"out_channels": 2, "edge_dim": 6, "num_stages": 1, "rnn": "gru", "from_last": False}
    model = MotionForecaster(Forecaster(5, H, 8, **options), H).double().eval()
    if not start:
        model.forecaster.lin_out.reset_parameters()
    return model


def scene():
    x = torch.randn(N, T, 2, dtype=torch.float64).cumsum(1)
    mask = torch.rand(N, T) < 0.8
    mask[0], mask[1] = True, False
    mask[2] = torch.arange(T) >= T - 2
    edges, edge_time = torch.randint(N, (2, 40)), torch.randint(T, (40,))
    return x, edges, {"edge_time": edge_time, "mask": mask}


def test_it_moves_and_turns_with_the_scene():
    x, edges, given = scene()
    model, angle = make(), torch.tensor(0.7, dtype=torch.float64)
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()]).view(2, 2)
    shift = torch.tensor([30.0, -7.0], dtype=torch.float64)
    out = model(x, edges, **given)
    assert not out[1].any()
    has_heading = (given["mask"][:, 1:] & given["mask"][:, :-1]).any(1)
    moved = model(x @ turn + shift, edges, **given)
    torch.testing.assert_close(moved[has_heading], (out @ turn + shift)[has_heading])


def test_it_starts_from_constant_velocity_of_the_last_two_frames_that_are_there():
    x, edges, given = scene()
    given["mask"][3] = torch.tensor([True, True, True, False, False])
    given["mask"][4] = torch.tensor([False, False, True, False, False])
    ahead = torch.arange(1, H + 1)[:, None]
    out = make(start=True)(x, edges, **given)
    torch.testing.assert_close(out[0], x[0, -1] + ahead * (x[0, -1] - x[0, -2]))
    torch.testing.assert_close(out[3], x[3, 2] + ahead * (x[3, 2] - x[3, 1]))
    torch.testing.assert_close(out[4], x[4, 2].expand(H, 2))
    torch.testing.assert_close(out, constant_velocity(x, H, given["mask"]))


def test_who_is_absent_does_not_matter_and_edges_for_all_frames_are_edges_in_each():
    x, edges, given = scene()
    model = make()
    hidden = torch.where(given["mask"][..., None], x, math.nan)
    torch.testing.assert_close(model(hidden, edges, **given), model(x, edges, **given))
    each = {"edge_time": torch.arange(T).repeat_interleave(40)}
    torch.testing.assert_close(model(x, edges.repeat(1, T), **each), model(x, edges))


def test_bad_input():
    with pytest.raises(ValueError, match=r"'x' of shape \[N, T, 2\], got \[2, 3, 4\]"):
        make()(torch.zeros(2, 3, 4), torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"'edge_index' of shape \[2, num_edges\], got torch.sparse_coo"):
        make()(torch.zeros(2, 3, 2), torch.eye(2).to_sparse())
