"""The graph of regions: its nodes, edges and heatmaps, unrolled over time, and as a transform of PyG."""

import math
from fractions import Fraction

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform, Compose
from torch_geometric.utils import contains_self_loops, is_undirected

from rstg_pyg import (
    RSTG,
    RegionPool,
    SyncMNIST,
    ToRegionGraph,
    region_graph,
    spacetime_edge_index,
    spacetime_graph,
)

SCALES = [(3, 2, 1), (2, 1), (1,), (1, 4), (4, 3, 2, 1), ((2, 4), 3, (1, 5)), ((7, 2), (2, 7)), (3, 3)]


COUNTS = [((3, 2, 1), 14, 90), ((2, 1), 5, 16), ((4, 3, 2, 1), 30, 306), ((5, 4, 3, 2, 1), 55, 734)]


def test_counts_of_the_specification():
    for scales, num_nodes, num_edges in COUNTS:
        graph = region_graph(scales)
        assert (scales, graph.num_nodes, graph.num_edges) == (scales, num_nodes, num_edges)
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
    assert is_undirected(graph.edge_index, num_nodes=graph.num_nodes)
    assert not contains_self_loops(graph.edge_index)
    order = graph.edge_index[1] * graph.num_nodes + graph.edge_index[0]
    assert bool((order.diff() > 0).all()), "the edges are not sorted by destination, then source"
    box = torch.tensor([[float(y[0]), float(x[0]), float(y[1]), float(x[1])] for y, x in cells])
    torch.testing.assert_close(graph.box, box)
    torch.testing.assert_close(graph.pos, (box[:, :2] + box[:, 2:]) / 2)


def test_scale_names_the_grid_of_each_node():
    assert region_graph(((1, 2), 1)).scale.tolist() == [[1, 2], [1, 2], [1, 1]]


def test_graphs_batch_with_stock_pyg():
    graph = region_graph((2, 1))
    batch = Batch.from_data_list([graph, graph])
    assert isinstance(graph, Data)
    assert batch.num_nodes == 10
    torch.testing.assert_close(batch.edge_index[:, 16:], graph.edge_index + 5)


REFUSED = [
    ((), 6, "at least one scale"),
    (3, 6, "expected 'scales' to be a sequence"),
    ("321", 6, "expected 'scales' to be a sequence"),
    ((3, 0), 6, "positive int or a .rows, columns. pair.*got 0"),
    ((3, 1.5), 6, "got 1.5"),
    (((2, 3, 4),), 6, r"got \(2, 3, 4\)"),
    ((True,), 6, "got True"),
    *(((1,), size, f"'heatmap_size' to be a positive int, got {size}") for size in (0, -1, 2.5, True)),
    # Sizes that would exhaust the memory.
    ((10**9, 1), 6, "'scales' of at most 16384 cells in all, got 1000000000000000001"),
    ((1,) * 5000, 6, "regions of which at most 16777216 pairs touch, got at least 25000000"),
    ((3,), 10**6, "heatmaps of at most 67108864 values in all, got 9 nodes and heatmap_size=1000000"),
]


def test_it_refuses_bad_scales_and_heatmap_sizes():
    for scales, heatmap_size, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            region_graph(scales, heatmap_size)


def test_a_graph_of_ten_thousand_regions():
    """What finds its edges does not look at all pairs."""
    graph = region_graph((100,))
    assert graph.num_edges == 4 * 100 * 99
    assert graph.edge_index[:, :2].tolist() == [[1, 100], [0, 0]]


@pytest.mark.parametrize(("scale", "size"), [(1, 6), (2, 6), (3, 6), (3, 12), (6, 6)])
def test_where_the_size_divides_the_heatmap_is_the_authors(scale, size):
    heatmap = region_graph((scale,), heatmap_size=size).heatmap.view(-1, size, size)
    block = size // scale
    for node in range(scale * scale):
        row, column = divmod(node, scale)
        expected = torch.zeros(size, size)
        for u in range(block):
            for v in range(block):
                offset_y, offset_x = u - (block - 1) / 2, v - (block - 1) / 2
                expected[row * block + u, column * block + v] = math.exp(-(offset_y**2 + offset_x**2) / (2 * 2**2))
        torch.testing.assert_close(heatmap[node], expected)


def test_elsewhere_centre_and_border_of_a_heatmap_are_fractional():
    first, second, *_ = region_graph(((1, 4),), heatmap_size=6).heatmap.view(-1, 6, 6)
    y = torch.exp(-((torch.arange(6) - 2.5) ** 2) / 8)
    # Cell 0 spans 0..1.5 grid cells, centre 0.75; cell 1 spans 1.5..3, centre 2.25: grid cell 1 is cut in half.
    first_x = torch.tensor([1.0, 0.5, 0, 0, 0, 0]) * torch.exp(-((torch.arange(6) + 0.5 - 0.75) ** 2) / 8)
    second_x = torch.tensor([0, 0.5, 1.0, 0, 0, 0]) * torch.exp(-((torch.arange(6) + 0.5 - 2.25) ** 2) / 8)
    torch.testing.assert_close(first, y[:, None] * first_x)
    torch.testing.assert_close(second, y[:, None] * second_x)


@pytest.mark.parametrize("scales", [(4,), (5, 3), ((2, 7), 1)])
def test_mirrored_regions_have_mirrored_heatmaps(scales):
    graph = region_graph(scales, heatmap_size=6)
    heatmap = graph.heatmap.view(-1, 6, 6)
    mirrored = graph.box[:, [0, 3, 2, 1]] * torch.tensor([1, -1, 1, -1]) + torch.tensor([0, 1, 0, 1])
    for node, box in enumerate(mirrored):
        same_grid = (graph.scale == graph.scale[node]).all(1)
        twin = int(((graph.box - box).abs().sum(1) + 9 * ~same_grid).argmin())
        torch.testing.assert_close(heatmap[twin], heatmap[node].flip(1))


def test_shape_and_type_of_the_heatmaps():
    assert region_graph((3, 2, 1), heatmap_size=5).heatmap.shape == (14, 25)
    assert region_graph((3, 2, 1)).heatmap.dtype == torch.float32


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_space_time_edges_are_those_of_the_definition(num_frames):
    graph = region_graph((2, 1))
    num_nodes = graph.num_nodes
    edges = set(map(tuple, graph.edge_index.t().tolist()))
    expected = set()
    for t in range(num_frames):
        expected |= {((j, t), (i, t)) for j, i in edges}
        if t > 0:
            expected |= {((j, t - 1), (i, t)) for j, i in edges}
            expected |= {((i, t - 1), (i, t)) for i in range(num_nodes)}
    out = spacetime_edge_index(graph.edge_index, num_nodes, num_frames).t().tolist()
    assert {(divmod(a, num_frames), divmod(b, num_frames)) for a, b in out} == expected
    assert len(out) == len(expected)


def test_the_space_time_graph_repeats_node_attributes_in_the_order_of_a_flattened_sequence():
    graph = region_graph((2, 1))
    graph.x = torch.randn(5, 3, 8)
    graph.y = torch.tensor([2])
    out = spacetime_graph(graph, num_frames=3)
    assert out.num_nodes == 15
    torch.testing.assert_close(out.x.view(5, 3, 8), graph.x)
    torch.testing.assert_close(out.heatmap.view(5, 3, -1)[:, 1], graph.heatmap)
    assert out.time.view(5, 3).tolist() == [[0, 1, 2]] * 5
    assert out.y.tolist() == [2]
    out.validate(raise_on_error=True)


def test_the_space_time_graph_refuses():
    graph = region_graph((2, 1))
    with pytest.raises(ValueError, match="'num_frames' to be a positive int, got 0"):
        spacetime_graph(graph, num_frames=0)
    graph.x = torch.randn(5, 4, 8)
    with pytest.raises(ValueError, match=r"graph.x of shape \[5, 3, C\], got \[5, 4, 8\]"):
        spacetime_graph(graph, num_frames=3)
    for name, value in (("mask", torch.ones(5, 4, dtype=torch.bool)), ("edge_attr", torch.randn(graph.num_edges, 2))):
        graph = region_graph((2, 1))
        graph[name] = value
        with pytest.raises(ValueError, match=f"without a mask or attributes of edges, got '{name}'"):
            spacetime_graph(graph, num_frames=4)
    graph = region_graph((2, 1))
    graph.names = list("abcde")
    with pytest.raises(ValueError, match=r"tensors of nodes, got graph\.names as a list of 5"):
        spacetime_graph(graph, num_frames=4)
    with pytest.raises(ValueError, match="at most 67108864 edges in all, got 36999999979 with num_frames=1000000000"):
        spacetime_graph(region_graph((2, 1)), num_frames=10**9)


def test_the_transform_makes_a_sequence_of_region_means():
    video = torch.randn(3, 4, 8, 10)
    data = ToRegionGraph((2, 1))(Data(video=video, y=torch.tensor([7])))
    assert data.x.shape == (5, 4, 3)
    for t in range(4):
        torch.testing.assert_close(data.x[:, t], RegionPool((2, 1))(video[:, t]))
    assert torch.equal(data.edge_index, region_graph((2, 1)).edge_index)
    assert data.num_nodes == 5
    assert "video" not in data
    assert data.y.item() == 7


def test_the_stock_loader_batches_clips():
    transform = Compose([ToRegionGraph((2, 1))])
    clips = [transform(Data(video=torch.randn(1, 3, 4, 8, 8), y=torch.tensor([i]))) for i in range(6)]
    batch = next(iter(DataLoader(clips, batch_size=6)))
    assert batch.x.shape == (30, 4, 3)
    assert batch.edge_index.shape == (2, 96)
    assert batch.heatmap.shape == (30, 36)
    assert batch.y.tolist() == list(range(6))
    torch.testing.assert_close(batch[3].x, clips[3].x)


def test_the_input_is_left_alone_and_the_volume_can_stay():
    data = Data(volume=torch.randint(0, 255, (1, 2, 4, 4), dtype=torch.uint8))
    out = ToRegionGraph((1,), attr="volume", keep_volume=True)(data)
    assert "x" not in data
    assert "volume" in out
    torch.testing.assert_close(out.x[0, :, 0], data.volume[0].float().mean((1, 2)))


def test_it_is_a_transform_of_pyg():
    assert isinstance(ToRegionGraph(), BaseTransform)
    assert repr(ToRegionGraph((2, 1))) == "ToRegionGraph(scales=((2, 2), (1, 1)), attr='video')"


def test_the_transform_refuses():
    for data, message in [
        (Data(image=torch.randn(3, 4, 8, 8)), r"data\['video'\], got a Data with \['image'\]"),
        (Data(video=torch.randn(4, 8, 8)), r"\[C, T, H, W\] or \[1, C, T, H, W\], got \[4, 8, 8\]"),
        (Data(video=torch.randn(2, 3, 4, 8, 8)), r"got \[2, 3, 4, 8, 8\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            ToRegionGraph()(data)


def test_syncmnist_clips_become_region_graphs_on_the_way_into_the_loader(tmp_path):
    clips = SyncMNIST(tmp_path, num_digits=2, digits="sklearn", num_clips=4, size=32, transform=ToRegionGraph((2, 1)))
    batch = next(iter(DataLoader(clips, batch_size=4)))
    assert batch.x.shape == (20, 10, 1)
    assert batch.num_nodes == 20
    assert batch.edge_index.max() == 19
    assert batch.y.shape == (4,)
    out, _ = RSTG(1, num_stages=1, pe_channels=36)(batch.x, batch.edge_index, pe=batch.heatmap)
    assert out.shape == batch.x.shape
