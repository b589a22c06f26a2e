import torch
from small_graphs import GRAPHS, irregular_graph
from torch_geometric import EdgeIndex

from rstg_pyg import RSTGToVec
from rstg_pyg.ops import GraphIndex
from rstg_pyg.ops.blocks import Blocks


def test_edges_are_sorted_by_degree_then_destination():
    source, destination = irregular_graph()
    walk = GraphIndex(torch.stack([source, destination]), 7)
    degree = destination.bincount(minlength=7)
    assert (degree[walk.nodes].diff() >= 0).all() and (degree[walk.dst].diff() >= 0).all()
    torch.testing.assert_close((source[walk.order], destination[walk.order]), (walk.src, walk.dst))
    torch.testing.assert_close(walk.src[walk.inverse], source)
    for position, node in enumerate(walk.nodes.tolist()):
        edges = slice(walk.ptr[position], walk.ptr[position + 1])
        assert (walk.dst[edges] == node).all() and len(walk.dst[edges]) == (destination == node).sum()


def test_edges_by_source():
    source, destination = irregular_graph()
    edges, ptr = GraphIndex(torch.stack([source, destination]), 7).by_source
    walk = GraphIndex(torch.stack([source, destination]), 7)
    for node in range(7):
        mine = edges[ptr[node] : ptr[node + 1]]
        assert (walk.src[mine] == node).all() and len(mine) == (source == node).sum()


def test_groups_and_blocks_hold_every_edge_once():
    for edge_index, num_nodes in GRAPHS.values():
        walk = GraphIndex(edge_index, num_nodes)
        reached = set(edge_index[1].tolist())
        assert walk.num_isolated == num_nodes - len(reached)
        assert sum(group.num_nodes * group.degree for group in walk.groups) == edge_index.size(1)
        for limits in ((1, 1), (8, 16), (1 << 17, 1 << 18)):
            blocks = Blocks(walk, 5, 3, *limits)
            assert [edge for block in blocks for edge in range(*block.edges.indices(10**6))] == list(
                range(edge_index.size(1))
            )
            assert {node for block in blocks for node in block.nodes.tolist()} == reached
            assert [frame for frames in blocks.frames() for frame in range(*frames.indices(5))] == list(range(5))


def test_constant_edges_are_sorted_once_until_they_change():
    edges = irregular_graph()
    for given in (edges, EdgeIndex(edges)):
        first, again = (GraphIndex(given, 7, is_constant=given is edges) for _ in range(2))
        assert first.src is again.src
        assert GraphIndex(given, 8, is_constant=given is edges).ptr.numel() == 9
    edges[0, 0] = 3
    for given in (edges, EdgeIndex(edges)):
        changed = GraphIndex(given, 7, is_constant=given is edges)
        torch.testing.assert_close(changed.src, GraphIndex(edges.clone(), 7).src)


@torch.no_grad()
def test_a_block_follows_its_edges():
    block, volume = RSTGToVec(4, scales=(2, 1)), torch.randn(1, 4, 2, 6, 6)
    before = block(volume)
    block.edge_index.copy_(block.edge_index.roll(1))
    changed = RSTGToVec(4, scales=(2, 1))
    changed.load_state_dict(block.state_dict())
    changed.edge_index = block.edge_index.clone()
    torch.testing.assert_close(block(volume), changed(volume))
    assert not torch.equal(block(volume), before)
