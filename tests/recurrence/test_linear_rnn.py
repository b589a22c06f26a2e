"""The time stage that is linear in its state: what it computes, who may follow it, and how long it remembers."""

import re

import pytest
import torch
from laws import assert_clip_equals_stream
from small_graphs import GRAPHS

from rstg_pyg import RSTG, TimeStage
from rstg_pyg.recurrence import LinearRNN

EDGES, N = GRAPHS["irregular"]
C = 4


def walk(rnn, x):
    """Frame by frame, with the formula's own letters."""
    h, outs = torch.zeros_like(x[:, 0]), []
    for frame in x.unbind(1):
        d, v = rnn.lin(frame).chunk(2, -1)
        a = (d + rnn.decay).sigmoid()
        h = a * h + (1 - a) * (v if rnn.bias is None else v + rnn.bias)
        outs.append(h)
    return torch.stack(outs, 1)


@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_what_it_says(bias):
    stage, x = TimeStage(C, "linear", norm="layer_norm", residual=True, bias=bias).double(), torch.randn(N, 9, C)
    if bias:
        torch.nn.init.normal_(stage.rnn.bias)
    x = x.double()
    torch.testing.assert_close(stage(x)[0], x + walk(stage.rnn, stage.norm(x)))
    assert torch.autograd.gradcheck(lambda x: stage(x)[0], x[:3, :4].requires_grad_())


def test_decays_start_between_0_9_and_0_999_whatever_was_there():
    rnn = LinearRNN(5)
    expected = 1 - torch.tensor([1e-1, 10**-1.5, 1e-2, 10**-2.5, 1e-3])
    for _ in range(2):
        torch.testing.assert_close(rnn.decay.sigmoid(), expected)
        torch.nn.init.normal_(rnn.decay)
        rnn.reset_parameters()


def test_a_state_of_other_sequences():
    for rows, ptr in [(torch.randn(4, 3, C), None), (torch.randn(12, C), torch.tensor([0, 3, 6, 9, 12]))]:
        for shape in [(3, C), (4, 1), (4, C, 1)]:
            with pytest.raises(ValueError, match=re.escape(f"'state' of shape [4, {C}], got {list(shape)}")):
                LinearRNN(C)(rows, torch.zeros(shape), ptr)


def test_a_call_of_the_product_is_seen_and_its_place_may_be_taken():
    stage, x, seen = TimeStage(C, "linear").double(), torch.randn(N, 5, C).double(), []
    expected, _ = stage(x)
    stage.rnn.lin.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(stage(x)[0], expected)
    assert seen == [1]
    torch.nn.utils.parametrizations.weight_norm(stage.rnn.lin)
    torch.testing.assert_close(stage(x)[0], expected)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
def test_a_long_stream_does_not_drift(dtype, tolerance):
    """Two thirds of the frames are there, and all frames are much alike, where rounding would add up."""
    stage, x = TimeStage(C, "linear"), torch.randn(3, 6000, C) * 0.1 + 1
    mask, narrow = torch.rand(3, 6000) < 0.67, TimeStage(C, "linear").to(dtype)
    narrow.load_state_dict(stage.state_dict())
    with torch.no_grad():
        _, expected = stage.double()(x.double(), mask=mask)
        state = None
        for piece, there in zip(x.to(dtype).split(7, 1), mask.split(7, 1), strict=True):
            out, state = narrow(piece, state, there)
    assert (out.dtype, state.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(state.double(), expected, rtol=tolerance, atol=tolerance)


def test_a_stream_in_bfloat16_is_the_clip():
    stage, x = TimeStage(C, "linear").bfloat16(), torch.randn(N, 50, C).bfloat16()
    assert_clip_equals_stream(stage, x, 1, dim=1)


def test_nobody_there_and_what_stands_where_nobody_is():
    stage, x, mask = TimeStage(C, "linear"), torch.randn(N, 6, C), torch.rand(N, 6) < 0.5
    state = stage(x)[1].detach()
    out, after = stage(x, state, torch.zeros_like(mask))
    assert not out.any() and torch.equal(after, state)
    assert stage.bfloat16()(x.bfloat16(), None, torch.zeros_like(mask))[1].dtype == torch.float32
    stage.float()
    grads = []
    for filling in (0.0, torch.nan):
        given = torch.where(mask.unsqueeze(-1), x, filling).requires_grad_()
        stage.zero_grad()
        stage(given, state, mask)[0].square().sum().backward()
        grads.append([given.grad, *(parameter.grad for parameter in stage.parameters())])
    torch.testing.assert_close(*grads)


@pytest.mark.skipif(torch.__version__ < (2, 13), reason="older compilers say that they export: the plain form runs")
def test_one_compiled_graph_without_any_flag_takes_other_numbers_of_frames():
    torch._dynamo.reset()
    rstg = RSTG(C, rnn="linear", num_stages=1, norm="layer_norm")
    compiled = torch.compile(rstg, fullgraph=True, backend="aot_eager", dynamic=True)
    state = None
    for frames in (3, 5, 8):
        x = torch.randn(N, frames, C)
        torch.testing.assert_close(compiled(x, EDGES, state=state), rstg(x, EDGES, state=state))
        _, state = rstg(x, EDGES, state=state)


def test_exported_code_takes_other_numbers_of_sequences():
    stage, x = TimeStage(C, "linear"), torch.randn(N, 6, C)
    exported = torch.export.export(stage, (x,), dynamic_shapes=({0: torch.export.Dim("nodes")},))
    x = torch.randn(N + 3, 6, C)
    torch.testing.assert_close(exported.module()(x), stage(x))
