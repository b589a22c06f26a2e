"""The region graph, alone and over a frame, and attention as arrows."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from rstg_pyg import region_graph
from rstg_pyg.visualize import COLOURS, draw_attention, draw_graph, draw_regions, scale_colours

GRAPH = region_graph((3, 2, 1))


def test_regions_have_a_colour_per_scale_and_places_of_their_own(ax):
    places = draw_regions(ax, GRAPH, (32, 48))
    assert len(ax.patches) == 14
    assert scale_colours(GRAPH) == [COLOURS[0]] * 9 + [COLOURS[1]] * 4 + [COLOURS[2]]
    assert len({tuple(place) for place in places.tolist()}) == 14
    assert places[:, 0].max() > 32 > places[:, 1].max()


def test_cells_of_the_first_scale_are_drawn_exactly(ax):
    draw_regions(ax, region_graph(((1, 2),)), (10, 20))
    left, right = (patch.get_bbox().bounds for patch in ax.patches)
    assert left == pytest.approx((-0.5, -0.5, 10, 10))
    assert right == pytest.approx((9.5, -0.5, 10, 10))


def test_there_can_be_more_scales_than_colours(ax):
    graph = region_graph((8, 7, 6, 5, 4, 3, 2, 1))
    places = draw_regions(ax, graph, (64, 64))
    assert scale_colours(graph)[-1] == COLOURS[1]
    assert places.shape == (graph.num_nodes, 2)
    assert [text.get_text() for text in draw_graph(graph).axes[0].texts] == [f"{s} x {s}" for s in range(8, 0, -1)]


def test_a_graph_in_space_has_every_node_and_every_edge_once():
    figure = draw_graph(GRAPH, title="14 regions")
    figure.canvas.draw()
    (ax,) = figure.axes
    lines = [c for c in ax.collections if hasattr(c, "get_segments")]
    assert sum(len(c.get_segments()) for c in lines) == GRAPH.num_edges // 2
    assert any(len(c.get_offsets()) == 14 for c in ax.collections)
    assert [text.get_text() for text in ax.texts] == ["3 x 3", "2 x 2", "1 x 1"]
    assert [text.get_text() for text in figure.texts] == ["14 regions"]


def test_no_node_of_a_graph_in_space_is_cut_off():
    figure = draw_graph(region_graph((4, 3, 2, 1)))
    figure.canvas.draw()
    pixels = torch.from_numpy(np.array(figure.canvas.buffer_rgba()))[..., :3]
    border = torch.cat([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 255).all()
    assert (pixels != 255).any()


def test_a_graph_without_regions(ax):
    for draw in (lambda graph: draw_regions(ax, graph, (4, 4)), draw_graph):
        with pytest.raises(ValueError, match=r"region graph with 'box' and 'scale', got a Data with \['x'\]"):
            draw(Data(x=torch.ones(1, 1)))


def test_a_graph_of_one_scale_is_drawn_and_one_of_too_many_regions_is_not():
    draw_graph(region_graph((2,)))
    with pytest.raises(ValueError, match=r"^expected a graph of at most 1024 regions to draw, got 10000$"):
        draw_graph(region_graph((100,)))


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


def test_the_width_is_the_weight_within_bounds_and_there_is_one_per_edge(ax, places):
    edges = (GRAPH.edge_index[1] == 13).nonzero()[:4, 0]
    alpha = torch.zeros(GRAPH.num_edges)
    alpha[edges] = torch.tensor([13.0, 10.0, 6.0, 0.1]) / 13
    draw_attention(ax, GRAPH, alpha, places, strongest=4)
    assert [text.arrowprops["linewidth"] for text in ax.texts] == pytest.approx([3.0, 2.5, 1.5, 0.7])
    with pytest.raises(ValueError, match=r"^expected attention weights of shape \[90\], got \[90, 1\]$"):
        draw_attention(ax, GRAPH, torch.rand(90, 1), places)
    with pytest.raises(ValueError, match=r"^expected 'strongest' to be an integer of at least 0, got -1$"):
        draw_attention(ax, GRAPH, alpha, places, strongest=-1)
