"""What the kernels compute, as it is written down: with a tensor per edge in memory.

These are the kernels' references and their second derivatives. Shape legend: N nodes, E edges in any order, F frames, H
channels before the message function and M after it, K heads of d channels. ``edges`` has the ends of the edges as
``src`` and ``dst``.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor
from torch_geometric.utils import softmax

Function = Callable[..., Tensor]
"""From the first send layer at an edge ``[*, H]``, and tensors, to its message: ``[*, K, M]``, or ``[*, 1, M]`` for all
heads."""


class Ends(NamedTuple):
    """Sources and destinations ``[E]``."""

    src: Tensor
    dst: Tensor


def relu_message(h: Tensor) -> Tensor:
    """The message of a linear last layer, which is applied after the sum."""
    return h.relu().unsqueeze(-2)


class Message(NamedTuple):
    """The message function f, and all tensors that it takes beside the first layer; of the form ``"product"`` a weight
    and a bias or None."""

    function: Function = relu_message
    tensors: Sequence[Tensor | None] = ()

    def __call__(self, h: Tensor) -> Tensor:
        return self.function(h, *self.tensors)


def plain_pair_dot(query: Tensor, key: Tensor, edges: Ends) -> Tensor:
    r""":math:`\mathbf{q}_i^\top \mathbf{k}_j` for every edge: ``[N, F, K, d]`` twice to ``[E, F, K]``."""
    return (query.index_select(0, edges.dst) * key.index_select(0, edges.src)).sum(-1)


def plain_messages(
    message: Message | Function, src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, edges: Ends
) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, f^k(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    Shapes:
        - **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]``. **edge:** ``[E, F or 1, H]``.
        - **output:** ``[N, F, K, M]``.
    """
    h = src.index_select(0, edges.src) + dst.index_select(0, edges.dst)
    weighted = message(h if edge is None else h + edge) * alpha.unsqueeze(-1)
    return weighted.new_zeros(src.size(0), *weighted.shape[1:]).index_add_(0, edges.dst, weighted)


def plain_attend(
    src: Tensor, dst: Tensor, query: Tensor, key: Tensor, edge: Tensor | None, edges: Ends
) -> tuple[Tensor, Tensor]:
    """Dot attention and the weighted sum of rectified messages ``[N, F, K, H]``; and the weights ``[E, F, K]``."""
    alpha = softmax(plain_pair_dot(query, key, edges), edges.dst, num_nodes=src.size(0))
    return plain_messages(relu_message, src, dst, alpha, edge, edges), alpha
