"""Something to remember: what is shown, and that nothing else decides the answer."""

import pytest
import torch
from cases import case
from torch_geometric.loader import DataLoader
from torch_geometric.utils import k_hop_subgraph

from rstg_pyg.datasets import DelayedRecall

PATH = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 4], [1, 2, 3, 4, 0, 1, 2, 3]])
ONE_WAY = torch.tensor([[0, 1, 2, 3, 0, 4], [1, 2, 3, 0, 4, 2]])
GRAPHS = {"path": PATH, "one way": ONE_WAY}


def test_the_answer_is_what_the_source_saw_first_and_the_asked_node_is_so_far_away():
    for name, graph in GRAPHS.items():
        for distance, delay in [(0, 4), (1, 0), (2, 7), (3, 1)]:
            with case(name, distance, delay):
                dataset = DelayedRecall(graph, distance, delay, num_symbols=3, num_clips=60)
                pairs = set()
                for data in dataset:
                    assert data.x.shape == (5, delay + 1, 5)
                    assert torch.equal(data.x[..., :3].sum(-1), torch.ones(5, delay + 1))
                    (source, first), (asked, last) = (data.x[..., cue].nonzero()[0].tolist() for cue in (3, 4))
                    assert data.x[..., 3:].sum() == 2
                    assert (first, last) == (0, delay)
                    assert data.x[source, 0, :3].argmax() == data.y
                    assert data.asked.nonzero().tolist() == [[asked]]
                    pairs.add((source, asked))
                for source, asked in pairs:
                    near = [set(k_hop_subgraph(asked, hops, graph)[0].tolist()) for hops in range(distance + 1)]
                    assert [source in nodes for nodes in near] == [False] * distance + [True]
                assert len({source for source, _ in pairs}) > 2


def test_no_other_symbol_tells_the_answer():
    x, y, asked = DelayedRecall(PATH, 2, 3).clips(range(4_000))
    source = x[:, :, 0, -2].argmax(0)
    clips = torch.arange(4_000)
    same = x[..., :4].argmax(-1) == y[:, None]
    shares = [same[asked, clips].float().mean(0), same[source, clips, 1:].float().mean(0)]
    # A standard deviation is 0.007.
    torch.testing.assert_close(torch.cat(shares), torch.full((7,), 0.25), atol=0.03, rtol=0)
    assert y.bincount().min() > 900


def test_a_clip_is_a_function_of_its_number_seed_split_and_distance():
    dataset, again = (DelayedRecall(PATH, 1, 5, num_clips=40, seed=7) for _ in range(2))
    clips = dataset.clips(range(40))
    for number in [3, 0, 39, 3]:
        item = again[number]
        assert torch.equal(item.x, clips.x[:, number])
        assert (int(item.y), int(item.asked.nonzero())) == (int(clips.y[number]), int(clips.asked[number]))
    assert torch.equal(dataset.clips(torch.tensor([-1, 3])).x, clips.x[:, [39, 3]])
    for other in ({"seed": 8}, {"seed": 7, "train": False}):
        assert not torch.equal(DelayedRecall(PATH, 1, 5, **other).clips(range(40)).x, clips.x)


def test_clips_of_different_delays_agree_in_their_common_frames():
    short, long = (DelayedRecall(PATH, 2, delay).clips(range(20)) for delay in (3, 9))
    assert torch.equal(short.y, long.y)
    assert torch.equal(short.asked, long.asked)
    assert torch.equal(short.x[..., :-1], long.x[:, :, :4, :-1])


def test_the_stock_loader_batches_them():
    dataset = DelayedRecall(PATH, 1, 2, num_clips=6)
    batch = next(iter(DataLoader(dataset, batch_size=6)))
    assert torch.equal(batch.x[batch.asked][:, -1, -1], torch.ones(6))
    assert torch.equal(batch.x[batch.x[:, 0, -2] == 1][:, 0, :4].argmax(-1), batch.y)


def test_bad_arguments():
    for kwargs, message in [
        ({"distance": 5}, "'distance' of two nodes of the graph, got 5: none are so far apart"),
        ({"distance": -1}, "'distance' to be an integer of at least 0, got -1"),
        ({"delay": 1.0}, r"'delay' to be an integer of at least 0, got 1\.0"),
        ({"num_symbols": 1}, "'num_symbols' to be an integer of at least 2, got 1"),
        ({"num_nodes": 3}, "'edge_index' within 0 to 2, got"),
        ({"num_clips": 0}, "'num_clips' to be a positive int, got 0"),
        ({"train": 1}, "'train' to be True or False, got 1"),
        ({"seed": -1}, "'seed' to be an integer within 0 to"),
        ({"edge_index": None}, r"integer 'edge_index' of shape \[2, num_edges\], got None"),
        (
            {"edge_index": PATH.float()},
            r"integer 'edge_index' of shape \[2, num_edges\], got torch.float32 of shape \[2, 8\]",
        ),
    ]:
        with case(kwargs), pytest.raises(ValueError, match=f"expected {message}"):
            DelayedRecall(**{"edge_index": PATH, **kwargs})
    with pytest.raises(IndexError, match="the number of a clip within 0 to 2, got 3"):
        DelayedRecall(PATH, num_clips=3).clips([0, 3])
