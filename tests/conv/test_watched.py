"""Whoever watches, changes or replaces a part of the layer is obeyed by every backend, or gets the reference."""

from functools import wraps
from typing import Optional

import pytest
import torch
from small_graphs import irregular_graph
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune
from torch_geometric.nn.aggr import MaxAggregation, SumAggregation
from torch_geometric.utils import scatter, to_torch_csr_tensor

from rstg_pyg import RSTGConv, RSTGToVec
from rstg_pyg.conv.rstg_conv import _METHODS
from rstg_pyg.watched import messages_are_watched

EDGES = irregular_graph()
BACKENDS = pytest.mark.parametrize("backend", ["auto", "blocks"])
CASES = pytest.mark.parametrize(
    "options",
    [{}, {"send_act_last": True}, {"backend": "blocks"}, {"backend": "reference", "heads": 2}],
    ids=str,
)
close = torch.testing.assert_close


def small_conv(kind=RSTGConv, **options):
    torch.manual_seed(1)
    return kind(4, 4, pe_channels=2, norm="layer_norm", residual=True, **options).double()


def run(conv, edge_index=EDGES):
    """Outputs for rows enough for all products to merge and for few, and without gradients; gradients of the input and
    the parameters."""
    torch.manual_seed(0)
    x, pe = torch.randn(7, 9, 4).double().requires_grad_(), torch.randn(7, 2).double()
    conv.zero_grad()
    outs = [conv(frames, edge_index, pe=pe) for frames in (x, x[:, :1])]
    sum(out.square().sum() for out in outs).backward()
    with torch.no_grad():
        outs.append(conv(x[:, 0], edge_index, pe=pe))
    return [*outs, x.grad], {name: parameter.grad for name, parameter in conv.named_parameters()}


# Children: a call of a child with twice its output is the plain layer with twice some of its weights.

LAYERS = ["send.lin_src", "send.lin_dst", "send.lin_pe_src", "send.lin_pe_dst", "send.lin_last"]
LAYERS += ["pair_score.lin_dst", "pair_score.lin_src", "update_mlp.lins.0", "update_mlp.lins.1"]
DOUBLED = {
    "norm": ["norm"],
    "send": LAYERS[:4],
    "send.act": ["send.lin_last.weight"],
    "pair_score": ["pair_score.lin_dst", "pair_score.lin_src"],
    "update_mlp": ["update_mlp.lins.1"],
    "update_mlp.act": ["update_mlp.lins.1.weight"],
    **{name: [name] for name in LAYERS},
}


def twice(out):
    return tuple(2 * value for value in out) if isinstance(out, tuple) else 2 * out


class Wrapped(torch.nn.Module):
    """What holds a layer and says nothing of it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *args):
        return twice(self.layer(*args))


def by_a_subclass(conv, name):
    module = conv.get_submodule(name)
    kind = type(module)
    module.__class__ = type("Twice", (kind,), {"forward": lambda self, *args: twice(kind.forward(self, *args))})


def by_a_forward_on_the_instance(conv, name):
    forward = conv.get_submodule(name).forward
    conv.get_submodule(name).forward = lambda *args: twice(forward(*args))


def by_a_hook(conv, name):
    conv.get_submodule(name).register_forward_hook(lambda module, inputs, out: twice(out))


def by_a_wrapper(conv, name):
    conv.set_submodule(name, Wrapped(conv.get_submodule(name)))


@CASES
@pytest.mark.parametrize("change", [by_a_subclass, by_a_forward_on_the_instance, by_a_hook, by_a_wrapper])
def test_a_child_with_twice_its_output_is_obeyed(change, options):
    for name, weights in DOUBLED.items():
        if name == "send.act" and "send_act_last" in options:
            continue  # it doubles the message as well, which is no weight's
        if change is by_a_wrapper and name in ("send", "pair_score"):
            continue  # they have more methods than a call
        conv, plain = small_conv(**options), small_conv(**{**options, "backend": "reference"})
        for key, parameter in plain.named_parameters():
            if any(key == weight or key.startswith(f"{weight}.") for weight in weights):
                parameter.data *= 2
        change(conv, name)
        close(run(conv)[0], run(plain)[0], msg=lambda text, name=name: f"{name}: {text}")


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
        return super().__getattr__(name) if name in ("base", "a", "b") else getattr(self.base, name)


def by_a_parametrisation(conv, name):
    layer = conv.get_submodule(name)
    parametrize.register_parametrization(layer, "weight", Wrapped(torch.nn.Identity()))
    return layer.weight, {"parametrizations.weight.original": lambda grad: 2 * grad}


def by_pruning(conv, name):
    layer = conv.get_submodule(name)
    prune.random_unstructured(layer, "weight", 0.5)
    layer.weight_orig.data += 1  # as an optimiser does: what lies in ``weight`` is of yesterday
    return layer.weight_orig * layer.weight_mask, {"weight_orig": lambda grad: grad * layer.weight_mask}


def by_an_adapter(conv, name):
    adapter = LowRank(conv.get_submodule(name))
    conv.set_submodule(name, adapter)
    grads = {"a": lambda grad: adapter.b.t() @ grad, "b": lambda grad: grad @ adapter.a.t()}
    return adapter.weight + adapter.b @ adapter.a, grads


@CASES
@pytest.mark.parametrize("change", [by_a_parametrisation, by_pruning, by_an_adapter])
def test_a_layer_with_another_weight_than_its_own_is_obeyed(change, options):
    for name in LAYERS:
        conv, plain = small_conv(**options), small_conv(**{**options, "backend": "reference"})
        weight, grads = change(conv, name)
        plain.get_submodule(name).weight.data = weight.detach()
        (outs, found), (expected_outs, expected) = run(conv), run(plain)
        found = {key: found[f"{name}.{key}"] for key in grads}
        expected = {key: of_weight(expected[f"{name}.weight"]) for key, of_weight in grads.items()}
        close((outs, found), (expected_outs, expected), msg=lambda text, name=name: f"{name}: {text}")


@BACKENDS
def test_an_activation_of_ones_own_is_called_as_message_passing_calls_it(backend):
    scale = torch.nn.Parameter(torch.tensor(2.0).double())
    for act in ("rrelu", lambda h: scale * h.relu()):
        results = []
        for name in ("reference", backend):
            scale.grad = None
            results.append((run(small_conv(act=act, update_layers=1, backend=name)), scale.grad))
        close(*results)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients")
@pytest.mark.parametrize("options", [{}, {"send_act_last": True, "norm": "batch_norm"}], ids=str)
@pytest.mark.parametrize("kind", ["forward_pre", "forward", "full_backward_pre", "full_backward"])
def test_hooks_see_every_module_of_a_block_in_clips_and_streams(kind, options):
    for call in (lambda block, volume: block(volume), lambda block, volume: block.step(volume[:, :, 0])[0]):
        block = RSTGToVec(3, channels=4, scales=(2, 1), heatmap_size=2, num_stages=2, **options)
        for name, module in block.named_modules():
            if name == "" or isinstance(module, torch.nn.ModuleList):
                continue
            seen = []
            with getattr(module, f"register_{kind}_hook")(lambda *_, seen=seen: seen.append(1)):
                call(block, torch.randn(3, 3, 4, 5, 5, requires_grad=True)).sum().backward()
            assert seen, name


@torch.no_grad()
def test_hooks_see_every_module_of_a_stream_without_gradients():
    block, frame = RSTGToVec(4, scales=(2, 1), heatmap_size=2, num_stages=2, norm="layer_norm"), torch.randn(3, 4, 5, 5)
    expected, state = block.step(frame)
    for name, module in block.named_modules():
        if name == "" or isinstance(module, torch.nn.ModuleList):
            continue
        seen = []
        with module.register_forward_hook(lambda *_, seen=seen: seen.append(1)):
            close(block.step(frame), (expected, state))
        assert seen, name


def test_hooks_on_all_modules_see_every_module():
    conv, seen = small_conv(), set()
    with register_module_forward_hook(lambda module, *_: seen.add(module)):
        run(conv)
    assert {m for m in conv.modules() if not isinstance(m, torch.nn.ModuleList)} <= seen


# Message passing: twice what any of its parts returns is the layer with twice its messages.


def with_twice_the_messages(edge_index=EDGES):
    plain = small_conv(backend="reference")
    for parameter in plain.send.lin_last.parameters():
        parameter.data *= 2
    return run(plain, edge_index)[0]


def twice_of(own):
    def doubled(self, *args, **kwargs):
        return 2 * own(self, *args, **kwargs)

    # PyG reads the arguments of the parts, but of those that it writes itself it reads who wrote them.
    return doubled if "propagate" in own.__qualname__ or "edge_updater" in own.__qualname__ else wraps(own)(doubled)


def in_a_subclass(part, backend, patch):
    return small_conv(type("Twice", (RSTGConv,), {part: twice_of(getattr(RSTGConv, part))}), backend=backend)


def on_the_instance(part, backend, patch):
    conv = small_conv(backend=backend)
    own = getattr(conv, part)
    setattr(conv, part, lambda *args, **kwargs: 2 * own(*args, **kwargs))
    return conv


def on_the_class_later(part, backend, patch):
    conv = small_conv(backend=backend)
    patch.setattr(RSTGConv, part, twice_of(getattr(RSTGConv, part)))
    return conv


def by_a_message_hook(part, backend, patch):
    conv = small_conv(backend=backend)
    getattr(conv, f"register_{part}_forward_hook")(lambda module, inputs, out: 2 * out)
    return conv


HOOKED = ["message", "aggregate", "edge_update", "propagate"]
PARTS = [(by_a_message_hook, part) for part in HOOKED]
for way in (in_a_subclass, on_the_instance, on_the_class_later):
    PARTS += [(way, part) for part in (*HOOKED, "update", "edge_updater")]


@BACKENDS
@pytest.mark.parametrize(("way", "part"), PARTS)
def test_a_part_with_twice_its_output_is_obeyed(way, part, backend, monkeypatch):
    close(with_twice_the_messages(), run(way(part, backend, monkeypatch))[0])


@BACKENDS
@pytest.mark.parametrize("part", HOOKED)
def test_hooks_see_what_comes_in(part, backend):
    conv, seen = small_conv(backend=backend), []
    getattr(conv, f"register_{part}_forward_pre_hook")(lambda *_: seen.append(1))
    run(conv)
    assert seen


class TwiceFused(RSTGConv):
    def message_and_aggregate(self, edge_index: Tensor, src: Tensor, dst: Tensor, alpha: Tensor) -> Tensor:
        edges = edge_index.to_sparse_coo().coalesce().indices()
        message = self.send.last(self.send.hidden(src[edges[1]], dst[edges[0]], None))
        return 2 * scatter(alpha * message, edges[0], dim_size=src.size(0))

    def update(self, inputs: Tensor) -> Tensor:
        return inputs


@BACKENDS
def test_a_fused_step_and_its_hooks_are_called(backend):
    conv, seen = small_conv(TwiceFused, backend=backend), []
    matrix = to_torch_csr_tensor(EDGES.unique(dim=1).flip(0), size=(7, 7))
    conv.register_message_and_aggregate_forward_pre_hook(lambda *_: seen.append("before"))
    close(run(conv, matrix)[0], with_twice_the_messages(matrix))
    conv.register_message_and_aggregate_forward_hook(lambda *_: seen.append("after"))
    run(conv, matrix)
    assert seen == ["before"] * 3 + ["before", "after"] * 3


class TwiceSum(SumAggregation):
    def forward(self, *args, **kwargs):
        return 2 * super().forward(*args, **kwargs)


def test_an_aggregation_of_ones_own_is_obeyed():
    conv = small_conv()
    conv.aggr_module = TwiceSum()
    for other in (conv, small_conv(aggr=TwiceSum())):
        close(run(other)[0], with_twice_the_messages())


def test_an_aggregate_method_gets_the_messages_of_the_formula():
    class Largest(RSTGConv):
        def aggregate(self, inputs: Tensor, index: Tensor, dim_size: Optional[int] = None) -> Tensor:
            return MaxAggregation()(inputs, index, dim_size=dim_size, dim=0)

    close(run(small_conv(Largest)), run(small_conv(aggr="max")))


def test_an_explanation_that_is_over_leaves_the_layer_as_it_was():
    conv, watched = small_conv(), []
    for conv.explain in (None, True, None):
        watched.append(messages_are_watched(conv, _METHODS))
    assert watched == [False, True, False]
