"""What the convolution accepts: its arguments and the shapes of its inputs."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import is_sparse, is_torch_sparse_tensor

from rstg_pyg.arguments import check_choice, check_positive, check_share, describe, num_dims
from rstg_pyg.conv.attention import ATTENTION
from rstg_pyg.conv.backend import BACKENDS


def check_arguments(
    in_channels: Any,
    out_channels: int,
    pe_channels: int,
    heads: int,
    attention: str,
    edge_dim: int | None,
    hidden_channels: int,
    send_layers: int,
    update_layers: int,
    residual: bool,
    dropout: float,
    backend: str,
    kwargs: dict[str, Any],
) -> None:
    """Check the constructor's arguments of :class:`~rstg_pyg.RSTGConv`."""
    if isinstance(in_channels, (tuple, list)):
        raise ValueError(
            f"expected 'in_channels' to be one int, got {in_channels!r}: the space stage updates the nodes that send, "
            "so it has no bipartite form"
        )
    if not isinstance(in_channels, int) or in_channels != -1:
        check_positive(in_channels=in_channels)
    check_positive(
        out_channels=out_channels,
        heads=heads,
        hidden_channels=hidden_channels,
        send_layers=send_layers,
        update_layers=update_layers,
    )
    if not isinstance(pe_channels, int) or pe_channels != 0:
        check_positive(pe_channels=pe_channels)
    if edge_dim is not None:
        check_positive(edge_dim=edge_dim)
    check_choice("attention", attention, ATTENTION)
    check_choice("backend", backend, BACKENDS)
    if backend == "dense" and edge_dim is not None:
        raise ValueError(f"expected a backend other than 'dense' with edge features, got edge_dim={edge_dim}")
    if out_channels % heads != 0:
        raise ValueError(
            f"expected 'out_channels' to be a multiple of 'heads', got out_channels={out_channels}, heads={heads}"
        )
    check_share("dropout", dropout)
    if residual and in_channels not in (-1, out_channels):
        raise ValueError(
            "expected 'in_channels' to equal 'out_channels' with residual=True, got "
            f"in_channels={in_channels}, out_channels={out_channels}"
        )
    if "node_dim" in kwargs:
        raise ValueError("expected no 'node_dim': nodes are always the first dimension of 'x'")
    if kwargs.get("decomposed_layers", 1) != 1:
        raise ValueError("expected no 'decomposed_layers': hidden channels of a message can not be split")
    if not isinstance(kwargs.get("aggr"), (str, Aggregation, type(None))):
        raise ValueError(f"expected 'aggr' to be a single aggregation, got {kwargs['aggr']!r}")


def check_inputs(
    x: Tensor,
    edge_index: Adj,
    pe: OptTensor,
    edge_attr: OptTensor,
    in_channels: int,
    pe_channels: int,
    edge_dim: int | None,
) -> int:
    """Check the shapes that :class:`~rstg_pyg.RSTGConv` is called with; return the number of edges."""
    if isinstance(x, (tuple, list)):
        raise TypeError(
            "expected 'x' to be one tensor [num_nodes, *, channels], got a pair: the space stage updates the nodes "
            "that send, so it has no bipartite form"
        )
    width = "in_channels" if in_channels == -1 else in_channels
    if num_dims(x) < 2 or (in_channels != -1 and x.size(-1) != in_channels) or not x.is_floating_point():
        raise ValueError(f"expected floating point 'x' of shape [num_nodes, *, {width}], got {describe(x)}")
    num_nodes = x.size(0)
    if (pe is None) != (pe_channels == 0):
        got = "none" if pe is None else f"shape {describe(pe)}"
        raise ValueError(f"expected 'pe' of width pe_channels={pe_channels}, got {got}")
    if pe is not None:
        _check_rows("pe", pe, x, num_nodes, pe_channels)
    num_edges = _check_edge_index(edge_index, num_nodes)
    if edge_attr is not None and edge_dim is None:
        raise ValueError(f"expected no 'edge_attr' with edge_dim=None, got shape {describe(edge_attr)}")
    if edge_dim is not None and edge_attr is None and not is_sparse(edge_index):
        raise ValueError(f"expected 'edge_attr' of shape [{num_edges}, {edge_dim}], got none")
    if edge_attr is not None:
        _check_rows("edge_attr", edge_attr, x, num_edges, edge_dim)
    return num_edges


def check_ends(source: Tensor, destination: Tensor, num_nodes: int) -> None:
    """Raise where an edge points outside the graph; on a GPU and in compiled code an assertion fails, later."""
    if torch.compiler.is_compiling() or not source.is_cpu:
        for ends in (source, destination):
            torch._assert_async(((ends >= 0) & (ends < num_nodes)).all(), "'edge_index' points outside the nodes")
        return
    if source.numel() == 0:
        return
    for ends in (source, destination):
        low, high = (end.item() for end in ends.aminmax())
        if low < 0 or high >= num_nodes:
            raise IndexError(
                f"expected 'edge_index' to hold nodes from 0 to {num_nodes - 1}, got {low if low < 0 else high}"
            )


def _check_rows(name: str, value: Tensor, x: Tensor, rows: int, width: int | None) -> None:
    inner = list(x.shape[1:-1])
    fits = num_dims(value) == 2 or (
        num_dims(value) == x.dim() and all(a in (1, b) for a, b in zip(value.shape[1:-1], inner, strict=True))
    )
    if not fits or value.size(0) != rows or value.size(-1) != width or value.is_complex():
        wider = f" or {[rows, *inner, width]}" if inner else ""
        raise ValueError(f"expected {name!r} of shape {[rows, width]}{wider}, got {describe(value)}")


def _check_edge_index(edge_index: Adj, num_nodes: int) -> int:
    if is_sparse(edge_index):
        if isinstance(edge_index, Tensor):
            size = list(edge_index.shape[: edge_index.dim() - edge_index.dense_dim()])
        else:
            size = list(edge_index.sizes())[:2]
        if size != [num_nodes, num_nodes]:
            raise ValueError(f"expected a sparse adjacency matrix of size {[num_nodes, num_nodes]}, got {size}")
        return edge_index._nnz() if is_torch_sparse_tensor(edge_index) else edge_index.nnz()
    if (
        num_dims(edge_index) != 2
        or edge_index.size(0) != 2
        or edge_index.is_floating_point()
        or edge_index.is_complex()
        or edge_index.dtype == torch.bool
    ):
        raise ValueError(
            f"expected integer 'edge_index' of shape [2, num_edges] or a sparse matrix, got {describe(edge_index)}"
        )
    if isinstance(edge_index, EdgeIndex) and any(size not in (None, num_nodes) for size in edge_index.sparse_size()):
        raise ValueError(
            f"expected an EdgeIndex of size {(num_nodes, num_nodes)} or of none, got {edge_index.sparse_size()}"
        )
    return edge_index.size(1)
