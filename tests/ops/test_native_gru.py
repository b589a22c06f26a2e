"""The steps of a GRU in native code, against PyTorch's."""

import pytest
import torch
from cases import case
from torch.nn import GRU

from rstg_pyg import TimeStage
from rstg_pyg.ops.native.attend import is_available
from rstg_pyg.ops.native.gru import gru, takes_gru
from rstg_pyg.recurrence import time_stage

pytestmark = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")


def make(rows, dtype=torch.float64, bias=True, channels=48):
    rnn = GRU(20, channels, bias=bias, batch_first=True, dtype=dtype)
    x = torch.randn(rows, 5, 20, dtype=dtype, requires_grad=True)
    return rnn, x, torch.randn(rows, channels, dtype=dtype, requires_grad=True)


def gradients(out, inputs, **options):
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return torch.autograd.grad(out, inputs, towards, **options)


def test_it_is_what_pytorch_computes():
    torch.manual_seed(0)
    for rows in (1, 5, 6, 200):
        for bias in (True, False):
            for is_first in (True, False):
                with case(rows, bias, is_first):
                    rnn, x, start = make(rows, bias=bias)
                    assert takes_gru(x, rnn)
                    out = gru(x, None if is_first else start, rnn)
                    expected = rnn(x, None if is_first else start[None])[0]
                    torch.testing.assert_close(out, expected)
                    inputs = [x, *rnn.parameters(), *([] if is_first else [start])]
                    for a, b in zip(gradients(out, inputs), gradients(expected, inputs), strict=True):
                        torch.testing.assert_close(a, b)
                    with torch.no_grad():
                        torch.testing.assert_close(gru(x, None if is_first else start, rnn), expected)


def test_float32_and_autocast_lie_by_float64():
    torch.manual_seed(0)
    for cast, dtype in ((False, torch.float32), (True, torch.float32), (True, torch.bfloat16)):
        with case(cast, dtype):
            rnn, x, _ = make(30, torch.float32, channels=64)
            x = x.detach().to(dtype).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                assert takes_gru(x, rnn)
                out = gru(x, None, rnn)
            exact = GRU(20, 64, batch_first=True, dtype=torch.float64)
            exact.load_state_dict(rnn.state_dict())
            wide = x.detach().double().requires_grad_()
            expected = exact(wide)[0]
            assert out.dtype == dtype
            found, wanted = (
                (out, *gradients(out, [x, *rnn.parameters()])),
                gradients(expected, [wide, *exact.parameters()]),
            )
            tolerance = 0.02 if cast else 1e-5
            for a, b in zip(found, (expected, *wanted), strict=True):
                torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * b.abs().max().item())


def test_gradients_of_gradients():
    torch.manual_seed(0)
    rnn, x, start = make(3, channels=16)
    inputs, found = [x, start, *rnn.parameters()], []
    # PyTorch differentiates its GRU twice where it is made of several operations.
    with torch.backends.mkldnn.flags(enabled=False):
        for out in (gru(x, start, rnn), rnn(x, start[None])[0]):
            first = gradients(out, inputs, create_graph=True)
            found.append(torch.autograd.grad(sum(one.square().sum() for one in first), inputs))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_the_time_stage_takes_it_where_nobody_looks(monkeypatch):
    torch.manual_seed(0)
    stage, x, calls = TimeStage(16, rnn="gru").double(), torch.randn(4, 3, 6, 16, dtype=torch.float64), []
    monkeypatch.setattr(time_stage, "gru", lambda *inputs: calls.append(inputs) or gru(*inputs))
    out, state = stage(x)
    first, memory = stage(x[..., :2, :])
    rest, last = stage(x[..., 2:, :], memory)
    torch.testing.assert_close(torch.cat([first, rest], -2), out)
    torch.testing.assert_close(last, state)
    assert len(calls) == 3
    handle = stage.rnn.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(stage(x)[0], out)
    handle.remove()
    assert len(calls) == 3
    for rnn in (
        GRU(16, 24, batch_first=True),
        GRU(16, 256, batch_first=True),
        GRU(16, 16),
        GRU(16, 16, 2, batch_first=True),
    ):
        assert not takes_gru(x.float(), rnn), rnn
