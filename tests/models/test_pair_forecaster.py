"""A forecaster that asks of every pair how it acts: laws that hold whatever it has learned, and that it learns."""

import pytest
import torch
from laws import assert_stream_owns_its_memory
from torch_geometric.data import Batch, Data

from rstg_pyg.models import PairForecaster
from rstg_pyg.models.pair_forecaster import find_pairs

N, T, H = 4, 7, 3
EDGES = (~torch.eye(N, dtype=torch.bool)).nonzero().t()
MOTION = (0.1, 0.01, 0.02)


@pytest.fixture
def model():
    torch.manual_seed(5)
    model = PairForecaster(H, MOTION, channels=8, num_laws=2, passes=2).double()
    with torch.no_grad():
        # Beliefs and forces far from those of new weights.
        model.lin_belief.weight *= 20
        model.laws[-1].weight *= 5
    return model


def frames(*shape):
    return torch.randn(*shape, T, 4, dtype=torch.float64) / 4


def test_another_order_of_nodes_or_edges_changes_nothing(model):
    x, nodes, edges = frames(N), torch.tensor([2, 0, 3, 1]), torch.randperm(EDGES.size(1))
    place = nodes.argsort()
    shuffled = place[EDGES[:, edges]]
    torch.testing.assert_close(model(x[nodes], shuffled), model(x, EDGES)[nodes])
    torch.testing.assert_close(model.interactions(x[nodes], shuffled), model.interactions(x, EDGES)[edges])


def test_a_batch_is_what_its_graphs_are_alone(model):
    graphs = [Data(x=frames(N), edge_index=EDGES) for _ in range(3)]
    batch = Batch.from_data_list(graphs)
    alone = torch.cat([model(graph.x, graph.edge_index) for graph in graphs])
    torch.testing.assert_close(model(batch.x, batch.edge_index), alone)


def test_a_stream_predicts_what_the_clip_does(model):
    x, state = frames(N), None
    for t in range(T):
        prediction, state = model.step(x[:, t], state, EDGES)
        torch.testing.assert_close(prediction, model(x[:, : t + 1], EDGES))


def test_what_is_written_over_outputs_and_inputs_does_not_reach_a_stream(model):
    assert_stream_owns_its_memory(lambda state, frame: model.step(frame, state, EDGES), frames(N).unbind(1))


def test_what_one_gains_others_lose_and_places_follow_velocities(model):
    x = frames(N)
    path = torch.cat([x[:, -1:], model(x, EDGES)], 1)
    place, velocity = path.split(2, -1)
    change = velocity.diff(dim=1)
    assert change.abs().max() > 1e-4
    torch.testing.assert_close(change.sum(0), torch.zeros_like(change[0]), atol=1e-12, rtol=0)
    middle = (velocity[:, 1:] + velocity[:, :-1]) / 2
    torch.testing.assert_close(place.diff(dim=1), MOTION[0] * middle + MOTION[1], atol=1e-8, rtol=0)


def test_both_directions_of_an_edge_are_one_belief_of_what_was_seen_so_far(model):
    x = frames(N)
    said = model.interactions(x, EDGES)
    torch.testing.assert_close(said.sum(-1), torch.ones(EDGES.size(1), T).double())
    back = {tuple(edge): number for number, edge in enumerate(EDGES.t().tolist())}
    assert torch.equal(said, said[[back[j, i] for i, j in EDGES.t().tolist()]])
    assert said[:, -1, 0].std() > 1e-3
    for t in (1, 4):
        torch.testing.assert_close(model.interactions(x[:, :t], EDGES), said[:, :t])


def test_laws_get_their_names_from_what_they_do(model):
    with torch.no_grad():
        model.laws[-1].weight.zero_()
        model.laws[-1].bias.copy_(torch.tensor([-1.0, 0.0, 0.0, 1.0]))
    said = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64)
    assert model.pulls(said).tolist() == [0.3, 0.8]


def test_opposites_and_a_field():
    model = PairForecaster(H, MOTION, channels=8, opposites=True, field=True).double()
    x = frames(N)
    assert model.interactions(x, EDGES).shape == (EDGES.size(1), T, 3)
    forces = model._law_forces(x[:2], x[2:])
    torch.testing.assert_close(forces[..., 0, :], -forces[..., 1, :])
    assert sorted(model.pulls(torch.eye(3).double()).tolist()) == [0, 0, 1]
    with torch.no_grad():
        for weight in model.field[-1].parameters():
            weight.zero_()
        without = model(x, EDGES)
        model.field[-1].bias += 0.1
        change = (model(x, EDGES) - without)[:, 0, 2:]
    # The field also changes what was seen of forces; but those add up to nothing.
    torch.testing.assert_close(change.mean(0), torch.full((2,), 0.025).double())


def test_training_reaches_every_weight_and_sees_all_frames(model):
    x = frames(2, N)
    graphs = [Data(x=each[:, :5], y=each[:, 5:], edge_index=EDGES) for each in x]
    torch.manual_seed(0)
    loss = model.training_loss(Batch.from_data_list(graphs))
    loss.backward()
    assert all(weight.grad.any() for name, weight in model.named_parameters() if "hh_l0" not in name)
    graphs[0].y = graphs[0].y + torch.eye(4)[3]
    torch.manual_seed(0)
    assert model.training_loss(Batch.from_data_list(graphs)) != loss


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([[0, 1], [1, 2]], "every edge once in each direction and none from a node to itself, got others between 0"),
        ([[0, 1, 0], [1, 0, 1]], "got others between 0 and 1"),
        ([[0, 1, 2], [1, 0, 2]], "got others between 2 and 2"),
        ([0, 1], r"integer 'edge_index' of shape \[2, num_edges\], got torch.int64 of shape \[2\]"),
    ],
)
def test_edges_that_are_no_pairs_are_named(edges, message):
    with pytest.raises(ValueError, match=message):
        find_pairs(torch.tensor(edges), 3)


def test_edges_outside_of_the_graph_are_named_and_narrow_ones_do_not_overflow():
    for edges in ([[0, 5], [5, 0]], [[-1, 2], [2, -1]]):
        with pytest.raises(IndexError, match="to 2, got"):
            find_pairs(torch.tensor(edges), 3)
    pairs = find_pairs(torch.tensor([[18, 19], [19, 18]], dtype=torch.uint8), 20)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([18], [19])


def test_it_is_measured_where_who_acts_on_whom_is_known(model):
    batch = Data(x=frames(N), edge_index=EDGES)
    assert model.measure(batch) == {}
    batch.edge_label = torch.ones(EDGES.size(1))
    assert model.measure(batch)["interactions"].shape == (EDGES.size(1),)


def test_bad_arguments_and_inputs_are_named(model):
    with pytest.raises(ValueError, match=r"places and velocities of shape \[N, T, 4\], got \[4, 7, 3\]"):
        model(torch.randn(N, T, 3), EDGES)
    with pytest.raises(ValueError, match=r"expected a frame of shape \[N, 4\], got \[4, 1, 4\]"):
        model.step(frames(N)[:, :1], None, EDGES)
    with pytest.raises(ValueError, match="expected no 'mask'"):
        model(frames(N), EDGES, mask=torch.ones(N, T, dtype=torch.bool))
    with pytest.raises(ValueError, match="6 frames or more to learn from, got 5"):
        model.training_loss(Data(x=frames(N)[:, :3], y=frames(N)[:, :2], edge_index=EDGES))
    with pytest.raises(
        ValueError, match=r"expected 'y' in the batch, the frames to predict, of shape \[N, H, 4\], got"
    ):
        model.training_loss(Data(x=frames(N), edge_index=EDGES))
    gaps = torch.tensor([True] * 3 + [False]).expand(N, 4)
    with pytest.raises(ValueError, match="expected particles that are there in all frames to learn from, got a mask"):
        model.training_loss(Data(x=frames(N), y=frames(N)[:, :4], y_mask=gaps, edge_index=EDGES))
    with pytest.raises(ValueError, match="'motion' to be three numbers"):
        PairForecaster(H, (0.1, 0.2))
    with pytest.raises(ValueError, match="a typical change of a velocity above 0"):
        PairForecaster(H, (0.1, 0.2, 0.0))
    with pytest.raises(TypeError, match="did you mean 'heads'"):
        PairForecaster(H, MOTION, head=2)
