"""Transforms, exporters, quantisation and counters get the layer's function, whatever computes it."""

import pytest
import torch
import torch.autograd.forward_ad as fwd
from small_graphs import irregular_graph
from torch.export import Dim, export
from torch.utils.flop_counter import FlopCounterMode

from rstg_pyg import RSTGConv, RSTGToVec, region_graph
from rstg_pyg.models import MeanLSTM

EDGES = irregular_graph()
SMALL = [{}, {"send_act_last": True}, {"attention": "mean"}, {"send_layers": 3}]
BATCHED = [(4, {"backend": backend, **options}) for backend in ("auto", "blocks") for options in SMALL]
close = torch.testing.assert_close


@pytest.mark.parametrize(("channels", "options"), [*BATCHED, (64, {})], ids=str)
def test_batched_gradients(channels, options):
    """Of small products, and of some that are large enough for other kernels."""
    edge_index, frames = (EDGES, 3) if channels == 4 else (region_graph((3, 2, 1)).edge_index, 160)
    conv = RSTGConv(channels, channels, **options).to(torch.float64 if channels == 4 else torch.float32)
    x = torch.randn(edge_index.max() + 1, frames, channels, dtype=conv.send.lin_dst.weight.dtype, requires_grad=True)
    out = conv(x, edge_index)
    several = torch.randn(3, *out.shape, dtype=x.dtype)

    def grad(of_out, **kwargs):
        return torch.autograd.grad(out, x, of_out, retain_graph=True, **kwargs)[0]

    bounds = {} if channels == 4 else {"rtol": 1e-3, "atol": 1e-4}
    batched = grad(several, is_grads_batched=True)
    close(batched, torch.stack([grad(one) for one in several]), **bounds)
    close(torch.func.vmap(grad)(several), batched, **bounds)


def test_jacobians():
    conv = RSTGConv(2, 2).double()
    x = torch.randn(7, 1, 2).double()

    def forward(x):
        return conv(x, EDGES)

    expected = torch.autograd.functional.jacobian(forward, x)
    for strategy in ("reverse-mode", "forward-mode"):
        close(torch.autograd.functional.jacobian(forward, x, vectorize=True, strategy=strategy), expected)
    close(torch.func.jacfwd(forward)(x), expected)
    close(torch.func.jacrev(forward)(x), expected)
    plain, vectorised = (
        torch.autograd.functional.hessian(lambda x: forward(x).square().sum(), x, vectorize=vectorize)
        for vectorize in (False, True)
    )
    close(vectorised, plain)


def test_forward_mode_differentiation():
    block = RSTGToVec(4, scales=(2, 1), num_stages=1).double()
    volume, tangent = torch.randn(2, 2, 4, 3, 5, 5).double().unbind()
    expected = (block(volume + 1e-6 * tangent) - block(volume - 1e-6 * tangent)) / 2e-6
    close(torch.func.jvp(block, (volume,), (tangent,))[1], expected, rtol=1e-5, atol=1e-8)
    with fwd.dual_level():
        found = fwd.unpack_dual(block(fwd.make_dual(volume, tangent))).tangent
    close(found, expected, rtol=1e-5, atol=1e-8)


def test_traced_code_takes_other_inputs():
    conv = RSTGConv(4, 4)
    traced = torch.jit.trace(conv, (torch.randn(7, 3, 4), EDGES))
    x, edge_index = torch.randn(14, 5, 4), torch.cat([EDGES, EDGES + 7], dim=1)
    close(traced(x, edge_index), conv(x, edge_index))


@pytest.mark.parametrize("strict", [False, True])
def test_exported_code_takes_other_numbers_of_nodes_frames_and_edges(strict):
    conv = RSTGConv(4, 4)
    sizes = {"x": {0: Dim("nodes"), 1: Dim("frames")}, "edge_index": {1: Dim("edges")}}
    inputs = {"x": torch.randn(5, 3, 4), "edge_index": region_graph((2, 1)).edge_index}
    exported = export(conv, (), inputs, dynamic_shapes=sizes, strict=strict).module()
    x = torch.randn(7, 6, 4)
    close(exported(x=x, edge_index=EDGES), conv(x, EDGES))


def test_an_exported_block_takes_other_numbers_of_clips():
    block = RSTGToVec(4, scales=(2, 1))
    exported = export(block, (torch.randn(2, 4, 3, 6, 6),), dynamic_shapes=({0: Dim("clips")},)).module()
    volume = torch.randn(5, 4, 3, 6, 6)
    close(exported(volume), block(volume))


@pytest.mark.parametrize("make", [RSTGToVec, MeanLSTM])
@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_dynamic_quantisation(rnn, make):
    block = make(4, channels=8, rnn=rnn)
    kinds = {torch.nn.Linear, torch.nn.LSTM, torch.nn.GRU}
    quantised = torch.ao.quantization.quantize_dynamic(block, kinds, torch.float16)
    assert type(block.rnn if make is MeanLSTM else block.rstg.time_stages[0].rnn) not in map(type, quantised.modules())
    volume, state = torch.randn(2, 4, 3, 6, 6), None
    with torch.no_grad():
        for frame in volume.unbind(2):
            out, state = quantised.step(frame, state)
        close(quantised(volume), block(volume), rtol=1e-2, atol=1e-2)
        close(out, block(volume), rtol=1e-2, atol=1e-2)


def flops(call, *inputs):
    with FlopCounterMode(display=False) as counter:
        call(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("channels", [8, 64])
def test_flop_counters_see_the_arithmetic_of_the_formula(channels):
    """In units of C^2 multiply-adds per frame and node: 3 for sending, 3 for the update, 2 for dot attention, 8 for an
    LSTM; beside them the positions' projections and the pooling."""
    graph, frames, nodes = region_graph((3, 2, 1)), 160, 14
    conv = RSTGConv(channels, channels)
    stage = 2 * nodes * (3 + 3 + 2) * channels**2
    assert flops(conv, torch.randn(nodes, frames, channels), graph.edge_index) == frames * stage
    block = RSTGToVec(channels)
    pooling = 2 * nodes * 36 * channels
    positions = 2 * nodes * 36 * 2 * channels
    expected = 10 * (3 * stage + 4 * 2 * nodes * 8 * channels**2 + pooling) + 3 * positions
    assert flops(block, torch.randn(1, channels, 10, 6, 6)) == expected
