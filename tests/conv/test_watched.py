"""Whoever watches, changes or replaces a part of the layer is obeyed by every backend, or gets the reference."""

import copy
from typing import Optional

import pytest
import torch
import torch.autograd.forward_ad as fwd
from small_graphs import irregular_graph
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune, weight_norm
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.nn.aggr import MaxAggregation, SumAggregation
from torch_geometric.typing import OptTensor
from torch_geometric.utils import scatter, to_torch_csr_tensor

from rstg_pyg import RSTGConv, RSTGToVec, region_graph
from rstg_pyg.conv.rstg_conv import _METHODS
from rstg_pyg.models import MeanLSTM
from rstg_pyg.watched import messages_are_watched

EDGES = irregular_graph()
CASES = pytest.mark.parametrize(
    "backend, options",
    [("auto", {}), ("auto", {"send_act_last": True}), ("blocks", {}), ("reference", {"heads": 2})],
    ids=["auto", "auto, paper", "blocks", "reference, heads"],
)


def small_conv(**options):
    return RSTGConv(4, 4, pe_channels=2, norm="layer_norm", residual=True, **options).double()


def run(conv, edge_index=EDGES):
    """Output and gradients of the input and of the parameters by name, for rows enough for all products to merge."""
    torch.manual_seed(0)
    x, pe = torch.randn(7, 9, 4).double().requires_grad_(), torch.randn(7, 2).double()
    conv.zero_grad()
    out = conv(x, edge_index, pe=pe)
    out.square().sum().backward()
    return out.detach(), x.grad, {name: parameter.grad for name, parameter in conv.named_parameters()}


# Children: a call of a child with twice its output is the plain layer with twice some of its weights.

DOUBLED = {
    "norm": ["norm"],
    "send": ["send.lin_src", "send.lin_dst", "send.lin_pe_src", "send.lin_pe_dst"],
    "send.act": ["send.lin_last.weight"],
    "pair_score": ["pair_score.lin_dst", "pair_score.lin_src"],
    "update_mlp": ["update_mlp.lins.1"],
    "update_mlp.act": ["update_mlp.lins.1.weight"],
}
LAYERS = ["send.lin_src", "send.lin_dst", "send.lin_pe_src", "send.lin_pe_dst", "send.lin_last"]
LAYERS += ["pair_score.lin_dst", "pair_score.lin_src", "update_mlp.lins.0", "update_mlp.lins.1"]


def twice(out):
    return tuple(2 * value for value in out) if isinstance(out, tuple) else 2 * out


def by_a_subclass(module):
    kind = type(module)
    module.__class__ = type("Twice", (kind,), {"forward": lambda self, *args: twice(kind.forward(self, *args))})


def by_a_forward_on_the_instance(module):
    forward = module.forward
    module.forward = lambda *args: twice(forward(*args))


def by_a_hook(module):
    module.register_forward_hook(lambda module, inputs, out: twice(out))


@CASES
@pytest.mark.parametrize("change", [by_a_subclass, by_a_forward_on_the_instance, by_a_hook])
def test_a_child_with_twice_its_output_is_obeyed(change, options, backend):
    for name, weights in {**DOUBLED, **{name: [name] for name in LAYERS}}.items():
        if name == "send.act" and "send_act_last" in options:
            continue  # it doubles the message as well, which is no weight's
        conv = small_conv(backend="reference", **options)
        plain = copy.deepcopy(conv)
        for key, parameter in plain.named_parameters():
            if any(key == weight or key.startswith(f"{weight}.") for weight in weights):
                parameter.data *= 2
        change(conv.get_submodule(name))
        conv.backend = backend
        out, grad, _ = run(conv)
        torch.testing.assert_close((out, grad), run(plain)[:2], msg=lambda text, name=name: f"{name}: {text}")


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


class LowRank(torch.nn.Module):
    """An adapter as libraries make them: it calls the layer, adds a product of two thin matrices, and shows the layer's
    attributes as its own."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.a = torch.nn.Parameter(torch.randn(2, base.weight.size(1), dtype=base.weight.dtype))
        self.b = torch.nn.Parameter(torch.randn(base.weight.size(0), 2, dtype=base.weight.dtype))

    def forward(self, x):
        return self.base(x) + x @ self.a.t() @ self.b.t()

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def by_a_parametrisation(conv, name):
    layer = conv.get_submodule(name)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer.weight, {"parametrizations.weight.original": lambda grad: 2 * grad}


def by_pruning(conv, name):
    layer = conv.get_submodule(name)
    prune.random_unstructured(layer, "weight", 0.5)
    with torch.no_grad():
        layer.weight_orig += 1  # as an optimiser does: what lies in ``weight`` is of yesterday
    return layer.weight_orig * layer.weight_mask, {"weight_orig": lambda grad: grad * layer.weight_mask}


def by_weight_norm(conv, name):
    layer = conv.get_submodule(name)
    weight = layer.weight.detach().clone()
    weight_norm(layer)
    with torch.no_grad():
        layer.weight_g *= 2
    v = layer.weight_v / layer.weight_v.norm(dim=1, keepdim=True)
    return 2 * weight, {"weight_g": lambda grad: (grad * v).sum(1, keepdim=True)}


def by_an_adapter(conv, name):
    adapter = LowRank(conv.get_submodule(name))
    conv.set_submodule(name, adapter)
    grads = {"a": lambda grad: adapter.b.t() @ grad, "b": lambda grad: grad @ adapter.a.t()}
    return adapter.weight + adapter.b @ adapter.a, grads


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@CASES
@pytest.mark.parametrize("change", [by_a_parametrisation, by_pruning, by_weight_norm, by_an_adapter])
def test_a_layer_with_another_weight_than_its_own_is_obeyed(change, options, backend):
    for name in LAYERS:
        conv = small_conv(backend="reference", **options)
        plain = copy.deepcopy(conv)
        weight, grads = change(conv, name)
        plain.get_submodule(name).weight.data = weight.detach()
        conv.backend = backend
        out, grad, found = run(conv)
        expected_out, expected_grad, expected = run(plain)
        grads = {key: of_weight(expected[f"{name}.weight"]) for key, of_weight in grads.items()}
        torch.testing.assert_close(
            (out, grad, {key: found[f"{name}.{key}"] for key in grads}),
            (expected_out, expected_grad, grads),
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("backend", ["auto", "blocks"])
def test_an_activation_of_ones_own_is_called_as_message_passing_calls_it(backend):
    scale = torch.nn.Parameter(torch.tensor(2.0).double())
    for act in ("rrelu", lambda h: scale * h.relu()):
        results = []
        for name in ("reference", backend):
            torch.manual_seed(0)
            conv, scale.grad = RSTGConv(4, 4, act=act, update_layers=1, backend=name).double(), None
            x = torch.randn(7, 3, 4).double().requires_grad_()
            conv(x, EDGES).square().sum().backward()
            results.append((x.grad, scale.grad))
        torch.testing.assert_close(*results)


HOOKS = ["forward_pre", "forward", "full_backward_pre", "full_backward"]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients")
@pytest.mark.parametrize("options", [{}, {"send_act_last": True, "norm": "batch_norm"}], ids=str)
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_see_every_module_of_a_block_in_clips_and_streams(kind, options):
    def step(block, volume):
        return block.step(volume[:, :, 0])[0]

    for call in (lambda block, volume: block(volume), step):
        block = RSTGToVec(3, channels=4, scales=(2, 1), heatmap_size=2, num_stages=2, **options)
        for name, module in block.named_modules():
            if name == "" or isinstance(module, torch.nn.ModuleList):
                continue
            seen = []
            handle = getattr(module, f"register_{kind}_hook")(lambda *_, seen=seen: seen.append(1))
            call(block, torch.randn(3, 3, 4, 5, 5, requires_grad=True)).sum().backward()
            handle.remove()
            assert seen, name


def test_hooks_on_all_modules_see_every_module():
    conv, seen = RSTGConv(4, 4), set()
    handle = register_module_forward_hook(lambda module, *_: seen.add(module))
    try:
        conv(torch.randn(7, 3, 4), EDGES)
    finally:
        handle.remove()
    assert {m for m in conv.modules() if not isinstance(m, torch.nn.ModuleList)} <= seen


# Message passing: twice what any of its parts returns is the layer with twice its messages.


def with_twice_the_messages(conv):
    plain = RSTGConv(4, 4, pe_channels=2, norm="layer_norm", residual=True, backend="reference").double()
    plain.load_state_dict(conv.state_dict())
    with torch.no_grad():
        plain.send.lin_last.weight *= 2
        plain.send.lin_last.bias *= 2
    return plain


class TwiceMessage(RSTGConv):
    def message(self, src_j: Tensor, dst_i: Tensor, alpha: Tensor, edge_attr: OptTensor, per_edge: bool) -> Tensor:
        return 2 * super().message(src_j, dst_i, alpha, edge_attr, per_edge)


class TwiceAggregate(RSTGConv):
    def aggregate(self, inputs: Tensor, index: Tensor, ptr: OptTensor = None, dim_size: Optional[int] = None) -> Tensor:
        return 2 * super().aggregate(inputs, index, ptr, dim_size)


class TwiceUpdate(RSTGConv):
    def update(self, inputs: Tensor) -> Tensor:
        return 2 * inputs


class TwiceEdgeUpdate(RSTGConv):
    def edge_update(
        self, query_i: Tensor, key_j: Tensor, index: Tensor, ptr: OptTensor, dim_size: Optional[int]
    ) -> Tensor:
        return 2 * super().edge_update(query_i, key_j, index, ptr, dim_size)


class TwicePropagate(RSTGConv):
    def propagate(self, edge_index, size=None, **kwargs):
        return 2 * super().propagate(edge_index, size=size, **kwargs)


class TwiceEdgeUpdater(RSTGConv):
    def edge_updater(self, edge_index, size=None, **kwargs):
        return 2 * super().edge_updater(edge_index, size=size, **kwargs)


class TwiceFused(RSTGConv):
    def message_and_aggregate(self, edge_index: Tensor, src: Tensor, dst: Tensor, alpha: Tensor) -> Tensor:
        edges = edge_index.to_sparse_coo().coalesce().indices()
        message = self.send.last(self.send.hidden(src[edges[1]], dst[edges[0]], None))
        return 2 * scatter(alpha * message, edges[0], dim_size=src.size(0))

    def update(self, inputs: Tensor) -> Tensor:
        return inputs


SUBCLASSES = [TwiceMessage, TwiceAggregate, TwiceUpdate, TwiceEdgeUpdate, TwicePropagate, TwiceEdgeUpdater, TwiceFused]


def assert_twice_the_messages(conv, edge_index=EDGES):
    torch.testing.assert_close(run(conv, edge_index)[:2], run(with_twice_the_messages(conv), edge_index)[:2])


@pytest.mark.parametrize("backend", ["auto", "blocks"])
@pytest.mark.parametrize("subclass", SUBCLASSES)
def test_a_method_of_a_subclass_is_obeyed(subclass, backend):
    conv = subclass(4, 4, pe_channels=2, norm="layer_norm", residual=True, backend=backend).double()
    edge_index = EDGES.unique(dim=1)
    if subclass is TwiceFused:
        edge_index = to_torch_csr_tensor(edge_index.flip(0), size=(7, 7))
    assert_twice_the_messages(conv, edge_index)


METHODS = ["message", "aggregate", "update", "edge_update", "propagate", "edge_updater"]


@pytest.mark.parametrize("backend", ["auto", "blocks"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_on_the_instance_is_obeyed(method, backend):
    conv = small_conv(backend=backend)
    own = getattr(conv, method)
    setattr(conv, method, lambda *args, **kwargs: 2 * own(*args, **kwargs))
    assert_twice_the_messages(conv)


def test_a_method_put_on_the_class_later_is_obeyed(monkeypatch):
    conv, own = small_conv(), RSTGConv.message
    plain = with_twice_the_messages(conv)
    expected = run(plain)[0]
    monkeypatch.setattr(RSTGConv, "message", lambda self, *args, **kwargs: 2 * own(self, *args, **kwargs))
    torch.testing.assert_close(run(conv)[0], expected)


@pytest.mark.parametrize("backend", ["auto", "blocks"])
@pytest.mark.parametrize("method", ["message", "aggregate", "propagate", "edge_update"])
def test_hooks_of_message_passing_are_obeyed(method, backend):
    conv = small_conv(backend=backend)
    seen = []
    getattr(conv, f"register_{method}_forward_pre_hook")(lambda *_: seen.append(1))
    run(conv)
    assert seen
    conv = small_conv(backend=backend)
    getattr(conv, f"register_{method}_forward_hook")(lambda module, inputs, out: 2 * out)
    assert_twice_the_messages(conv)


@pytest.mark.parametrize("when", ["forward_pre_hook", "forward_hook"])
def test_hooks_of_the_fused_step_are_called(when):
    conv, seen = TwiceFused(4, 4, pe_channels=2).double(), []
    getattr(conv, f"register_message_and_aggregate_{when}")(lambda *_: seen.append(1))
    run(conv, to_torch_csr_tensor(EDGES.unique(dim=1).flip(0), size=(7, 7)))
    assert seen


class TwiceSum(SumAggregation):
    def forward(self, *args, **kwargs):
        return 2 * super().forward(*args, **kwargs)


def test_an_aggregation_of_ones_own_is_obeyed():
    conv = RSTGConv(4, 4, pe_channels=2, norm="layer_norm", residual=True, aggr=TwiceSum()).double()
    assert_twice_the_messages(conv)
    conv = small_conv()
    conv.aggr_module = TwiceSum()
    assert_twice_the_messages(conv)


def test_an_aggregate_method_gets_the_messages_of_the_formula():
    class Largest(RSTGConv):
        def aggregate(self, inputs: Tensor, index: Tensor, dim_size: Optional[int] = None) -> Tensor:
            return MaxAggregation()(inputs, index, dim_size=dim_size, dim=0)

    conv, plain = Largest(4, 4), RSTGConv(4, 4, aggr="max")
    plain.load_state_dict(dict(conv.state_dict()))
    x = torch.randn(7, 3, 4)
    torch.testing.assert_close(conv(x, EDGES), plain(x, EDGES))


def test_an_explanation_that_is_over_leaves_the_layer_as_it_was():
    conv = small_conv()
    assert not messages_are_watched(conv, _METHODS)
    conv.explain = True
    assert messages_are_watched(conv, _METHODS)
    conv.explain = None
    assert not messages_are_watched(conv, _METHODS)


# Transforms, exporters, counters.


def test_batched_gradients():
    for backend in ("auto", "blocks"):
        for options in ({}, {"send_act_last": True}, {"attention": "mean"}, {"send_layers": 3}):
            conv = RSTGConv(4, 4, backend=backend, **options).double()
            x = torch.randn(7, 3, 4).double().requires_grad_()
            out = conv(x, EDGES)
            several = torch.randn(3, *out.shape).double()
            one_by_one = [torch.autograd.grad(out, x, grad, retain_graph=True)[0] for grad in several]
            batched = torch.autograd.grad(out, x, several, retain_graph=True, is_grads_batched=True)[0]
            torch.testing.assert_close(batched, torch.stack(one_by_one))
            mapped = torch.func.vmap(lambda grad, out=out, x=x: torch.autograd.grad(out, x, grad, retain_graph=True)[0])
            torch.testing.assert_close(mapped(several), batched)


def test_batched_gradients_of_large_products():
    conv, x = RSTGConv(64, 64), torch.randn(14, 160, 64, requires_grad=True)
    out = conv(x, region_graph((3, 2, 1)).edge_index)
    several = torch.randn(2, *out.shape)
    one_by_one = [torch.autograd.grad(out, x, grad, retain_graph=True)[0] for grad in several]
    (batched,) = torch.autograd.grad(out, x, several, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack(one_by_one), rtol=1e-3, atol=1e-4)


def test_jacobians():
    conv = RSTGConv(2, 2).double()
    x = torch.randn(7, 1, 2).double()

    def forward(x):
        return conv(x, EDGES)

    expected = torch.autograd.functional.jacobian(forward, x)
    for strategy in ("reverse-mode", "forward-mode"):
        found = torch.autograd.functional.jacobian(forward, x, vectorize=True, strategy=strategy)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.func.jacfwd(forward)(x), expected)
    torch.testing.assert_close(torch.func.jacrev(forward)(x), expected)
    expected = torch.autograd.functional.hessian(lambda x: forward(x).square().sum(), x)
    found = torch.autograd.functional.hessian(lambda x: forward(x).square().sum(), x, vectorize=True)
    torch.testing.assert_close(found, expected)


def test_forward_mode_differentiation():
    block = RSTGToVec(4, scales=(2, 1), num_stages=1).double()
    volume, tangent = torch.randn(2, 2, 4, 3, 5, 5).double().unbind()
    expected = (block(volume + 1e-6 * tangent) - block(volume - 1e-6 * tangent)) / 2e-6
    torch.testing.assert_close(torch.func.jvp(block, (volume,), (tangent,))[1], expected, rtol=1e-5, atol=1e-8)
    with fwd.dual_level():
        found = fwd.unpack_dual(block(fwd.make_dual(volume, tangent))).tangent
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_traced_code_takes_other_inputs():
    conv = RSTGConv(4, 4)
    traced = torch.jit.trace(conv, (torch.randn(7, 3, 4), EDGES))
    x, edge_index = torch.randn(14, 5, 4), torch.cat([EDGES, EDGES + 7], dim=1)
    torch.testing.assert_close(traced(x, edge_index), conv(x, edge_index))


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
        torch.testing.assert_close(quantised(volume), block(volume), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(out, block(volume), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_code_takes_other_numbers_of_nodes_frames_and_edges(strict):
    from torch.export import Dim, export

    conv = RSTGConv(4, 4)
    sizes = {"x": {0: Dim("nodes"), 1: Dim("frames")}, "edge_index": {1: Dim("edges")}}
    inputs = {"x": torch.randn(5, 3, 4), "edge_index": region_graph((2, 1)).edge_index}
    exported = export(conv, (), inputs, dynamic_shapes=sizes, strict=strict).module()
    x = torch.randn(7, 6, 4)
    torch.testing.assert_close(exported(x=x, edge_index=EDGES), conv(x, EDGES))


def test_an_exported_block_takes_other_numbers_of_clips():
    from torch.export import Dim, export

    block = RSTGToVec(4, scales=(2, 1))
    exported = export(block, (torch.randn(2, 4, 3, 6, 6),), dynamic_shapes=({0: Dim("clips")},)).module()
    volume = torch.randn(5, 4, 3, 6, 6)
    torch.testing.assert_close(exported(volume), block(volume))


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


class Wrapped(torch.nn.Module):
    """What holds a layer and says nothing of it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *args):
        return self.layer(*args)


@pytest.mark.parametrize("backend", ["auto", "blocks"])
def test_a_wrapped_child_is_called(backend):
    conv, x = small_conv(backend=backend), torch.randn(7, 9, 4).double()
    pe = torch.randn(7, 2).double()
    expected = conv(x, irregular_graph(), pe=pe)
    inside = [
        "send.lin_src",
        "send.lin_dst",
        "send.lin_pe_dst",
        "send.lin_last",
        "pair_score.lin_dst",
        "update_mlp.lins.0",
    ]
    for name in [*inside, "update_mlp", "send.act"]:
        other = copy.deepcopy(conv)
        holder, _, child = name.rpartition(".")
        setattr(other.get_submodule(holder), child, Wrapped(other.get_submodule(name)))
        for frames in (x, x[:, :1]):
            torch.testing.assert_close(other(frames, irregular_graph(), pe=pe), expected[:, : frames.size(1)], msg=name)
