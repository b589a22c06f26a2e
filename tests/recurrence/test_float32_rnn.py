"""Recurrent networks where autocast asks for bfloat16."""

import pytest
import torch

from rstg_pyg import TimeStage
from rstg_pyg.models import MeanLSTM
from rstg_pyg.recurrence import time_stage
from rstg_pyg.recurrence.rnn import autocast_takes_float16, run_rnn


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_it_is_the_network_without_autocast(monkeypatch, kind):
    monkeypatch.setattr("rstg_pyg.recurrence.rnn.autocast_takes_float16", lambda rows: True)
    rnn = kind(6, 6, batch_first=True)
    rows = torch.randn(5, 3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        first, memory = run_rnn(rnn, rows[:, :2])
        low = tuple(part.bfloat16() for part in memory) if isinstance(memory, tuple) else memory.bfloat16()
        out, _ = run_rnn(rnn, rows[:, 2:], memory)
        rounded, _ = run_rnn(rnn, rows[:, 2:], low)
    expected, _ = rnn(rows)
    assert out.dtype == rounded.dtype == torch.float32
    torch.testing.assert_close(torch.cat([first, out], 1), expected)
    torch.testing.assert_close(rounded, expected[:, 2:], atol=0.01, rtol=0.01)


def test_only_on_cuda():
    with torch.autocast("cpu", torch.bfloat16):
        assert not autocast_takes_float16(torch.randn(1, 1, 1))


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_the_time_stage_takes_it_and_keeps_its_memory(monkeypatch, rnn):
    stage = TimeStage(6, rnn, norm="layer_norm", residual=True)
    x = torch.randn(5, 4, 6)
    expected, _ = stage(x)
    monkeypatch.setattr("rstg_pyg.recurrence.rnn.autocast_takes_float16", lambda rows: True)
    monkeypatch.setattr(time_stage, "_CELL_ROWS", 0)
    with torch.autocast("cpu", torch.bfloat16):
        first, state = stage(x[:, :2])
        second, _ = stage(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), expected, atol=0.02, rtol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize(
    "make", [lambda rnn: TimeStage(8, rnn), lambda rnn: MeanLSTM(8, rnn=rnn)], ids=["stage", "mean"]
)
def test_small_gradients_live_under_autocast_on_cuda(make, rnn):
    module = make(rnn).cuda()
    x = (
        torch.randn(4, 8, 5, 3, 3, device="cuda")
        if isinstance(module, MeanLSTM)
        else torch.randn(14, 5, 8, device="cuda")
    )

    def gradient(scale):
        out = module(x)
        out = out[0] if isinstance(out, tuple) else out
        (found,) = torch.autograd.grad(out.float().sum() * scale, [module.rnn.weight_ih_l0])
        return found / scale

    expected = gradient(1.0)
    with torch.autocast("cuda", torch.bfloat16):
        assert autocast_takes_float16(x)
        torch.testing.assert_close(gradient(1e-9), expected, atol=0.02, rtol=0.05)
