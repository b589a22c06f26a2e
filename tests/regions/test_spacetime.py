import pytest
import torch

from rstg_pyg import region_graph, spacetime_edge_index, spacetime_graph


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_edges_are_those_of_the_definition(num_frames):
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


def test_the_graph_repeats_node_attributes_in_the_order_of_a_flattened_sequence():
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


def test_it_refuses():
    graph = region_graph((2, 1))
    with pytest.raises(ValueError, match="'num_frames' to be a positive int, got 0"):
        spacetime_graph(graph, num_frames=0)
    graph.x = torch.randn(5, 4, 8)
    with pytest.raises(ValueError, match=r"graph.x of shape \[5, 3, C\], got \[5, 4, 8\]"):
        spacetime_graph(graph, num_frames=3)
    with pytest.raises(ValueError, match="at most 67108864 edges in all, got 36999999979 with num_frames=1000000000"):
        spacetime_graph(region_graph((2, 1)), num_frames=10**9)
