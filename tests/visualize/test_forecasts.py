"""Pictures of forecasts: where nodes lie, and what the figures hold."""

import matplotlib.style
import numpy as np
import pytest
import torch

from rstg_pyg.visualize import draw_forecasts, draw_node_errors, place_nodes

EDGES = torch.tensor([[0, 1, 2, 4], [1, 2, 3, 5]])


def test_nodes_lie_as_far_apart_as_the_ways_between_them():
    place = place_nodes(EDGES[:, :3], torch.tensor([1.0, 2.0, 1.0]), 4)
    expected = torch.tensor([0.0, 1.0, 3.0, 4.0])
    torch.testing.assert_close(torch.cdist(place, place), (expected[:, None] - expected).abs(), atol=1e-5, rtol=0)
    again = place_nodes(EDGES[:, [0, 0, 1, 1, 2]], torch.tensor([1.0, 9.0, 9.0, 2.0, 1.0]), 4)
    torch.testing.assert_close(torch.cdist(again, again), torch.cdist(place, place), atol=1e-5, rtol=0)
    with pytest.raises(IndexError):
        place_nodes(EDGES, torch.ones(4), 5)
    apart = place_nodes(EDGES, torch.ones(4), 6)
    assert apart.isfinite().all() and (apart[4] - apart[0]).norm() > 1


def test_a_dark_style_leaves_the_ground_white():
    with matplotlib.style.context("dark_background"):
        figure = draw_node_errors(torch.ones(2), torch.rand(2, 2), EDGES[:, :1], "Errors", "MAE")
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)


def test_a_larger_error_is_a_larger_dot():
    error = torch.tensor([0.0, 3.0, 1.0, 2.0])
    figure = draw_node_errors(error, torch.rand(4, 2), EDGES[:, :3], "Errors", "MAE")
    lines, dots = figure.axes[0].collections
    assert dots.get_array().tolist() == [0, 1, 2, 3] and np.all(np.diff(dots.get_sizes()) > 0)
    assert len(lines.get_paths()) == 3
    assert figure.axes[1].get_ylabel() == "MAE"
    for missing in (torch.nan, torch.inf):
        error[1] = missing
        (_, dots) = draw_node_errors(error, torch.rand(4, 2), EDGES[:, :3]).axes[0].collections
        assert dots.get_sizes().tolist() == [8, 43, 78]
    draw_node_errors(torch.full((2,), torch.nan), torch.rand(2, 2), EDGES[:, :1])


def test_forecasts_stand_where_they_came_true():
    before = torch.tensor([torch.nan, 5, 6], requires_grad=True)
    figure = draw_forecasts([0, 1, 2], [5, 6, 7], {"before": before, "long before": [1, 2, 3]})
    drawn = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert drawn["what came"] == [5, 6, 7] and drawn["before"][1:] == [5, 6] and drawn["long before"] == [1, 2, 3]


def test_bad_input():
    with pytest.raises(ValueError, match=r"of one shape \[T\], got \[2\], \[2\], \[3\]"):
        draw_forecasts([0, 1], [5, 6], {"x": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"'error' \[N\] and 'position' \[N, 2\], got \[4\] and \[3, 2\]"):
        draw_node_errors(torch.rand(4), torch.rand(3, 2), EDGES)
    with pytest.raises(ValueError, match=r"of at most 2,000 nodes, got .* and 2,001"):
        place_nodes(EDGES, torch.ones(4), 2001)
