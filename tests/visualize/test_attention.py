"""Attention as arrows."""

import pytest
import torch

from rstg_pyg import region_graph
from rstg_pyg.visualize import draw_attention, draw_regions, scale_colours

GRAPH = region_graph((3, 2, 1))


@pytest.fixture
def places(ax):
    return draw_regions(ax, GRAPH, (32, 32))


def test_the_strongest_edge_is_drawn_from_its_source_in_its_colour(ax, places):
    alpha = torch.zeros(GRAPH.num_edges)
    alpha[7] = 1.0
    draw_attention(ax, GRAPH, alpha, places, strongest=1)
    (arrow,) = ax.texts
    source, destination = GRAPH.edge_index[:, 7].tolist()
    assert list(arrow.xy) == places[destination].tolist()
    assert list(arrow.xyann) == places[source].tolist()
    assert arrow.arrowprops["color"] == scale_colours(GRAPH)[source]


def test_weights_are_compared_with_uniform_ones(ax, places):
    """A weight of 0.5 says more at a node with 13 neighbours than one of 0.6 at a node with 4."""
    into_corner = int((GRAPH.edge_index[1] == 0).nonzero()[0])
    into_frame = int((GRAPH.edge_index[1] == 13).nonzero()[0])
    alpha = torch.zeros(GRAPH.num_edges)
    alpha[into_corner], alpha[into_frame] = 0.6, 0.5
    draw_attention(ax, GRAPH, alpha, places, strongest=1)
    assert list(ax.texts[0].xy) == places[13].tolist()


def test_the_width_is_the_weight_within_bounds(ax, places):
    edges = (GRAPH.edge_index[1] == 13).nonzero()[:4, 0]
    alpha = torch.zeros(GRAPH.num_edges)
    alpha[edges] = torch.tensor([13.0, 10.0, 6.0, 0.1]) / 13
    draw_attention(ax, GRAPH, alpha, places, strongest=4)
    assert [text.arrowprops["linewidth"] for text in ax.texts] == pytest.approx([3.0, 2.5, 1.5, 0.7])


def test_there_is_a_weight_per_edge(ax, places):
    with pytest.raises(ValueError, match=r"^expected attention weights of shape \[90\], got \[90, 1\]$"):
        draw_attention(ax, GRAPH, torch.rand(90, 1), places)
