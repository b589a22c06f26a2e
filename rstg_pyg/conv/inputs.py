"""What the convolution accepts: its arguments and the shapes of its inputs."""

import math
from typing import Any

from torch import Tensor
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.typing import OptTensor

from rstg_pyg.arguments import check_choice, check_device, check_like, check_positive, check_share, describe, num_dims
from rstg_pyg.conv.layers import ATTENTION
from rstg_pyg.ops import BACKENDS, GraphIndex
from rstg_pyg.ops.frames import with_inner_dims


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
    act: Any,
    residual: bool,
    dropout: float,
    negative_slope: float,
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
    if out_channels % heads != 0:
        raise ValueError(
            f"expected 'heads' to divide the number of output channels, got heads={heads} with {out_channels} channels"
        )
    check_share("dropout", dropout)
    if not isinstance(negative_slope, (int, float)) or not math.isfinite(negative_slope):
        raise ValueError(f"expected 'negative_slope' to be a finite number, got {describe(negative_slope)}")
    if isinstance(act, type) or not (act is None or isinstance(act, str) or callable(act)):
        raise ValueError(f"expected 'act' to be a name, a module, a function or None, got {act!r}")
    if residual and in_channels not in (-1, out_channels):
        raise ValueError(
            "expected 'in_channels' to equal 'out_channels' with residual=True, got "
            f"in_channels={in_channels}, out_channels={out_channels}"
        )
    if not isinstance(kwargs.get("aggr", "sum") or None, (str, Aggregation)):
        raise ValueError(f"expected 'aggr' to be a single aggregation, got {kwargs['aggr']!r}")


def check_inputs(
    conv: Any, x: Any, index: GraphIndex, edge_attr: OptTensor, pe: OptTensor, has_time: bool = False
) -> None:
    """Check the shapes that :class:`~rstg_pyg.RSTGConv` is called with; with ``has_time``, the last inner dimension of
    ``x`` is time, and the others may be left out of ``edge_attr`` and ``pe``."""
    num_nodes, num_edges = x.size(0), index.num_edges
    check_index(index, x, conv.flow)
    check_device(x, edge_attr=edge_attr, pe=pe)
    if (pe is None) != (conv.pe_channels == 0):
        wanted = f"'pe' of width {conv.pe_channels}" if pe is None else "no 'pe'"
        got = describe(pe) if pe is not None else "none" + _BY_NAME * (edge_attr is not None and conv.edge_dim is None)
        raise ValueError(f"expected {wanted} with pe_channels={conv.pe_channels}, got {got}")
    if pe is not None:
        _check_rows("pe", pe, x, num_nodes, conv.pe_channels, has_time)
    if edge_attr is not None and conv.edge_dim is None:
        hint = "" if num_dims(edge_attr) > 0 and edge_attr.size(0) == num_edges else _BY_NAME
        raise ValueError(f"expected no 'edge_attr' with edge_dim=None, got {describe(edge_attr)}{hint}")
    if edge_attr is not None and index.reordered is not None:
        raise ValueError(
            "expected 'edge_attr' with a coalesced COO or a CSR matrix, whose order of edges is fixed, got "
            f"{index.reordered}"
        )
    if conv.edge_dim is not None:
        edge_attr = index.values if edge_attr is None else edge_attr
        if edge_attr is None:
            raise ValueError(f"expected 'edge_attr' of shape [{num_edges}, {conv.edge_dim}], got none")
        _check_rows("edge_attr", edge_attr, x, num_edges, conv.edge_dim, has_time)


_BY_NAME = " (the third argument is 'edge_attr': give the others by name, as in pe=..., state=... or mask=...)"


def check_index(index: GraphIndex, x: Tensor, flow: str) -> None:
    """Raise unless an index is of a graph of the nodes of ``x`` that a layer of this flow can take."""
    if index.num_nodes != x.size(0):
        raise ValueError(f"expected an index of {x.size(0)} nodes, as 'x' has, got one of {index.num_nodes}")
    check_device(x, edge_index=index.source)
    if index.flow != flow and index.has_flow:
        raise ValueError(f"expected an index with flow={flow!r}, got {index.flow!r}")


def changing_graph(
    conv: Any, x: Any, edge_index: Any, edge_attr: OptTensor, pe: OptTensor, edge_time: OptTensor
) -> GraphIndex:
    """The edges of a graph that changes, once the inputs are checked."""
    check_nodes(conv, x)
    if x.dim() < 3:
        raise ValueError(f"expected 'x' of shape [N, *, T, C] with 'edge_time' or 'mask', got {describe(x)}")
    index = edge_index if isinstance(edge_index, GraphIndex) else GraphIndex(edge_index, x.size(0), conv.flow)
    check_inputs(conv, x, index, edge_attr, pe, has_time=True)
    if edge_time is not None and num_dims(edge_attr) > 2:
        shape = [index.num_edges, conv.edge_dim]
        raise ValueError(f"expected 'edge_attr' of shape {shape} with 'edge_time', got {describe(edge_attr)}")
    return index


def check_nodes(conv: Any, x: Any) -> None:
    """Check ``x`` alone, which the index of a graph takes its number of nodes from."""
    if isinstance(x, (tuple, list)):
        raise ValueError(
            "expected 'x' to be one tensor [num_nodes, *, channels], got a pair: the space stage updates the nodes "
            "that send, so it has no bipartite form"
        )
    width = "in_channels" if conv.in_channels == -1 else conv.in_channels
    fits = conv.in_channels == -1 or (num_dims(x) > 0 and x.size(-1) == conv.in_channels)
    if num_dims(x) < 2 or not fits or not x.is_floating_point():
        raise ValueError(f"expected floating point 'x' of shape [num_nodes, *, {width}], got {describe(x)}")
    check_like("x", x, conv)
    if conv.residual and x.size(-1) != conv.out_channels:
        raise ValueError(f"expected 'x' of width {conv.out_channels} with residual=True, got {x.size(-1)}")


def _check_rows(name: str, value: Tensor, x: Tensor, rows: int, width: int | None, has_time: bool) -> None:
    inner = list(x.shape[1:-1])
    given = with_inner_dims(value, x.dim()) if has_time and isinstance(value, Tensor) else value
    fits = num_dims(given) == 2 or (
        num_dims(given) == x.dim() and all(a in (1, b) for a, b in zip(given.shape[1:-1], inner, strict=True))
    )
    if not fits or value.size(0) != rows or value.size(-1) != width or value.is_complex():
        forms = (
            [[rows, width]]
            + ([[rows, inner[-1], width]] if has_time else [])
            + ([[rows, *inner, width]] if inner else [])
        )
        forms = " or ".join(dict.fromkeys(map(str, forms)))
        counted = f"'x' of shape {list(x.shape)} has {rows} nodes" if name == "pe" else f"there are {rows} edges"
        hint = f" ({counted})" if num_dims(value) > 0 and value.size(0) != rows else ""
        raise ValueError(f"expected {name!r} of shape {forms}, got {describe(value)}{hint}")
