"""A node that hears all others and that all others hear."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from rstg_pyg.temporal.series import EDGE, NODE, Series, empty_like


class VirtualNode(BaseTransform):
    r"""Append a node that hears all nodes and is heard by all, so that any two nodes are at most two edges apart.

    The form of :class:`torch_geometric.transforms.VirtualNode` for graphs that change: that one puts all new edges
    into frame 0 where there is an ``edge_time``, and its node is absent where there is a ``mask``. This one is there in
    every frame in which anybody is, with edges from and to those that are. A graph of regions does not need it: its
    region of scale 1 is such a node.

    Its features are 0, and so are those of its edges; bools of it are False and integers -1, which are nobody's. A loss
    leaves it out: ``y_mask`` is False there, and ``virtual_mask`` says where it stands. So it is for windows and their
    batches, not for the series that they are cut from, whose next frames it would be asked for.

    Shapes:
        - **data:** see :class:`Series`, or a batch of such graphs: each gets a node of its own, its last one.
        - **output:** as ``data``, of N + 1 nodes and E + 2 N edges, with ``edge_time`` two for every node in every
          frame in which it is there; **virtual_mask:** ``[N + 1]`` bool.

    Raises:
        ValueError: If ``data`` is not a graph that changes, or has a virtual node.

    Source: the virtual node of Gilmer, Schoenholz, Riley, Vinyals, Dahl, "Neural Message Passing for Quantum
    Chemistry", ICML 2017, arXiv:1704.01212.

    Example:
        >>> data = Data(x=torch.ones(3, 5, 2), edge_index=torch.tensor([[0], [1]]), mask=torch.rand(3, 5) < 0.5)
        >>> out = VirtualNode()(data)
        >>> out
        Data(x=[4, 5, 2], edge_index=[2, 7], mask=[4, 5], virtual_mask=[4])
        >>> bool((out.mask[-1] == data.mask.any(0)).all())
        True
    """

    def forward(self, data: Data) -> Data:
        if isinstance(data, Batch):
            out = Batch.from_data_list([self.forward(graph) for graph in data.to_data_list()])
            lost = sorted(set(data.keys()) - set(out.keys()))
            if lost:
                raise ValueError(f"expected a batch of what its graphs hold, got {lost[0]!r} beside: give it to graphs")
            return out
        series = Series(data)
        if "virtual_mask" in data:
            raise ValueError("expected a graph without a virtual node, got 'virtual_mask'")
        nodes, device = torch.arange(series.num_nodes, device=data.x.device), data.x.device
        mask, time = data.get("mask"), None
        if series.edge_time is not None:
            there = data.x.new_ones(data.x.shape[:2], dtype=torch.bool) if mask is None else mask
            time, nodes = there.t().nonzero().unbind(1)
        hub = torch.full_like(nodes, series.num_nodes)
        new = torch.stack([torch.cat([nodes, hub]), torch.cat([hub, nodes])])
        out = empty_like(data)
        for name, rows in series.rows.items():
            value = data[name]
            if name == "edge_index":
                value = torch.cat([value, new.to(value.dtype)], 1)
            elif name == "edge_time":
                value = torch.cat([value, time.repeat(2).to(value.dtype)])
            elif name == "mask":
                value = torch.cat([value, value.any(0, keepdim=True)])
            elif rows in (NODE, EDGE):
                value = torch.cat([value, _nobody(value, 1 if rows == NODE else new.size(1))])
            out[name] = value
        if "edge_index" not in out:
            out.edge_index = new
        out.virtual_mask = torch.arange(series.num_nodes + 1, device=device) == series.num_nodes
        return out


def _nobody(value: Tensor, rows: int) -> Tensor:
    """Rows of nobody: 0, False or -1."""
    number = value.dtype == torch.bool or value.is_floating_point() or value.is_complex()
    return value.new_full((rows, *value.shape[1:]), 0 if number else -1)
