"""A graph that is computed twice in training instead of kept: the same numbers, in less memory."""

import copy
import dataclasses
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from rstg_pyg import RSTGToMap, RSTGToVec
from rstg_pyg.blocks import RSTGPool
from rstg_pyg.blocks.region_block import RecomputedRSTG, run_recomputed
from rstg_pyg.models import VIDEO_SMALL, build_video_row

FORMS = ["all-temp", "1-temp", "space-only", "time-only", "homogeneous"]
OPTIONS = {"scales": (2, 1), "num_stages": 2}


def twins(make=RSTGToMap, **options):
    """The same block, keeping what it computes and computing it twice."""
    kept = make(3, 4, **{**OPTIONS, **options})
    torch.nn.init.normal_(kept.lin_out.weight if hasattr(kept, "lin_out") else kept.lin_in.weight)
    if isinstance(kept, RSTGPool):
        torch.nn.init.normal_(kept.norm.weight)
    twice = make(3, 4, **{**OPTIONS, **options}, checkpoint=True)
    twice.load_state_dict(kept.state_dict())
    return kept, twice


def volume(num_frames=5):
    return torch.randn(2, 3, num_frames, 7, 9)


def step(block, x, run=None):
    """Outputs, and the gradients of the input and of every parameter, after a loss on all outputs."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    outs = [out for out in tree(block(x) if run is None else run(block, x)) if out.is_floating_point()]
    after = torch.rand(1)
    torch.manual_seed(2)
    sum((out * torch.randn_like(out)).sum() for out in outs if out.requires_grad).backward()
    return [*outs, after, x.grad, *(parameter.grad for parameter in block.parameters())]


def tree(out):
    return torch.utils._pytree.tree_leaves(out)


def assert_identical(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def runs_in_a_step(block, x):
    """How often each stage of the graph runs in a forward and a backward pass: shared time and space, last time."""
    stages = [block.rstg.time_stages[0], block.rstg.space_stages[0], block.rstg.last_time_stage]
    calls = []
    handles = [stage.register_forward_pre_hook(lambda stage, args: calls.append(stage)) for stage in stages]
    out = block(x)
    if out.requires_grad:
        out.sum().backward()
    for handle in handles:
        handle.remove()
    return [calls.count(stage) for stage in stages]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_outputs_and_gradients(form):
    x = volume()
    for make in (RSTGToMap, RSTGToVec, RSTGPool):
        kept, twice = twins(make, stages=form, norm="layer_norm", residual=True)
        assert_identical(step(kept, x), step(twice, x))


@pytest.mark.parametrize("backend", ["auto", "reference", "blocks"])
def test_dropout_draws_the_same_numbers(backend):
    x = volume()
    for options in ({}, {"send_act_last": True, "rnn": "gru"}):
        kept, twice = twins(heads=2, backend=backend, dropout=0.4, **options)
        assert_identical(step(kept, x), step(twice, x))
        assert not torch.equal(twice(x), twice(x))


def test_attention_and_state():
    for make in (RSTGToMap, RSTGToVec):
        kept, twice = twins(make)
        x, (_, state) = volume(), kept.step(volume()[:, :, 0])
        with_attention = lambda block, x: block(x, return_attention_weights=True)  # noqa: E731
        assert_identical(step(kept, x, with_attention), step(twice, x, with_attention))
        state = torch.utils._pytree.tree_map(lambda part: part.detach().requires_grad_(), state)
        found = []
        for block in (kept, twice):
            run = partial(type(block).run, state=state)
            found.append(step(block, x, run) + [part.grad for part in tree(state)])
            state = torch.utils._pytree.tree_map(lambda part: part.detach().requires_grad_(), state)
        assert_identical(*found)
        assert all(grad is not None for grad in found[0][-len(tree(state)) :])


def test_training_on_a_stream():
    for make in (RSTGToMap, RSTGToVec):
        kept, twice = twins(make)

        def stream(block, x):
            outs, state = [], None
            for frame in x.unbind(2):
                out, state = block.step(frame, state)
                outs.append(out)
            return outs, state

        x = volume()
        assert_identical(step(kept, x, stream), step(twice, x, stream))
        torch.testing.assert_close(stream(twice, x)[0][-1], twice(x) if make is RSTGToVec else twice(x)[:, :, -1])


def test_running_statistics_move_once_a_step():
    for options, runs in (({"norm": "batch_norm"}, [6, 6, 3]), ({"input_norm": "batch_norm"}, [3])):
        kept, twice = twins(**options)
        for _ in range(3):
            x = volume()
            assert_identical(step(kept, x), step(twice, x))
            assert_identical(list(kept.buffers()), list(twice.buffers()))
        counts = [buffer for name, buffer in twice.named_buffers() if name.endswith("num_batches_tracked")]
        # With norm: two shared stages of each kind, and the last.
        assert [count.item() for count in counts] == runs
        assert torch.equal(kept.eval()(x), twice.eval()(x))


class Counting(torch.nn.Module):
    """A norm whose output depends on how often it ran in training."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("count", torch.ones(()))

    def forward(self, x):
        if self.training:
            self.count.add_(1)
        return x * self.count.sqrt()


def test_the_second_run_begins_with_the_buffers_of_the_first():
    kept, twice = twins(norm=Counting)
    x, both = volume(), [[], []]
    for block, found in zip((kept, twice), both, strict=True):
        outs = [block(x), block(x)]  # the buffers have moved on when the first backward pass starts
        for out in outs:
            out.square().sum().backward(retain_graph=True)
            out.sum().backward()
        found += [*outs, *(parameter.grad for parameter in block.parameters()), *block.buffers()]
    assert_identical(*both)


def test_it_runs_twice_in_training_alone():
    kept, twice = twins()
    x = volume()
    assert runs_in_a_step(kept, x) == [2, 2, 1]
    assert runs_in_a_step(twice, x) == [4, 4, 2]
    with torch.no_grad():
        assert runs_in_a_step(twice, x) == [2, 2, 1]
    assert runs_in_a_step(twice.eval(), x) == [2, 2, 1]


def test_memory(monkeypatch):
    """Autograd keeps the inputs of the stages, and the peak is that of one stage beside them."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    measure = __import__("measure")
    sys.modules.pop("measure")
    options = {"num_stages": 3, "norm": "layer_norm", "residual": True, "backend": "reference"}
    kept, twice = (block.rstg for block in twins(RSTGToVec, heatmap_size=None, **options))
    edge_index, x = RSTGToVec(3, **OPTIONS).edge_index, torch.randn(5, 2, 400, 4)

    def forward(graph):
        return graph(x, edge_index)[0]

    saved = [measure.saved_bytes(lambda graph=graph: forward(graph), graph.parameters()) for graph in (kept, twice)]
    sizes = [tensor.nbytes for tensor in (x, edge_index)]
    # Seven stages have an input each; edges; two small tensors per stage for the random numbers.
    assert saved[1] <= 7 * sizes[0] + sizes[1] + 7 * 2 * 6000
    assert saved[1] < saved[0] / 4
    peaks = [measure.peak_bytes(lambda graph=graph: forward(graph).sum().backward(), "cpu") for graph in (kept, twice)]
    assert peaks[1] < peaks[0] / 2


def test_it_trains_under_autocast():
    kept, twice = twins()
    x = volume()

    def run(block, x):
        with torch.autocast("cpu", torch.bfloat16):
            return block(x)

    assert_identical(step(kept, x, run), step(twice, x, run))


@pytest.mark.parametrize(("norm", "fullgraph"), [(None, True), ("batch_norm", False)])
def test_compiled_equals_eager(norm, fullgraph):
    kept, twice = (block.double() for block in twins(norm=norm, num_stages=1))
    x = volume().double()
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=fullgraph):
        compiled = torch.compile(twice, backend="aot_eager", fullgraph=fullgraph)
        found = step(twice, x, lambda _, x: compiled(x))
    torch.testing.assert_close(found, step(kept, x))
    torch.testing.assert_close(list(twice.buffers()), list(kept.buffers()))


def test_copies_and_function_transforms():
    kept, twice = twins(norm="batch_norm")
    x = volume()
    twin = copy.deepcopy(twice)
    assert runs_in_a_step(twin, x) == [4, 4, 2]
    twin = copy.deepcopy(twice)
    assert_identical(step(kept, x), step(twin, x))
    kept, twice = twins()
    parameters = dict(twice.named_parameters())
    found = torch.func.grad(lambda p: torch.func.functional_call(twice, p, x).sum())(parameters)
    twice(x).sum().backward()
    torch.testing.assert_close(list(found.values()), [parameter.grad for parameter in twice.parameters()])


@pytest.mark.parametrize("norm", [None, "batch_norm"])
def test_parameters_that_are_lent(norm):
    """They are gone from the module when the second run comes, and its own are those of somebody else."""
    x, found = volume(), []
    for block in twins(norm=norm, rnn="gru"):
        torch.manual_seed(3)
        lent = {name: torch.randn_like(value).requires_grad_() for name, value in block.named_parameters()}
        buffers = {name: value.clone() for name, value in block.named_buffers() if value.is_floating_point()}
        outs = [torch.func.functional_call(block, values, x) for values in (lent, {**lent, **buffers})]
        block.zero_grad()
        found.append([*outs, *torch.autograd.grad(sum(out.square().sum() for out in outs), list(lent.values()))])
        found[-1] += [*buffers.values(), *block.buffers()]
        assert all(parameter.grad is None for parameter in block.parameters())
    assert_identical(*found)


def test_second_derivatives():
    found, x = [], volume(2).requires_grad_()
    for block in twins(backend="reference"):
        (first,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), list(block.lin_in.parameters())))
    torch.testing.assert_close(*found)


def test_a_module_of_any_kind():
    class Scaled(torch.nn.Module):
        def forward(self, x, by):
            return {"out": (x * by).relu()}

    x, by = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    run_recomputed(Scaled(), x, by)["out"].sum().backward()
    torch.testing.assert_close(by.grad, torch.where(x * by > 0, x, 0.0).detach())


@pytest.mark.parametrize("name", ["i3d+rstg:res3-4", "c2d+rstg:vec"])
def test_rows_of_the_video_table(name):
    network = dataclasses.replace(VIDEO_SMALL, width=4, channels=5, num_classes=7)
    kept = build_video_row(name, network)
    twice = build_video_row(name, dataclasses.replace(network, checkpoint_graph=True))
    twice.load_state_dict(kept.state_dict())
    graphs = [module for module in twice.modules() if isinstance(module, RecomputedRSTG)]
    assert len(graphs) == (2 if "res3-4" in name else 1)
    x = torch.rand(2, 3, 4, 32, 32)
    assert_identical(step(kept, x), step(twice, x))
    assert_identical(list(kept.buffers()), list(twice.buffers()))
