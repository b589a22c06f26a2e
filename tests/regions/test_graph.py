from fractions import Fraction

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import contains_self_loops, is_undirected

from rstg_pyg import region_graph

SCALES = [(3, 2, 1), (2, 1), (1,), (1, 4), (4, 3, 2, 1), ((2, 4), 3, (1, 5)), ((7, 2), (2, 7)), (3, 3)]


@pytest.mark.parametrize(
    ("scales", "num_nodes", "num_edges"),
    [((3, 2, 1), 14, 90), ((2, 1), 5, 16), ((4, 3, 2, 1), 30, 306), ((5, 4, 3, 2, 1), 55, 734)],
)
def test_counts_of_the_specification(scales, num_nodes, num_edges):
    graph = region_graph(scales)
    assert (graph.num_nodes, graph.num_edges) == (num_nodes, num_edges)
    graph.validate(raise_on_error=True)


def test_degrees_of_the_authors_graph():
    degree = region_graph((3, 2, 1)).edge_index[1].bincount()
    assert degree.tolist() == [4, 6, 4, 6, 9, 6, 4, 6, 4, 7, 7, 7, 7, 13]


@pytest.mark.parametrize("scales", SCALES)
def test_edges_follow_the_geometry(scales):
    graph = region_graph(scales)
    cells = []
    for scale in scales:
        rows, columns = (scale, scale) if isinstance(scale, int) else scale
        for row in range(rows):
            for column in range(columns):
                y = (Fraction(row, rows), Fraction(row + 1, rows))
                x = (Fraction(column, columns), Fraction(column + 1, columns))
                cells.append((y, x))

    def common(a, b):
        return min(a[1], b[1]) - max(a[0], b[0])

    expected = set()
    for i, (y, x) in enumerate(cells):
        for j, (v, u) in enumerate(cells):
            height, width = common(y, v), common(x, u)
            overlaps = height > 0 and width > 0
            shares_border = (height == 0 and width > 0) or (height > 0 and width == 0)
            if i != j and (overlaps or shares_border):
                expected.add((j, i))
    assert {tuple(edge) for edge in graph.edge_index.t().tolist()} == expected
    assert graph.num_edges == len(expected)
    box = torch.tensor([[float(y[0]), float(x[0]), float(y[1]), float(x[1])] for y, x in cells])
    torch.testing.assert_close(graph.box, box)
    torch.testing.assert_close(graph.pos, (box[:, :2] + box[:, 2:]) / 2)


@pytest.mark.parametrize("scales", SCALES)
def test_edges_are_undirected_without_loops_and_sorted_by_destination(scales):
    graph = region_graph(scales)
    assert is_undirected(graph.edge_index, num_nodes=graph.num_nodes)
    assert not contains_self_loops(graph.edge_index)
    order = graph.edge_index[1] * graph.num_nodes + graph.edge_index[0]
    assert bool((order.diff() > 0).all())


def test_scale_names_the_grid_of_each_node():
    assert region_graph(((1, 2), 1)).scale.tolist() == [[1, 2], [1, 2], [1, 1]]


def test_graphs_batch_with_stock_pyg():
    graph = region_graph((2, 1))
    batch = Batch.from_data_list([graph, graph])
    assert isinstance(graph, Data)
    assert batch.num_nodes == 10
    torch.testing.assert_close(batch.edge_index[:, 16:], graph.edge_index + 5)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "at least one scale"),
        (3, "expected 'scales' to be a sequence"),
        ("321", "expected 'scales' to be a sequence"),
        ((3, 0), "positive int or a .rows, columns. pair.*got 0"),
        ((3, 1.5), "got 1.5"),
        (((2, 3, 4),), r"got \(2, 3, 4\)"),
        ((True,), "got True"),
    ],
)
def test_bad_scales(scales, message):
    with pytest.raises(ValueError, match=message):
        region_graph(scales)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_bad_heatmap_size(size):
    with pytest.raises(ValueError, match=f"'heatmap_size' to be a positive int, got {size}"):
        region_graph(heatmap_size=size)


@pytest.mark.parametrize(
    ("scales", "heatmap_size", "message"),
    [
        ((10**9, 1), 6, "'scales' of at most 16384 cells in all, got 1000000000000000001"),
        ((1,) * 5000, 6, "regions of which at most 16777216 pairs touch, got at least 25000000"),
        ((3,), 10**6, "heatmaps of at most 67108864 values in all, got 9 nodes and heatmap_size=1000000"),
    ],
)
def test_sizes_that_would_exhaust_memory(scales, heatmap_size, message):
    with pytest.raises(ValueError, match=message):
        region_graph(scales, heatmap_size)


def test_a_graph_of_ten_thousand_regions():
    """What finds its edges does not look at all pairs."""
    graph = region_graph((100,))
    assert graph.num_edges == 4 * 100 * 99
    assert graph.edge_index[:, :2].tolist() == [[1, 100], [0, 0]]
