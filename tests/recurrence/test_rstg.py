"""The alternation of time and space stages: its laws and its cost in calls."""

import pytest
import torch
from laws import assert_batch_equals_singles, assert_clip_equals_stream, assert_permutation_equivariant
from small_graphs import GRAPHS
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.testing import withDevice
from torch_geometric.utils import to_torch_csr_tensor

from rstg_pyg import RSTG, RSTGConv, TimeStage, region_graph, spacetime_graph

FORMS = ["all-temp", "1-temp", "space-only", "time-only", "homogeneous"]
EDGES, NUM_NODES = GRAPHS["irregular"]


def make(**options):
    torch.manual_seed(3)
    return RSTG(4, **{"num_stages": 2, "pe_channels": 3, **options}).double()


def clip(*inner, num_frames=6):
    return torch.randn(NUM_NODES, *inner, num_frames, 4, dtype=torch.float64)


PE = torch.randn(NUM_NODES, 3, dtype=torch.float64)


def test_it_computes_what_the_method_says():
    """Frame by frame, stage by stage, with the stages' own modules: h = f_time(v), v = f_space(h)."""
    rstg = make(rnn="gru")
    x = clip()
    out, state = rstg(x, EDGES, pe=PE)
    time, space, last = rstg.time_stages[0], rstg.space_stages[0], rstg.last_time_stage
    assert len(rstg.time_stages) == len(rstg.space_stages) == 1
    h = [None, None, None]
    for t in range(x.size(1)):
        v = x[:, t]
        for k in range(2):
            v = time.rnn(v.unsqueeze(1), h[k])[0].squeeze(1)
            h[k] = v.unsqueeze(0)
            v = space(v, EDGES, pe=PE)
        v = last.rnn(v.unsqueeze(1), h[2])[0].squeeze(1)
        h[2] = v.unsqueeze(0)
        torch.testing.assert_close(out[:, t], v)
    for entry, expected in zip(state, h, strict=True):
        torch.testing.assert_close(entry, expected[0])


@pytest.mark.parametrize("rnn", ["lstm", "gru", "linear"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("splits", [1, 4, [2, 1, 3]], ids=str)
def test_clip_equals_stream(form, rnn, splits):
    rstg = make(stages=form, rnn=rnn, norm="layer_norm", residual=True)
    assert_clip_equals_stream(lambda x, state: rstg(x, EDGES, pe=PE, state=state), clip(2), splits, dim=-2)


@pytest.mark.parametrize("form", FORMS)
def test_permutation_equivariance(form):
    rstg = make(stages=form)
    assert_permutation_equivariant(lambda x, edges, pe: rstg(x, edges, pe=pe)[0], clip(), EDGES, PE)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_equals_its_members(form):
    rstg = make(stages=form, pe_channels=36)
    graphs = []
    for scales in [(3, 1), (2, 1), (1,)]:
        graph = region_graph(scales)
        graphs.append(
            Data(
                x=torch.randn(graph.num_nodes, 5, 4).double(),
                edge_index=graph.edge_index,
                heatmap=graph.heatmap.double(),
            )
        )
    assert_batch_equals_singles(lambda data: rstg(data.x, data.edge_index, pe=data.heatmap)[0], graphs)
    batch = next(iter(DataLoader(graphs, batch_size=3)))
    _, state = rstg(batch.x, batch.edge_index, pe=batch.heatmap)
    for entry in state:
        for part in entry if isinstance(entry, tuple) else (entry,):
            assert part.shape == (batch.num_nodes, 4)


@pytest.mark.parametrize("form", FORMS)
def test_inner_dimensions_are_separate_clips(form):
    rstg = make(stages=form)
    x = clip(2, 3)
    out, _ = rstg(x, EDGES, pe=PE)
    torch.testing.assert_close(out[:, 1, 2], rstg(x[:, 1, 2], EDGES, pe=PE)[0])


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("form", FORMS)
def test_the_future_does_not_reach_the_past(form, flow):
    rstg = make(stages=form, flow=flow)
    x = clip()
    changed = x.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(rstg(changed, EDGES, pe=PE)[0][:, :4], rstg(x, EDGES, pe=PE)[0][:, :4])


@pytest.mark.parametrize("num_frames", [1, 3, 17])
def test_the_number_of_calls_does_not_depend_on_the_length(num_frames):
    rstg = make(num_stages=3)
    calls = {"recurrent": 0, "propagate": 0}

    def count(name):
        def hook(*args):
            calls[name] += 1

        return hook

    for module in rstg.modules():
        if isinstance(module, TimeStage):
            module.rnn.register_forward_hook(count("recurrent"))
        if isinstance(module, RSTGConv):
            module.register_propagate_forward_hook(count("propagate"))
    rstg(clip(num_frames=num_frames), EDGES, pe=PE)
    assert calls == {"recurrent": 4, "propagate": 3}


@pytest.mark.parametrize(
    ("form", "time", "space", "last", "num_states"),
    [
        ("all-temp", 1, 1, True, 4),
        ("1-temp", 0, 1, True, 1),
        ("space-only", 0, 1, False, 0),
        ("time-only", 1, 0, True, 4),
        ("homogeneous", 0, 1, False, 3),
    ],
)
def test_forms_hold_the_modules_they_run(form, time, space, last, num_states):
    rstg = make(stages=form, num_stages=3)
    assert (len(rstg.time_stages), len(rstg.space_stages)) == (time, space)
    assert (rstg.last_time_stage is not None) == last
    assert rstg.num_states == num_states
    assert len(rstg(clip(), EDGES, pe=PE)[1]) == num_states


def test_weights_can_be_separate():
    assert len(make(num_stages=3, share_time=False).time_stages) == 3
    rstg = make(num_stages=3, share_space=False)
    assert len(rstg.space_stages) == 3
    x = clip()
    before = rstg(x, EDGES, pe=PE)[0]
    with torch.no_grad():
        rstg.space_stages[2].send.lin_last.weight.add_(1)
    assert not torch.allclose(rstg(x, EDGES, pe=PE)[0], before)


def test_a_sequence_of_stages_is_a_form_too():
    rstg = make(stages=["space", "time", "space"])
    assert rstg.num_states == 1
    assert rstg.last_time_stage is None
    out, _ = rstg(clip(), EDGES, pe=PE)
    assert out.shape == (NUM_NODES, 6, 4)


def test_homogeneous_is_message_passing_on_the_space_time_graph():
    rstg = make(stages="homogeneous")
    graph = Data(x=clip(), edge_index=EDGES, pe=PE, num_nodes=NUM_NODES)
    unrolled = spacetime_graph(graph, num_frames=6)
    x = unrolled.x
    for _ in range(2):
        x = rstg.space_stages[0](x, unrolled.edge_index, pe=unrolled.pe)
    torch.testing.assert_close(rstg(graph.x, EDGES, pe=PE)[0].flatten(0, 1), x)


@pytest.mark.parametrize("form", ["all-temp", "homogeneous", "time-only"])
def test_attention_of_every_space_stage(form):
    rstg = make(stages=form, heads=2)
    x = clip()
    out, _, attention = rstg(x, EDGES, pe=PE, return_attention_weights=True)
    torch.testing.assert_close(out, rstg(x, EDGES, pe=PE)[0])
    assert len(attention) == (0 if form == "time-only" else 2)
    for edge_index, alpha in attention:
        assert alpha.size(0) == edge_index.size(1)
        if form == "all-temp":
            assert alpha.shape == (EDGES.size(1), 6, 2)


def test_a_sparse_matrix_serves_every_frame():
    rstg = make()
    edges = region_graph((2, 1)).edge_index
    x, pe = clip()[:5], PE[:5]
    matrix = to_torch_csr_tensor(edges.flip(0), size=(5, 5))
    torch.testing.assert_close(rstg(x, matrix, pe=pe)[0], rstg(x, edges, pe=pe)[0])


def test_gradcheck():
    rstg = make(act="elu", norm="layer_norm", residual=True)
    x = clip(num_frames=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rstg(x, EDGES, pe=PE)[0], (x,))


@pytest.mark.parametrize(
    "options",
    [
        {"rnn": "lstm"},
        {"rnn": "gru", "backend": "blocks"},
        {"rnn": "linear", "norm": "layer_norm", "residual": True},
        {"send_act_last": True},
        {"send_act_last": True, "backend": "blocks"},
        {"send_layers": 3, "act": "prelu", "backend": "blocks"},
    ],
    ids=str,
)
def test_a_gradient_that_is_differentiated_or_batched_is_the_same(options):
    """Its weights lead to its inputs: stages share them, and so do the pieces of a stream."""
    rstg, x = make(**options), clip(num_frames=4)
    out, state = rstg(x[:, :2], EDGES, pe=PE)
    sums = torch.stack([out.square().sum(), rstg(x[:, 2:], EDGES, pe=PE, state=state)[0].square().sum()])
    weights = list(rstg.parameters())
    expected = torch.autograd.grad(sums.sum(), weights, retain_graph=True)
    found = torch.autograd.grad(sums.sum(), weights, create_graph=True)
    torch.testing.assert_close(found, expected)
    each = torch.autograd.grad(sums, weights, torch.eye(2).double(), is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close([one.sum(0) for one in each], list(expected))
    curvature = torch.autograd.grad(sum(one.square().sum() for one in found), weights)
    shifts, step = [torch.randn_like(one) for one in weights], 1e-7  # a larger one meets PReLU's kinks

    def norm_at(sign):
        with torch.no_grad():
            for weight, shift in zip(weights, shifts, strict=True):
                weight += sign * step * shift
        out, state = rstg(x[:, :2], EDGES, pe=PE)
        total = out.square().sum() + rstg(x[:, 2:], EDGES, pe=PE, state=state)[0].square().sum()
        return sum(one.square().sum() for one in torch.autograd.grad(total, weights))

    slope = (norm_at(1) - norm_at(-2)) / (2 * step)
    expected = sum((one * shift).sum() for one, shift in zip(curvature, shifts, strict=True))
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "backend"), [("all-temp", "inductor"), ("all-temp", "aot_eager"), ("homogeneous", "aot_eager")]
)
@torch._dynamo.config.patch(allow_rnn=True)
def test_compiled_equals_eager(form, backend):
    torch._dynamo.reset()
    rstg = make(stages=form, num_stages=1 if backend == "inductor" else 2)
    x = clip(num_frames=2)
    out, state = torch.compile(rstg, fullgraph=True, backend=backend)(x, EDGES, pe=PE)
    expected, expected_state = rstg(x, EDGES, pe=PE)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(state, expected_state)


def test_without_the_flag_the_space_stages_compile_and_the_time_stages_run_between_them():
    torch._dynamo.reset()
    rstg = make(num_stages=3)
    order = []

    def backend(graph, inputs):
        def run(*args):
            order.append("compiled")
            return graph(*args)

        return run

    for stage in (rstg.time_stages[0], rstg.last_time_stage):
        stage.rnn.register_forward_hook(lambda *args: order.append("recurrent"))
    x = clip()
    out, _ = torch.compile(rstg, backend=backend)(x, EDGES, pe=PE)
    assert order == ["compiled", *["recurrent", "compiled"] * 3, "recurrent"]  # the ends of the edges come first
    torch.testing.assert_close(out, rstg(x, EDGES, pe=PE)[0])


@pytest.mark.parametrize("form", ["all-temp", "time-only"])
def test_a_frame_takes_the_encodings_that_a_clip_takes(form):
    rstg, x = make(stages=form), clip(2, num_frames=1)
    for pe in (PE, PE[:, None], PE[:, None, None].expand(-1, 2, -1, -1)):
        expected = rstg(x, EDGES, pe=pe)[0]
        with torch.no_grad():
            torch.testing.assert_close(rstg(x, EDGES, pe=pe)[0], expected)


@pytest.mark.parametrize("rnn", ["lstm", "gru", "linear"])
def test_autocast_is_near_float32_and_its_state_goes_on(rnn):
    rstg = make(rnn=rnn, norm="layer_norm", residual=True).float()
    x, pe = clip().float(), PE.float()
    with torch.autocast("cpu", torch.bfloat16):
        first, state = rstg(x[:, :3], EDGES, pe=pe)
        second, _ = rstg(x[:, 3:], EDGES, pe=pe, state=state)
        second.sum().backward()
    out = torch.cat([first, second], 1).float()
    torch.testing.assert_close(out, rstg(x, EDGES, pe=pe)[0], atol=0.1, rtol=0.05)


@withDevice
def test_devices(device):
    graph = region_graph((3, 2, 1)).to(device)
    rstg = RSTG(8, pe_channels=36).to(device)
    out, state = rstg(torch.randn(14, 5, 8, device=device), graph.edge_index, pe=graph.heatmap)
    assert out.device == state[0][0].device == device


def test_nothing_is_kept_on_the_module():
    rstg = make()
    x = clip()
    first = rstg(x, EDGES, pe=PE)[0]
    torch.testing.assert_close(rstg(x, EDGES, pe=PE)[0], first)


def test_repr():
    assert repr(RSTG(8, num_stages=1)) == "RSTG(8, num_stages=1, stages=('time', 'space', 'time'))"
    assert repr(TimeStage(8, "gru")) == "TimeStage(8, rnn='gru')"
    assert repr(TimeStage(8, "linear")) == "TimeStage(8, rnn='linear')"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_one_frame_through_the_cell_equals_the_network(rnn, bias):
    stage = TimeStage(6, rnn, bias=bias).double()
    x = torch.randn(5, 3, 6).double().requires_grad_()
    seen = []
    expected, state = stage(x)
    state_of_stream, outs = None, []
    for frame in x.split(1, dim=1):
        out, state_of_stream = stage(frame, state_of_stream)
        outs.append(out)
    torch.testing.assert_close((torch.cat(outs, 1), state_of_stream), (expected, state))
    assert torch.autograd.gradcheck(lambda x: stage(x[:, :1])[0], x)
    stage.rnn.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(stage(x[:, :1])[0], outs[0])
    assert seen, "a hook on the network sees its calls"


@pytest.mark.parametrize("frames", [1, 3])
def test_a_residual_time_stage_adds_its_input_as_it_came(frames):
    stage, x = TimeStage(4, norm="layer_norm", residual=True), torch.randn(7, frames, 4)
    torch.testing.assert_close(stage(x)[0], x + stage.rnn(stage.norm(x))[0])
