r"""The gather of the space stage on a GPU: attention and the weighted sum of messages, without tensors of edges times
channels, forwards or backwards.

.. math::
    \alpha_{ji} = \mathrm{softmax}_{j \in \mathcal{N}(i)} (\mathbf{q}_i^\top \mathbf{k}_j), \qquad
    \mathbf{g}_i = \sum_{j \in \mathcal{N}(i)} \alpha_{ji} \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i)

Every head has weights of its own and sums all hidden channels; a node without neighbours gathers 0. A program takes a
node and some of its frames and walks the node's edges: the incoming ones for what belongs to a destination, the
outgoing ones for the gradients of a source. So nothing is added atomically, results do not change from run to run of
one process, and the number of launches does not depend on the number of frames. Sums run in float32, in float64 for
float64 inputs. Kept for the backward pass are the inputs and the weights ``alpha``.

Triton is imported in the first call. The first call with new widths times a few choices of tile and warps, forwards
and backwards; make it before a CUDA graph is captured. A backward pass that is itself to be differentiated
(``create_graph=True``) takes the plain formula, with edge tensors in memory.

Shape legend: N nodes, E edges, F frames, K heads, H hidden channels, D channels per head of queries and keys.
"""

import importlib.util
import os

import torch
from torch import Tensor

from rstg_pyg.ops.index import GraphIndex

_INSTALLED = importlib.util.find_spec("triton") is not None


def is_available(device: torch.device | None = None) -> bool:
    """Whether the functions of this module run on tensors of ``device`` (by default, of the current CUDA device).

    They need Triton and a CUDA device that it supports, or Triton's interpreter, which takes any device and is slow:
    for tests, with ``TRITON_INTERPRET=1`` in the environment.
    """
    if not _INSTALLED:
        return False
    if os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y"):
        return True
    if device is not None and device.type != "cuda":
        return False
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] >= 7


def attend(
    src: Tensor,
    dst: Tensor,
    query: Tensor,
    key: Tensor,
    index: GraphIndex,
) -> tuple[Tensor, Tensor]:
    """Weigh messages by dot attention and sum them.

    Args:
        src, dst: The source and destination halves of the hidden layer, ``[N, F, H]``.
        query, key: ``[N, F, K, D]``, already scaled.
        index: The graph.

    Returns:
        The sums ``[N, F, K, H]`` and the weights ``[E, F, K]`` in the order of the sorted edges, both differentiable.
    """
    alpha = neighbor_softmax(pair_dot(query, key, index), index)
    return weighted_messages(src, dst, alpha, index), alpha


def weighted_messages(src: Tensor, dst: Tensor, alpha: Tensor, index: GraphIndex) -> Tensor:
    """Sum ``alpha * relu(src_j + dst_i)`` over the neighbours j of every node i.

    Args:
        src, dst: The source and destination halves of the hidden layer, ``[N, F, H]``.
        alpha: Weights ``[E, F, K]`` in the order of the sorted edges; a dimension F of size 1 stands for all frames.
        index: The graph.

    Returns:
        ``[N, F, K, H]``.
    """
    from rstg_pyg.ops.triton.messages import messages

    _check("src", src, 3, index.num_nodes)
    _check("alpha", alpha, 3, index.num_edges)
    _check_same_shape(src=src, dst=dst)
    alpha = alpha.expand(-1, src.size(1), -1)
    return messages(src, dst, alpha, *_index(index, src))


def pair_dot(query: Tensor, key: Tensor, index: GraphIndex) -> Tensor:
    """The product of ``query_i`` and ``key_j`` for every edge j -> i.

    Args:
        query, key: ``[N, F, K, D]``.
        index: The graph.

    Returns:
        ``[E, F, K]`` in the order of the sorted edges, float32 (float64 for float64 inputs).
    """
    from rstg_pyg.ops.triton import scores

    _check("query", query, 4, index.num_nodes)
    _check_same_shape(query=query, key=key)
    return scores.pair_dot(query, key, *_index(index, key))


def neighbor_softmax(score: Tensor, index: GraphIndex) -> Tensor:
    """The softmax of scores over the edges of each destination.

    Args:
        score: ``[E, F, K]`` in the order of the sorted edges.
        index: The graph.

    Returns:
        ``[E, F, K]``, in the type of ``score``.
    """
    from rstg_pyg.ops.triton import softmax

    _check("score", score, 3, index.num_edges)
    return softmax.neighbor_softmax(score, index.ptr, index.dst)


def _index(index: GraphIndex, gathered: Tensor) -> tuple[Tensor | None, ...]:
    """The index tensors of an operator; the edges by source are sorted only where ``gathered`` wants a gradient."""
    wants_grad = torch.is_grad_enabled() and gathered.requires_grad
    edges, source_ptr = index.by_source if wants_grad else (None, None)
    return (index.nodes, index.ptr, index.src, index.dst, edges, source_ptr)


def _check(name: str, tensor: Tensor, dims: int, rows: int) -> None:
    if tensor.dim() != dims or tensor.size(0) != rows:
        raise ValueError(f"expected '{name}' with {dims} dimensions and {rows} rows, got {list(tensor.shape)}")


def _check_same_shape(**tensors: Tensor) -> None:
    (one, first), (other, second) = tensors.items()
    if first.shape != second.shape:
        raise ValueError(f"expected '{one}' and '{other}' of one shape, got {list(first.shape)}, {list(second.shape)}")
