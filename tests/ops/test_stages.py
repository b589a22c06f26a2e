"""A frame through all stages in one call gives what the stages give one after the other."""

import pytest
import torch
from process_settings import process_settings
from small_graphs import irregular_graph
from torch.nn import Parameter

from rstg_pyg import RSTG, RSTGConv
from rstg_pyg.conv import rstg_conv
from rstg_pyg.ops import stages as one_call
from rstg_pyg.ops.native.attend import is_available
from rstg_pyg.recurrence import rstg as recurrence

pytestmark = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")
EDGES = irregular_graph()
close = torch.testing.assert_close

OPTIONS = {
    "default": {},
    "gru, normed": {"rnn": "gru", "norm": "layer_norm", "residual": True},
    "heads": {"heads": 2, "hidden_channels": 5, "num_stages": 2, "share_space": False},
    "active ends, no bias": {"update_act_last": True, "bias": False, "share_time": False},
    "gru, no bias, one update layer": {"rnn": "gru", "bias": False, "update_layers": 1},
    "norm without weights": {"norm": lambda channels: torch.nn.LayerNorm(channels, elementwise_affine=False)},
    "1-temp, other flow": {"stages": "1-temp", "flow": "target_to_source"},
    "space-only": {"stages": "space-only", "norm": "layer_norm"},
    "time-only": {"stages": "time-only"},
}


@pytest.fixture
def calls(monkeypatch):
    """The stages of every call."""
    found = []

    def run_stages(x, stages, *rest, **options):
        found.append(len(stages))
        return one_call.run_stages(x, stages, *rest, **options)

    monkeypatch.setattr(rstg_conv, "run_stages", run_stages)
    monkeypatch.setattr(recurrence, "run_stages", run_stages)
    return found


def stream(rstg, x, pe):
    outs, state = [], None
    for one in x.split(1, -2):
        out, state = rstg(one, EDGES, pe=pe, state=state)
        outs.append(out)
    return torch.cat(outs, -2), state


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_a_stream_in_one_call_per_frame_gives_what_the_clip_gives(options, calls):
    # Widths below, at and beside the processor's vectors; frames of one clip and of several.
    cases = ((6, (), torch.float64), (32, (3,), torch.float32), (34, (2, 2), torch.float32))
    for channels, inner, dtype in cases:
        for pe in (None, torch.randn(7, 5, dtype=dtype)):
            rstg = RSTG(channels, pe_channels=0 if pe is None else 5, **options).to(dtype)
            x = torch.randn(7, *inner, 3, channels, dtype=dtype)
            expected = rstg(x, EDGES, pe=pe)
            assert calls == []
            with torch.no_grad():
                close(stream(rstg, x, pe), expected)
            assert calls == [len(rstg.stages)] * 3
            calls.clear()


@pytest.mark.parametrize("options", [{}, {"heads": 2, "flow": "target_to_source"}], ids=str)
def test_attention_is_that_of_the_stages_and_changes_no_number(options, calls):
    for make, x in (
        (RSTG, torch.randn(7, 2, 1, 8)),
        (RSTGConv, torch.randn(7, 8)),
        (RSTGConv, torch.randn(7, 2, 3, 8)),
    ):
        module = make(8, **options) if make is RSTG else make(8, 8, **options)
        expected = module(x, EDGES, return_attention_weights=True)
        with torch.no_grad():
            found, alone = module(x, EDGES, return_attention_weights=True), module(x, EDGES)
        close(found, expected)
        assert torch.equal(found[0], alone[0] if make is RSTG else alone)
    assert len(calls) == 6


@torch.no_grad()
def test_threads_share_a_product(calls):
    rstg, x = RSTG(160), torch.randn(7, 9, 1, 160)
    found = []
    for threads in (1, 3):
        with process_settings():
            torch.set_num_threads(threads)
            found.append(stream(rstg, x, None))
    close(*found)
    assert calls == [7, 7]


def test_what_one_call_cannot_do_goes_through_the_stages(calls):
    x, pe = torch.randn(7, 3, 1, 8), torch.randn(7, 3)
    others = (
        {"rnn": "linear"},
        {"norm": "batch_norm"},
        {"stages": "homogeneous"},
        {"attention": "mean"},
        {"act": "gelu"},
        {"send_act_last": True},
        {"update_layers": 3},
        {"dropout": 0.5},
        {"backend": "reference"},
        {"edge_dim": 2},
    )
    for options in others:
        rstg = RSTG(8, pe_channels=3, **options)
        edge_attr = torch.randn(10, 2) if "edge_dim" in options else None
        results = []
        for with_grad in (True, False):
            torch.manual_seed(0)
            with torch.set_grad_enabled(with_grad):
                results.append(rstg(x, EDGES, edge_attr, pe))
        close(*results)
        # Beside another time stage, and on the graph of space and time, each space stage on its own.
        assert calls == ([1] * 3 if {"rnn", "stages"} & options.keys() else []), options
        calls.clear()
    with torch.no_grad():
        rstg = RSTG(8, pe_channels=3)
        for given in (pe.double(), pe.unsqueeze(1).expand(7, 3, 3).unsqueeze(2)):
            close(rstg(x, EDGES, pe=given), rstg(x, EDGES, pe=pe))
        assert calls == [7] * 2
        with torch.autocast("cpu", torch.bfloat16):
            rstg(x, EDGES, pe=pe)
        assert len(calls) == 2


@torch.no_grad()
def test_inputs_of_any_layout_are_read_as_they_are(calls):
    conv, x, edges = RSTGConv(8, 8, pe_channels=2), torch.randn(7, 3, 8), EDGES.t().contiguous().t()
    pe = torch._neg_view(torch.randn(7, 2))
    expected = conv(x, EDGES, pe=pe.resolve_neg())
    for given in (x, x.movedim(1, 0).contiguous().movedim(0, 1), x.repeat_interleave(2, -1)[..., ::2]):
        close(conv(given, edges, pe=pe), expected)
    assert calls == [1] * 4


@pytest.mark.parametrize("backend", ["native", "blocks", "reference"])
@pytest.mark.parametrize("rows", [1, 40])
def test_a_negated_view_is_read_as_what_it_stands_for(backend, rows):
    x = torch._neg_view(torch.randn(7, rows, 8))  # as the imaginary part of a conjugate is one
    conv = RSTGConv(8, 8, backend=backend)
    close(conv(x, EDGES), conv(x.resolve_neg(), EDGES))
    rstg = RSTG(8, rnn="gru", backend=backend)
    state = (x[:, 0],) * 4
    for given in (x, x.resolve_neg()):
        for with_grad in (True, False):
            with torch.set_grad_enabled(with_grad):
                close(
                    rstg(given, EDGES, state=state), rstg(x.resolve_neg(), EDGES, state=(state[0].resolve_neg(),) * 4)
                )


@torch.no_grad()
def test_a_weight_of_another_shape_is_refused():
    conv = RSTGConv(4, 4)
    conv.update_mlp.lins[1].weight = Parameter(torch.randn(4, 3))
    with pytest.raises(ValueError, match=r"of shape \[4, 4\], got torch.float32 \[4, 3\]"):
        conv(torch.randn(7, 4), EDGES)
    with pytest.raises(IndexError, match="got 7"):
        RSTGConv(4, 4)(torch.randn(7, 4), EDGES + 2)
