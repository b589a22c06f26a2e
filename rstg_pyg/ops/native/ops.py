r"""Attention and the weighted sum of rectified edge sums in one pass over the nodes of each frame.

Shape legend: N nodes, E edges in the order of ``neighborhoods``, F frames, H hidden channels, K heads of D channels.
"""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import softmax

from rstg_pyg.ops.native.calls import Call, is_available
from rstg_pyg.ops.neighborhoods import Neighborhoods
from rstg_pyg.ops.pair_dot import plain_pair_dot
from rstg_pyg.ops.second_gradient import differentiable_gradients, takes_plain_gradient
from rstg_pyg.ops.weighted_relu import plain_weighted_relu

__all__ = ["attend", "attention_weights", "is_available", "plain_attend", "weighted_relu"]


def plain_attend(
    src: Tensor, dst: Tensor, query: Tensor, key: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods
) -> tuple[Tensor, Tensor]:
    """What :func:`attend` computes, with edge tensors in memory: its reference and its second derivative."""
    score = plain_pair_dot(query, key, neighborhoods)
    alpha = softmax(score, neighborhoods.dst, num_nodes=neighborhoods.num_nodes)
    return plain_weighted_relu(src, dst, alpha, edge, neighborhoods), alpha


def attend(
    src: Tensor, dst: Tensor, query: Tensor, key: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods
) -> tuple[Tensor, Tensor]:
    r"""Weigh the neighbours of each destination i by dot attention and sum them:

    .. math::
        \alpha_{ji}^k = \mathrm{softmax}_{j \in \mathcal{N}(i)} (\mathbf{q}_i^k \cdot \mathbf{k}_j^k), \qquad
        \mathbf{g}_i^k = \sum_j \alpha_{ji}^k \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    The tensors are of one type: float32, float64 or bfloat16. Sums run in float32 or float64.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **query, key:** ``[N, F, K, D]``. **edge:** ``[E, F or 1, H]``.
        - **output:** ``[N, F, K, H]`` in the type of the inputs, and the weights ``[E, F, K]`` in the type of the sums.
          Both are differentiable.
    """
    inputs = (src, dst, query, key, edge)
    if _wants_gradient(inputs):
        return _Attend.apply(*inputs, neighborhoods)
    return Call(src, dst, edge, neighborhoods, query, key).forward()


def attention_weights(query: Tensor, key: Tensor, neighborhoods: Neighborhoods) -> Tensor:
    """The weights of :func:`attend` alone, ``[E, F, K]``, from ``query, key [N, F, K, D]``."""
    nothing = query.new_empty(*query.shape[:2], 0)
    return attend(nothing, nothing, query, key, None, neighborhoods)[1]


def weighted_relu(src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    The tensors are of one type, as for :func:`attend`; ``alpha`` may also have the type of the sums.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]``. **edge:** ``[E, F or 1, H]``.
        - **output:** ``[N, F, K, H]``.
    """
    if _wants_gradient((src, dst, alpha, edge)):
        return _WeightedReLU.apply(src, dst, alpha, edge, neighborhoods)
    return Call(src, dst, edge, neighborhoods, alpha=alpha).forward()[0]


def _wants_gradient(inputs: tuple[Tensor | None, ...]) -> bool:
    return torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in inputs)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        src: Tensor,
        dst: Tensor,
        query: Tensor,
        key: Tensor,
        edge: Tensor | None,
        neighborhoods: Neighborhoods,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        total, alpha = Call(src, dst, edge, neighborhoods, query, key).forward()
        ctx.neighborhoods = neighborhoods
        ctx.save_for_backward(src, dst, query, key, edge, alpha)
        return total, alpha

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_alpha: Tensor | None) -> tuple[Tensor | None, ...]:
        src, dst, query, key, edge, alpha = ctx.saved_tensors
        if grad is None and grad_alpha is None:
            return (None,) * 6
        if takes_plain_gradient(grad, grad_alpha):
            inputs, given = (src, dst, query, key, edge), (grad, grad_alpha)

            def plain() -> list[Tensor]:
                outputs = plain_attend(*inputs, ctx.neighborhoods)
                return [out for out, one in zip(outputs, given, strict=True) if one is not None]

            gradients = [one for one in given if one is not None]
            return *differentiable_gradients(plain, inputs, ctx.needs_input_grad[:5], gradients), None
        call = Call(src, dst, edge, ctx.neighborhoods, query, key, alpha)
        wanted = ctx.needs_input_grad
        found = call.backward(
            grad, grad_alpha, src=wanted[0], dst=wanted[1], query=wanted[2], key=wanted[3], edge=wanted[4]
        )
        return found.src, found.dst, found.query, found.key, found.edge, None


class _WeightedReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods
    ) -> Tensor:
        ctx.neighborhoods = neighborhoods
        ctx.save_for_backward(src, dst, alpha, edge)
        return Call(src, dst, edge, neighborhoods, alpha=alpha).forward()[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        src, dst, alpha, edge = ctx.saved_tensors
        if takes_plain_gradient(grad):
            inputs = (src, dst, alpha, edge)
            found = differentiable_gradients(
                lambda: plain_weighted_relu(*inputs, ctx.neighborhoods), inputs, ctx.needs_input_grad[:4], grad
            )
            return *found, None
        wanted = dict(zip(("src", "dst", "alpha", "edge"), ctx.needs_input_grad, strict=False))
        found = Call(src, dst, edge, ctx.neighborhoods, alpha=alpha).backward(grad, None, **wanted)
        return found.src, found.dst, found.alpha, found.edge, None
