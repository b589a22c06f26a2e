"""Sparse adjacency matrices in the layouts that PyG collects from."""

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import Adj, OptTensor, SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, to_edge_index


def collectable(edge_index: Adj, edge_attr: OptTensor) -> Adj:
    """Turn numbers of nodes into int64, a CSC matrix into CSR, and coalesce a COO matrix; leave everything else as it
    is.

    Message passing in PyG collects from CSR and from coalesced COO matrices, and the kernels from int64; on others they
    fail deep inside, and a uint8 index passes for a mask.

    Raises:
        ValueError: If such a matrix comes with edge features, whose rows would lose their edges.
    """
    if isinstance(edge_index, SparseTensor):
        return edge_index
    if not is_torch_sparse_tensor(edge_index):
        return edge_index if edge_index.dtype == torch.int64 else edge_index.long()
    is_csc = edge_index.layout == torch.sparse_csc
    if not is_csc and (edge_index.layout != torch.sparse_coo or edge_index.is_coalesced()):
        return _with_int64(edge_index)
    if edge_attr is not None:
        kind = "a CSC matrix" if is_csc else "a COO matrix that is not coalesced"
        raise ValueError(
            f"expected 'edge_attr' with a coalesced COO or a CSR matrix, whose order of edges is fixed, got {kind}"
        )
    return _with_int64(edge_index.to_sparse_csr()) if is_csc else edge_index.coalesce()


def _with_int64(matrix: Tensor) -> Tensor:
    if matrix.layout != torch.sparse_csr or matrix.crow_indices().dtype == torch.int64:
        return matrix
    parts = matrix.crow_indices().long(), matrix.col_indices().long(), matrix.values()
    return torch.sparse_csr_tensor(*parts, matrix.shape)


def ends_of_edges(edge_index: Adj, edge_attr: OptTensor, flow: str) -> tuple[Tensor, Tensor, OptTensor]:
    """Return sources ``[E]``, destinations ``[E]`` and features of all edges, in the order of message passing.

    A matrix is a transposed adjacency matrix; its values are the features where none are given, unless there is one
    number per edge.
    """
    if isinstance(edge_index, SparseTensor) or is_torch_sparse_tensor(edge_index):
        if isinstance(edge_index, SparseTensor):
            destination, source, value = edge_index.coo()
        else:
            (destination, source), value = to_edge_index(edge_index)
        if edge_attr is None and value is not None and value.dim() > 1:
            edge_attr = value
        return source, destination, edge_attr
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    source, destination = edge_index[0], edge_index[1]
    return (source, destination, edge_attr) if flow == "source_to_target" else (destination, source, edge_attr)
