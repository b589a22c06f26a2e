"""The forms that take part in a comparison, by their names in the tables."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import Module, RNNBase
from torch_geometric.nn import GATv2Conv, TransformerConv

from measure import Work
from opponents.library import HAS_TEMPORAL, RecurrentGraphLayers, TransformerLSTM, batched_edges
from opponents.same_function import AuthorsBlock, DenseConcat, DenseSplit, PlainBlock, PlainConv, SplitConv
from problem import Problem
from rstg_pyg.ops import BACKENDS
from rstg_pyg.ops.native import attend as native

OURS = tuple(f"rstg-{backend}" for backend in BACKENDS)

OTHER_FUNCTIONS = ("gatv2", "transformer", "transformer-lstm", "temporal-gconvgru", "temporal-tgcn")
"""Forms that compute something else, for scale."""


@dataclass(frozen=True)
class Form:
    """One way to compute a problem.

    Attributes:
        call: From features in the layout of the form to the output in the same layout.
        pack: From node features ``[N, B, T, C]`` to that layout.
        unpack: Back again.
        gradients: The parameters' gradients by the names of the package's module; None where the form computes another
            function.
    """

    module: Module
    call: Callable[[Tensor], Tensor]
    pack: Callable[[Tensor], Tensor]
    unpack: Callable[[Tensor], Tensor]
    gradients: Callable[[], dict[str, Tensor]] | None = None

    def compiled(self, mode: str) -> Form:
        return replace(self, call=torch.compile(self.call, mode=mode, dynamic=False))

    def work(self, x: Tensor, gradient: Tensor, backward: bool) -> Work:
        """A pass over node features ``[N, B, T, C]``, with a fixed gradient of the output in the backward pass."""
        x, gradient = (self.pack(value).detach().contiguous() for value in (x, gradient))
        x.requires_grad_(backward)

        def clear() -> None:
            x.grad = None
            self.module.zero_grad(set_to_none=True)

        def forward_backward() -> None:
            self.call(x).backward(gradient)

        @torch.no_grad()
        def forward() -> None:
            self.call(x)

        return Work(forward_backward if backward else forward, clear)


def build(name: str, problem: Problem, model: Module) -> Form:
    """Build a form of :func:`names` with a copy of the weights of ``model``, the package's module for the problem."""
    model = copy.deepcopy(model)
    builder = _ours if name in OURS else (_stage if problem.num_stages is None else _block)
    form = builder(name, problem, model)
    for module in form.module.modules():
        if isinstance(module, RNNBase):
            module.flatten_parameters()  # a copied network's weights lie apart, which cuDNN pays for at every call
    return form


def names(problem: Problem) -> tuple[str, ...]:
    """All forms for a problem, without the bound."""
    if problem.num_stages is None:
        return (*OURS, "plain", "split", "dense-concat", "dense-split", "gatv2", "transformer")
    return (*OURS, "plain", "authors", "transformer-lstm", "temporal-gconvgru", "temporal-tgcn")


def why_not(name: str, problem: Problem, memory_limit: float) -> str | None:
    """Why a form cannot take part, or None: a package or a device is missing, or it needs more memory than the limit
    in bytes."""
    if name.startswith("temporal") and not HAS_TEMPORAL:
        return "not installed"
    if name == "rstg-triton" and torch.device(problem.device).type != "cuda":
        return "needs CUDA"
    if name == "rstg-native" and torch.device(problem.device).type != "cpu":
        return "needs a CPU"
    if name == "rstg-native" and not native.is_available():
        return "no C++ compiler"
    pairs = problem.graph.num_nodes**2 if "dense" in name or name == "authors" else problem.graph.num_edges
    tensor = pairs * problem.num_frames * problem.width * problem.dtype.itemsize
    return "too large" if 8 * tensor * (problem.num_stages or 1) > memory_limit else None


def _identity(x: Tensor) -> Tensor:
    return x


def _named_gradients(module: Module) -> Callable[[], dict[str, Tensor]]:
    return lambda: {name: value.grad for name, value in module.named_parameters()}


def _ours(name: str, problem: Problem, model: Module) -> Form:
    edge_index, pe = problem.edge_index(), problem.pe()
    for conv in [model] if problem.num_stages is None else model.space_stages:
        conv.backend = name.removeprefix("rstg-")

    def stage(x: Tensor) -> Tensor:
        return model(x, edge_index, pe=pe)

    def block(x: Tensor) -> Tensor:
        return model(x, edge_index, pe=pe)[0]

    return Form(model, stage if problem.num_stages is None else block, _identity, _identity, _named_gradients(model))


def _stage(name: str, problem: Problem, model: Module) -> Form:
    edge_index, pe, nodes = problem.edge_index(), problem.pe(), problem.graph.num_nodes
    if name in ("plain", "split"):
        module = {"plain": PlainConv, "split": SplitConv}[name](model)
        return Form(module, lambda x: module(x, edge_index, pe), _identity, _identity, module.layers.gradients)
    if name in ("dense-concat", "dense-split"):
        module = {"dense-concat": DenseConcat, "dense-split": DenseSplit}[name](model, edge_index, nodes)

        def pack(x: Tensor) -> Tensor:
            return x.flatten(1, 2).transpose(0, 1)

        def unpack(x: Tensor) -> Tensor:
            return x.transpose(0, 1).unflatten(1, (problem.batch, problem.frames))

        return Form(module, lambda x: module(x, pe), pack, unpack, module.layers.gradients)

    make = {"gatv2": GATv2Conv, "transformer": TransformerConv}[name]
    options = {"add_self_loops": False} if name == "gatv2" else {}
    module = make(problem.width, problem.width, **options).to(problem.device, problem.dtype)
    edges = batched_edges(edge_index, nodes, problem.num_frames)

    def pack_flat(x: Tensor) -> Tensor:
        return x.flatten(1, 2).transpose(0, 1).flatten(0, 1)

    def unpack_flat(x: Tensor) -> Tensor:
        return x.unflatten(0, (problem.batch, problem.frames, nodes)).permute(2, 0, 1, 3)

    return Form(module, lambda x: module(x, edges), pack_flat, unpack_flat)


def _block(name: str, problem: Problem, model: Module) -> Form:
    edge_index, pe, nodes = problem.edge_index(), problem.pe(), problem.graph.num_nodes
    if name == "plain":
        module = PlainBlock(model)
        return Form(module, lambda x: module(x, edge_index, pe), _identity, _identity, module.gradients)
    if name == "authors":
        module = AuthorsBlock(model, edge_index, nodes)
        return Form(
            module, lambda x: module(x, pe), lambda x: x.transpose(0, 1), lambda x: x.transpose(0, 1), module.gradients
        )
    if name == "transformer-lstm":
        module = TransformerLSTM(problem.width, problem.num_stages)
        edges = batched_edges(edge_index, nodes, problem.num_frames, stride=problem.frames)

        def pack(x: Tensor) -> Tensor:
            return x.transpose(0, 1).flatten(0, 1)

        def unpack(x: Tensor) -> Tensor:
            return x.unflatten(0, (problem.batch, nodes)).transpose(0, 1)

    else:
        layer = {"temporal-gconvgru": "GConvGRU", "temporal-tgcn": "TGCN"}[name]
        module = RecurrentGraphLayers(layer, problem.width, problem.num_stages)
        edges = batched_edges(edge_index, nodes, problem.batch)

        def pack(x: Tensor) -> Tensor:
            return x.permute(2, 1, 0, 3).flatten(1, 2)

        def unpack(x: Tensor) -> Tensor:
            return x.unflatten(1, (problem.batch, nodes)).permute(2, 1, 0, 3)

    module = module.to(problem.device, problem.dtype)
    return Form(module, lambda x: module(x, edges), pack, unpack)
