"""The weighted sum of messages over all pairs of nodes, in few operations.

Shape legend: N nodes, E edges, F frames, H channels, M message channels, K heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rstg_pyg.ops.block_messages import Message


class EdgeList(NamedTuple):
    """Sources and destinations ``[E]`` in any order. How many nodes have no edges is not known."""

    src: Tensor
    dst: Tensor
    num_isolated: int | None = None


def dense_messages(message: Message, src: Tensor, dst: Tensor, alpha: Tensor, edges: EdgeList) -> Tensor:
    """Weighted sum of messages as in :func:`~rstg_pyg.ops.block_messages.block_messages`, over all pairs of nodes.

    Pairs without an edge have the weight 0 and send the message of 0, whatever stands in their nodes, and several edges
    between two nodes add their weights. Run without a compiler it holds tensors of N times the size of the nodes.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]``.
        - **output:** ``[N, F, K, M]``.
    """
    num_nodes = src.size(0)
    weight = alpha.new_zeros(num_nodes, num_nodes, *alpha.shape[1:])
    weight = weight.index_put((edges.dst, edges.src), alpha, accumulate=True)
    apart = weight.new_ones(num_nodes, num_nodes, dtype=torch.bool)
    apart = apart.index_put((edges.dst, edges.src), apart.new_zeros(()))
    h = (src.unsqueeze(0) + dst.unsqueeze(1)).masked_fill(apart[..., None, None], 0)
    return (message(h) * weight.unsqueeze(-1)).sum(1)
