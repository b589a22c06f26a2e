"""The space stage: send, gather, update.

Shape legend: N nodes, E edges, C input channels, H hidden channels, O output channels, P position channels, heads K,
``*`` any inner dimensions (time, batch of clips), also none.
"""

from collections.abc import Callable
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor, SparseTensor
from torch_geometric.utils import is_sparse, is_torch_sparse_tensor, softmax
from torch_geometric.utils.sparse import set_sparse_value

from rstg_pyg.arguments import check_flags, check_options, check_type
from rstg_pyg.conv.adjacency import collectable
from rstg_pyg.conv.attention import PairScore
from rstg_pyg.conv.backend import choose_backend
from rstg_pyg.conv.checks import check_arguments, check_ends, check_inputs
from rstg_pyg.conv.fast_gather import fast_gather
from rstg_pyg.conv.linear import Linear
from rstg_pyg.conv.message_mlp import MessageMLP
from rstg_pyg.conv.projections import project, project_merged
from rstg_pyg.conv.update_mlp import UpdateMLP
from rstg_pyg.norm import Norm, normalised, resolve_norm
from rstg_pyg.watched import is_bare


class RSTGConv(MessagePassing):
    r"""The space stage of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
    `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_): send, gather by attention, update.

    .. math::
        \mathbf{m}_{ji} &= \mathrm{MLP}_{send}
            \left( [\mathbf{v}_j \, \Vert \, \mathbf{p}_j \, \Vert \, \mathbf{v}_i \, \Vert \, \mathbf{p}_i] \right)

        \mathbf{g}_i &= \sum_{j \in \mathcal{N}(i)} \alpha_{ji} \, \mathbf{m}_{ji}, \qquad
            \alpha_{ji} = \mathrm{softmax}_{j \in \mathcal{N}(i)} \left( s(\mathbf{v}_j, \mathbf{v}_i) \right)

        \mathbf{v}'_i &= \mathrm{MLP}_{update} \left( [\mathbf{v}_i \, \Vert \, \mathbf{g}_i] \right)

    with :math:`\mathbf{p}` the positions and the attention score

    - ``"dot"``: :math:`s = (\mathbf{W}_q \mathbf{v}_i)^\top (\mathbf{W}_k \mathbf{v}_j) / \sqrt{d}`,
    - ``"additive"``: :math:`s = \mathrm{LeakyReLU}(\mathbf{w}_1^\top \mathbf{v}_i + \mathbf{w}_2^\top \mathbf{v}_j)`,
    - ``"mean"``: :math:`s = 0`, uniform weights.

    Each of several heads has scores of its own and weighs its own slice of the message channels. A node without
    neighbours gathers 0.

    Two identities save most of the work without changing the function: the first send layer is a sum of a source and a
    destination projection, computed per node, and a linear last send layer commutes with the weighted sum over the
    neighbours, so it too is applied per node. Only a sum, an activation and a weighting are left per edge. With one
    head and many rows two more products per node become products of weights: one of the two projections of a dot score,
    and the last send layer with the first update layer.

    Both MLPs end in a linear layer by default. The paper's end in an activation: ``send_act_last=True,
    update_act_last=True``. The default saves the product per edge.

    Args:
        in_channels: Size C of each node feature, or -1 to derive it from the first input.
        out_channels: Size O of each output feature.
        pe_channels: Size P of the node positions ``pe``; 0 for none. Positions enter the messages only.
        heads: Number of attention heads; divides ``out_channels``.
        attention: ``"dot"``, ``"additive"`` or ``"mean"``.
        edge_dim: Size of the edge features, which enter the first send layer; None for none.
        hidden_channels: Width H of the hidden layers of both MLPs (default: ``out_channels``).
        send_layers: Number of layers of the send MLP.
        update_layers: Number of layers of the update MLP.
        act: Activation, a name that PyG resolves or a module or function.
        send_act_last: Apply the activation after the last send layer too.
        update_act_last: Apply the activation after the last update layer too.
        norm: Normalisation of the stage's input: ``"layer_norm"``, ``"batch_norm"``, a function from the number of
            channels to a module, or None.
        residual: Add the stage's input to its output; needs ``in_channels == out_channels``.
        dropout: Dropout probability of the attention weights during training.
        negative_slope: Of the LeakyReLU in additive attention.
        bias: Learn additive biases in both MLPs.
        backend: What computes the messages and their sums; the function is the same. ``"auto"`` takes the fastest:
            ``"native"`` on CPUs, compiled at first use where there is a C++ compiler; else ``"blocks"``, in PyTorch
            (with a product per edge only where tensors per edge would be large); ``"triton"`` on CUDA. ``"reference"``
            is message passing with a tensor per edge; ``"dense"``, over all pairs of nodes, is taken by name only.
            On the reference run compiled and exported code; explanations, hooks, aggregations other than a sum, and
            whatever a subclass or an instance has in place of a method of message passing; children of a class of
            their own, with a hook or a parametrisation, which are called wherever the formula calls them; and what
            follows the operations of PyTorch: transforms such as :func:`torch.func.vmap`, forward-mode
            differentiation, ``torch.jit.trace``, FLOP counters.
        **kwargs: Arguments of :class:`~torch_geometric.nn.conv.MessagePassing` such as ``aggr`` or ``flow``.

    Shapes:
        - **x:** ``[N, *, C]``.
        - **edge_index:** ``[2, E]``, source and destination; or a (transposed) sparse adjacency matrix ``[N, N]``.
        - **pe:** ``[N, P]`` or ``[N, *, P]``. **edge_attr:** ``[E, edge_dim]`` or ``[E, *, edge_dim]``. Both of any
          real type: they are cast to that of ``x``.
        - **output:** ``[N, *, O]``; with ``return_attention_weights``, ``(output, (edge_index, [E, *, K]))``.

    Raises:
        ValueError: If an argument is out of its range, or an input has a width or a number of rows other than declared.
        TypeError: If ``x`` is a pair of tensors: the layer is not bipartite.
        IndexError: If an edge points outside the nodes.
        RuntimeError: If the backend that was asked for by name can not run here.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTGConv, region_graph
        >>> graph = region_graph((3, 2, 1))
        >>> conv = RSTGConv(64, 64, pe_channels=36, heads=4)
        >>> conv(torch.randn(14, 10, 64), graph.edge_index, pe=graph.heatmap).shape
        torch.Size([14, 10, 64])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *,
        pe_channels: int = 0,
        attention: str = "dot",
        edge_dim: int | None = None,
        hidden_channels: int | None = None,
        send_layers: int = 2,
        update_layers: int = 2,
        act: str | Callable | None = "relu",
        send_act_last: bool = False,
        update_act_last: bool = False,
        norm: Norm = None,
        residual: bool = False,
        dropout: float = 0.0,
        negative_slope: float = 0.2,
        bias: bool = True,
        backend: str = "auto",
        **kwargs,
    ) -> None:
        check_options(self, kwargs)
        check_flags(send_act_last=send_act_last, update_act_last=update_act_last, residual=residual, bias=bias)
        hidden_channels = out_channels if hidden_channels is None else hidden_channels
        check_arguments(
            in_channels=in_channels,
            out_channels=out_channels,
            pe_channels=pe_channels,
            heads=heads,
            attention=attention,
            edge_dim=edge_dim,
            hidden_channels=hidden_channels,
            send_layers=send_layers,
            update_layers=update_layers,
            residual=residual,
            dropout=dropout,
            backend=backend,
            kwargs=kwargs,
        )
        kwargs.setdefault("aggr", "sum")
        super().__init__(node_dim=0, **kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.pe_channels = pe_channels
        self.heads = heads
        self.attention = attention
        self.edge_dim = edge_dim
        self.hidden_channels = hidden_channels
        self.residual = residual
        self.dropout = dropout
        self.backend = backend

        self._formula = {
            "heads": heads,
            "send_act_last": send_act_last,
            "update_act_last": update_act_last,
            "residual": residual,
        }
        """What the sizes of the weights do not tell; state dicts carry it beside the version of each module."""

        self.norm = resolve_norm(norm, in_channels)

        self.send = MessageMLP(
            in_channels,
            pe_channels,
            edge_dim,
            hidden_channels,
            out_channels,
            send_layers,
            act,
            send_act_last,
            heads,
            bias,
        )
        self.pair_score = PairScore(in_channels, out_channels, heads, attention, negative_slope)

        self.update_mlp = UpdateMLP(
            [
                in_channels + out_channels if in_channels > 0 else -1,
                *[hidden_channels] * (update_layers - 1),
                out_channels,
            ],
            act=act,
            bias=bias,
            plain_last=not update_act_last,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters."""
        super().reset_parameters()
        for module in (self.norm, self.send, self.pair_score, self.update_mlp):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        getattr(destination, "_metadata", {}).setdefault(prefix[:-1], {}).update(self._formula)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], strict: bool, *lists: list[str]
    ) -> None:
        *_, errors = lists
        for name, own in self._formula.items():
            if local_metadata.get(name, own) != own:
                errors.append(
                    f"expected weights of {name}={own!r} for {prefix[:-1] or self!r}, got those of "
                    f"{name}={local_metadata[name]!r}; dict(state_dict) loads them all the same"
                )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        r"""Run one space stage.

        Args:
            x: Node features ``[N, *, C]``.
            edge_index: Edges ``[2, E]``, an :class:`~torch_geometric.EdgeIndex`, or the transposed adjacency matrix as
                a ``torch.sparse`` tensor (COO, CSR; CSC is converted) or a ``torch_sparse.SparseTensor``.
            pe: Node positions ``[N, P]`` or ``[N, *, P]``.
            edge_attr: Edge features ``[E, edge_dim]`` or ``[E, *, edge_dim]``; by default the values of a sparse
                matrix where ``edge_dim`` is set.
            return_attention_weights: If true, also return ``(edge_index, alpha)``, alpha of shape ``[E, *, K]``; for a
                ``torch.sparse`` matrix ``(matrix of alpha, alpha)``, for a ``SparseTensor`` one that holds alpha.
        """
        num_edges = check_inputs(x, edge_index, pe, edge_attr, self.in_channels, self.pe_channels, self.edge_dim)
        check_type("x", x, self)
        if self.residual and x.size(-1) != self.out_channels:
            raise ValueError(f"expected 'x' of width {self.out_channels} with residual=True, got {x.size(-1)}")
        edge_index = collectable(edge_index, edge_attr)
        looked_at = self._messages_are_looked_at()
        backend = "reference" if looked_at else choose_backend(self, x, edge_index, num_edges)

        v = normalised(self.norm, x)
        if backend == "reference":
            if torch.compiler.is_compiling() and not is_sparse(edge_index):
                check_ends(*edge_index, x.size(0))
            src, dst, query, key, _ = project(self, v, pe)
            # edge_updater_type: (query: Tensor, key: Tensor)
            alpha = self.edge_updater(edge_index, query=query, key=key).to(src.dtype)

            # propagate_type: (src: Tensor, dst: Tensor, alpha: Tensor, edge_attr: OptTensor, per_edge: bool)
            gathered = self.propagate(
                edge_index,
                src=src,
                dst=dst,
                alpha=alpha,
                edge_attr=edge_attr,
                per_edge=looked_at or not self.send.has_linear_last or not is_bare(self.send.lin_last, Linear),
            )
            out = self.update_mlp(torch.cat([v, gathered.to(v.dtype)], dim=-1))
        else:
            src, dst, query, key, own = project_merged(self, v, pe)
            value, total, alpha_of_edges = fast_gather(self, backend, src, dst, query, key, edge_index, edge_attr)
            if own is not None:
                out = self.update_mlp.forward_from_sum(own, value, total, self.send)
            else:
                gathered = self.send.last_of_sum(value, total) if self.send.has_linear_last else value
                out = self.update_mlp(torch.cat([v, gathered.to(v.dtype)], dim=-1))
        if self.residual:
            out = x + out

        if return_attention_weights:
            alpha = alpha.expand(-1, *x.shape[1:-1], -1) if backend == "reference" else alpha_of_edges()
            if isinstance(edge_index, SparseTensor):
                return out, edge_index.set_value(alpha, layout="coo")
            if is_torch_sparse_tensor(edge_index):
                return out, (set_sparse_value(edge_index, alpha), alpha)
            return out, (edge_index, alpha)
        return out

    def _messages_are_looked_at(self) -> bool:
        """Whether somebody sees, changes or replaces a part of the message passing, whose messages are to be those of
        the formula then, per edge."""
        cls, own = type(self), vars(self)
        return bool(
            self.explain
            or not is_bare(self.aggr_module, SumAggregation)
            or any(own[name] for name in _HOOKS)
            or any(name in own or getattr(cls, name) is not method for name, method in _METHODS.items())
            or any(_is_written_by_hand(self, name) for name in ("propagate", "edge_updater"))
        )

    def edge_update(
        self, query_i: Tensor, key_j: Tensor, index: Tensor, ptr: OptTensor, dim_size: Optional[int]
    ) -> Tensor:
        score = self.pair_score.combine(query_i, key_j)
        if score.dtype in (torch.bfloat16, torch.float16):
            score = score.float()
        alpha = softmax(score, index, ptr, dim_size, dim=0)
        return F.dropout(alpha, p=self.dropout, training=self.training)

    def message(self, src_j: Tensor, dst_i: Tensor, alpha: Tensor, edge_attr: OptTensor, per_edge: bool) -> Tensor:
        h = self.send.hidden(src_j, dst_i, edge_attr)
        if per_edge:
            return (self.send.last(h).unflatten(-1, (self.heads, -1)) * alpha.unsqueeze(-1)).flatten(-2)
        return (h.unsqueeze(-2) * alpha.unsqueeze(-1)).flatten(-2)

    def update(
        self, inputs: Tensor, alpha: Tensor, index: Tensor, ptr: OptTensor, dim_size: Optional[int], per_edge: bool
    ) -> Tensor:
        if per_edge:
            return inputs
        # 1 but for attention dropout and for nodes without neighbours; the last layer's bias counts by it.
        total = self.aggr_module(alpha, index, ptr=ptr, dim_size=dim_size, dim=0)
        return self.send.last_of_sum(inputs, total)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"


_METHODS = {
    name: getattr(RSTGConv, name) for name in ("message", "aggregate", "message_and_aggregate", "update", "edge_update")
}
_HOOKS = [
    f"_{method}_forward_{when}"
    for method in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
]


def _is_written_by_hand(conv: RSTGConv, name: str) -> bool:
    """Whether a method is neither the one that PyG generates for the class nor the one that it falls back to."""
    cls, method = type(conv), getattr(conv, name)
    return method.__module__ != f"{cls.__module__}_{cls.__name__}_{name}" and getattr(
        method, "__func__", None
    ) is not getattr(MessagePassing, name)
