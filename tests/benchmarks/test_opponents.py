"""The opponents compute what the package computes, gradients included, or run on the same input."""

from dataclasses import replace

import pytest
import torch
from compare import assert_equal
from forms import OTHER_FUNCTIONS, OURS, build, names, why_not
from opponents.library import batched_edges
from opponents.same_function import PlainConv
from plain_formula import plain_conv
from problem import Problem, grid_graph, random_graph

GRAPHS = {"grid": grid_graph((2, 1)), "positions": grid_graph((2, 1), positions=True), "irregular": random_graph(12, 3)}


@pytest.mark.parametrize(
    ("graph", "relu_last", "num_stages"),
    [("grid", True, None), ("positions", False, 2), ("positions", True, None), ("irregular", False, None)],
)
def test_all_forms_agree(graph, relu_last, num_stages):
    problem = Problem(GRAPHS[graph], 8, 2, 3, relu_last, num_stages, torch.float64)
    model = problem.model()
    chosen = [name for name in names(problem) if why_not(name, problem, 1e9) is None]
    assert len(set(chosen) - set(OURS) - set(OTHER_FUNCTIONS)) == (4 if num_stages is None else 2)
    built = {name: build(name, problem, model) for name in chosen}
    x = problem.features()
    assert_equal(built, x, torch.randn_like(x))
    for form in built.values():
        assert form.unpack(form.call(form.pack(x))).shape == x.shape


def test_the_plain_form_is_the_formula():
    problem = Problem(GRAPHS["positions"], 8, 2, 3, dtype=torch.float64)
    conv, x = problem.model(), problem.features()
    expected = plain_conv(conv, x, problem.edge_index(), pe=problem.pe())[0]
    torch.testing.assert_close(PlainConv(conv)(x, problem.edge_index(), problem.pe()), expected)


def test_a_difference_is_found():
    problem = Problem(GRAPHS["grid"], 8, 2, 3)
    model, x = problem.model(), problem.features()
    built = {name: build(name, problem, model) for name in ("plain", "split")}
    assert_equal(built, x, torch.randn_like(x))
    with torch.no_grad():
        built["split"].module.layers.query.weight[0, 0] += 0.5
    with pytest.raises(AssertionError, match="form 'split': the output"):
        assert_equal(built, x, torch.randn_like(x))


def test_bfloat16_runs():
    problem = Problem(GRAPHS["grid"], 8, 2, 3, dtype=torch.bfloat16)
    model, x = problem.model(), problem.features()
    built = {name: build(name, problem, model) for name in names(problem) if why_not(name, problem, 1e9) is None}
    assert_equal(built, x, torch.randn_like(x))
    for form in built.values():
        assert form.call(form.pack(x)).dtype == torch.bfloat16


def test_batched_edges_stay_within_their_frame():
    for stride in [1, 3]:
        edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
        source, destination = batched_edges(edge_index, 4, 6, stride).unflatten(1, (6, 3))
        numbers = torch.arange(24).view(-1, 4, stride).transpose(1, 2).reshape(6, 4)
        assert torch.equal(source, numbers[:, :3])
        assert torch.equal(destination, numbers[:, 1:])


def test_what_cannot_take_part_says_why():
    problem = Problem(GRAPHS["grid"], 64, 16, 10)
    assert why_not("rstg-triton", problem, 1e9) == "needs CUDA"
    assert why_not("plain", problem, 1e6) == "too large"
    assert why_not("plain", replace(problem, batch=1), 1e9) is None


def test_random_graphs():
    graph = random_graph(64, 6)
    source, destination = graph.edge_index
    assert graph.num_edges == 64 * 6
    assert (source != destination).all()
    assert graph.edge_index.unique(dim=1).size(1) == graph.num_edges
    assert (destination.bincount(minlength=64) > 0).all()
    assert torch.equal(graph.edge_index, random_graph(64, 6).edge_index)
    with pytest.raises(ValueError, match="under half of 8 nodes, got 5"):
        random_graph(8, 5)
