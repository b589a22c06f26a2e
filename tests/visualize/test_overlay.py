"""Frames with a graph and classes drawn over them."""

import numpy as np
import pytest
import torch

from rstg_pyg import region_graph
from rstg_pyg.visualize.overlay import GraphLayer, VideoOverlay

GRAPH = region_graph((2, 1))
SAID = [("Moving something up", 0.75), ("Moving something down", 0.25)]


def black(height, width):
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize("graph", [GRAPH, None], ids=["graph", "plain"])
def test_every_size_becomes_an_even_one_that_can_be_read(graph):
    for size in ((31, 45), (45, 31), (240, 427), (1081, 1921), (360, 360)):
        overlay = VideoOverlay(size, graph)
        ((height, width, channels),) = {overlay.draw(black(*size), said).shape for said in ([], SAID)}
        assert height % 2 == width % 2 == 0
        assert channels == 3
        assert min(height, width) >= 360


def test_classes_stand_below_or_beside_the_frame_and_not_over_it():
    for size in ((400, 500), (500, 400)):
        frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        shown = VideoOverlay(size).draw(frame, SAID)
        assert np.array_equal(shown[: size[0], : size[1]], frame)
        other = VideoOverlay(size).draw(frame, [("Holding something", 0.5)])
        assert not np.array_equal(shown, other)


def test_a_bar_is_as_long_as_its_probability():
    def length(probability):
        picture = VideoOverlay((360, 600)).draw(black(360, 600), [("", probability)])[365:395].astype(int)
        bar = (abs(picture - np.array([0xBF, 0xE3, 0xF7])).max(2) < 3).any(0)
        return int(bar.sum())

    assert length(0.75) == pytest.approx(0.75 * 576, abs=3)
    assert length(0.25) == pytest.approx(0.25 * 576, abs=3)


def test_the_strongest_edges_are_drawn_and_wider_for_more_weight():
    layer = GraphLayer(GRAPH, (400, 400), (0, 0, 400, 400), strongest=1)
    without = np.asarray(layer.draw(None)).astype(int)

    def drawn(weight, edge=3):
        alpha = torch.zeros(GRAPH.num_edges)
        alpha[edge] = weight
        return int((np.asarray(layer.draw(alpha)).astype(int) != without).any(2).sum())

    assert 0 < drawn(0.2) < drawn(0.5) < drawn(1.0)


def test_what_the_network_does_not_see_is_darker_and_free_of_the_graph():
    frame = np.full((400, 600, 3), 200, np.uint8)
    shown = VideoOverlay((400, 600), GRAPH, (0, 100, 400, 500)).draw(frame, [], torch.rand(GRAPH.num_edges))
    outside = np.concatenate([shown[:400, :99], shown[:400, 501:]], 1)
    assert len(np.unique(outside)) == 1
    assert outside.max() < 200
    assert (shown[:400, 101:499] == 200).mean() > 0.8


def test_the_same_attention_is_drawn_once():
    layer, alpha = GraphLayer(GRAPH, (64, 64), (0, 0, 64, 64)), torch.rand(GRAPH.num_edges)
    assert layer.draw(alpha) is layer.draw(alpha)
    assert layer.draw(alpha) is not layer.draw(alpha.flip(0))


def test_long_names_are_shortened_and_spaces_kept_on_one_line():
    frame = black(360, 360)
    long, longer = ("Pretending\nto put " + "something on a surface " * n for n in (6, 7))
    overlay = VideoOverlay((360, 360))
    assert np.array_equal(overlay.draw(frame, [(long, 0.5)]), overlay.draw(frame, [(longer, 0.5)]))


def test_frames_of_an_extreme_shape():
    """Their shorter side stays as short as it must for the longer one to be bounded; the list can be read."""
    for size, shown in (((1, 10_000), (202, 4096)), ((10_000, 1), (4096, 402))):
        assert VideoOverlay(size, GRAPH).draw(black(*size), SAID, torch.rand(GRAPH.num_edges)).shape == (*shown, 3)


def test_errors():
    overlay = VideoOverlay((40, 60), GRAPH)
    with pytest.raises(ValueError, match=r"expected a frame of shape \[40, 60, 3\], got \[60, 40, 3\]"):
        overlay.draw(black(60, 40), [])
    with pytest.raises(ValueError, match=r"expected attention weights of shape \[16\], got \[15\]"):
        overlay.draw(black(40, 60), [], torch.rand(15))
