"""The space stage: send, gather, update.

Shape legend: N nodes, E edges, C input channels, H hidden channels, O output channels, P position channels, heads K,
``*`` any inner dimensions (time, batch of clips), also none.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Optional, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import softmax

from rstg_pyg.arguments import check_flags, check_options, is_like
from rstg_pyg.conv.inputs import changing_graph, check_arguments, check_inputs, check_nodes
from rstg_pyg.conv.layers import MessageMLP, PairScore, UpdateMLP, join_frames, may_be_read, project, space_weights
from rstg_pyg.formula import Formula
from rstg_pyg.norm import Norm, layer_norm_of, normalised, resolve_norm
from rstg_pyg.ops.frames import FrameIndex, with_inner_dims
from rstg_pyg.ops.gather import GatherSpec, choose_backend, gather
from rstg_pyg.ops.index import GraphIndex, check_ends
from rstg_pyg.ops.stages import Stage, pays_in_one_call, run_stages
from rstg_pyg.watched import MESSAGE_METHODS, everything_is_watched, messages_are_watched


class RSTGConv(Formula, MessagePassing):
    r"""The space stage of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
    `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_): send, gather by attention, update.

    .. math::
        \mathbf{m}_{ji} &= \mathrm{MLP}_{send}
            \left( [\mathbf{v}_j \, \Vert \, \mathbf{p}_j \, \Vert \, \mathbf{v}_i \, \Vert \, \mathbf{p}_i] \right)

        \mathbf{g}_i &= \sum_{j \in \mathcal{N}(i)} \alpha_{ji} \, \mathbf{m}_{ji}, \qquad
            \alpha_{ji} = \mathrm{softmax}_{j \in \mathcal{N}(i)} \left( s(\mathbf{v}_j, \mathbf{v}_i) \right)

        \mathbf{v}'_i &= \mathrm{MLP}_{update} \left( [\mathbf{v}_i \, \Vert \, \mathbf{g}_i] \right)

    ``out_channels`` is the whole width of the output: the heads divide it among them, each with scores of its own and
    its own slice of the message channels. :math:`\mathbf{p}` are positional encodings, and the attention score is

    - ``"dot"``: :math:`s = (\mathbf{W}_q \mathbf{v}_i)^\top (\mathbf{W}_k \mathbf{v}_j) / \sqrt{d}`,
    - ``"additive"``: :math:`s = \mathrm{LeakyReLU}(\mathbf{w}_1^\top \mathbf{v}_i + \mathbf{w}_2^\top \mathbf{v}_j)`,
    - ``"mean"``: :math:`s = 0`, uniform weights.

    A node without neighbours gathers 0.

    Two identities save most of the work without changing the function: the first send layer is a sum of a source and a
    destination projection, computed per node, and a linear last send layer commutes with the weighted sum over the
    neighbours, so it too is applied per node. Only a sum, an activation and a weighting are left per edge. With one
    head and many rows two more products per node become products of weights: one of the two projections of a dot score,
    and the last send layer with the first update layer.

    Both MLPs end in a linear layer by default. The paper's end in an activation: ``send_act_last=True,
    update_act_last=True``. The default saves the product per edge.

    Args:
        in_channels: Size C of each node feature, or -1 to derive it from the first input.
        out_channels: Size O of each output feature, all heads together.
        heads: Number K of attention heads; divides ``out_channels``.
        pe_channels: Size P of the positional encodings ``pe``, which enter the messages only; 0 for none.
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
        backend: What computes the messages and their sums; the function is the same. ``"auto"`` takes the fastest that
            can run: ``"triton"`` on CUDA; ``"native"`` on CPUs, compiled at first use where there is a C++ compiler,
            and of few rows without gradients in one call; ``"blocks"``, in PyTorch, where tensors per edge would be
            large; else ``"reference"``, message passing with a tensor per edge. Whatever was asked for, the reference
            runs where a faster way would pass somebody by: with explanations, hooks, other aggregations than a sum,
            methods of a subclass, parametrised layers, and under what follows PyTorch's operations
            (:func:`torch.func.vmap`, forward-mode differentiation, ``torch.jit.trace``, FLOP counters). Exported
            programs hold it too, unless a backend is named.
        **kwargs: Arguments of :class:`~torch_geometric.nn.conv.MessagePassing` such as ``aggr`` or ``flow``.

    Shapes:
        - **x:** ``[N, *, C]``.
        - **edge_index:** ``[2, E]``, source and destination; or a (transposed) sparse adjacency matrix ``[N, N]``.
        - **pe:** ``[N, P]`` or ``[N, *, P]``. **edge_attr:** ``[E, edge_dim]`` or ``[E, *, edge_dim]``. Both of any
          real type: they are cast to that of ``x``.
        - **edge_time, mask:** of a graph that changes, ``[E]`` and ``[N, *, T]`` bool, see :meth:`forward`.
        - **output:** ``[N, *, O]``; with ``return_attention_weights``, ``(output, (edge_index, [E, *, K]))``.

    Raises:
        ValueError: If an argument is out of its range, or an input has a width or a number of rows other than
            declared, or is a pair of tensors: the layer is not bipartite.
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

    refused_options: ClassVar = {
        "node_dim": "nodes are always the first dimension of 'x'",
        "decomposed_layers": "hidden channels of a message can not be split",
    }

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
            *(in_channels, out_channels, pe_channels, heads, attention, edge_dim, hidden_channels),
            *(send_layers, update_layers, act, residual, dropout, negative_slope, backend, kwargs),
        )
        kwargs.setdefault("aggr", "sum")
        super().__init__(node_dim=0, **kwargs)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.pe_channels, self.edge_dim, self.hidden_channels = pe_channels, edge_dim, hidden_channels
        self.heads, self.attention = heads, attention
        self.residual, self.dropout, self.backend = residual, dropout, backend

        self.formula = {
            "heads": heads,
            "attention": attention,
            "send_act_last": send_act_last,
            "update_act_last": update_act_last,
            "residual": residual,
        }
        if attention == "additive":
            self.formula["negative_slope"] = negative_slope
        if act is None or isinstance(act, str):
            self.formula["act"] = act and act.lower()
        if isinstance(kwargs["aggr"], str):
            self.formula["aggr"] = {"add": "sum"}.get(kwargs["aggr"], kwargs["aggr"])

        self.norm = resolve_norm(norm, in_channels)

        widths = in_channels, pe_channels, edge_dim, hidden_channels, out_channels
        self.send = MessageMLP(*widths, send_layers, act, send_act_last, heads, bias)
        self.pair_score = PairScore(in_channels, out_channels, heads, attention, negative_slope)
        pair = in_channels + out_channels if in_channels > 0 else -1
        widths = [pair, *[hidden_channels] * (update_layers - 1), out_channels]
        self.update_mlp = UpdateMLP(widths, act, update_act_last, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters."""
        super().reset_parameters()
        for module in (self.norm, self.send, self.pair_score, self.update_mlp):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

    @overload
    def forward(
        self,
        x: Tensor,
        edge_index: Adj | GraphIndex,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        return_attention_weights: Literal[False] | None = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor,
        edge_index: Adj | GraphIndex,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        *,
        return_attention_weights: Literal[True],
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> tuple[Tensor, Any]: ...

    def forward(
        self,
        x: Tensor,
        edge_index: Adj | GraphIndex,
        edge_attr: OptTensor = None,
        pe: OptTensor = None,
        return_attention_weights: bool | None = None,
        *,
        edge_time: OptTensor = None,
        mask: OptTensor = None,
    ) -> Any:
        r"""Run one space stage.

        Args:
            x: Node features ``[N, *, C]``.
            edge_index: Edges ``[2, E]``, an :class:`~torch_geometric.EdgeIndex`, the transposed adjacency matrix as a
                ``torch.sparse`` tensor (COO, CSR; CSC is converted) or a ``torch_sparse.SparseTensor``, or a
                :class:`~rstg_pyg.ops.GraphIndex` that is made once for many calls.
            edge_attr: Edge features ``[E, edge_dim]`` or ``[E, *, edge_dim]``; by default a matrix's values,
                also one each, ``[E]``, with ``edge_dim=1``.
            pe: Positional encodings ``[N, P]`` or ``[N, *, P]``.
            return_attention_weights: If true, also return ``(edge_index, alpha)``, alpha of shape ``[E, *, K]``; for a
                ``torch.sparse`` matrix ``(matrix of alpha, alpha)``, for a ``SparseTensor`` one that holds alpha.
            edge_time: The frame of every edge ``[E]``, of ``x [N, *, T, C]``; None where each edge serves every frame.
            mask: Where a node is there, ``[N, *, T]`` bool. Elsewhere it neither sends nor receives, its output is 0,
                and what stands in its input does not matter. With ``edge_time`` or ``mask``, ``pe`` may be ``[N, T,
                P]``, and ``edge_attr`` of edges that serve every frame ``[E, T, edge_dim]``; alpha is 0 where an edge
                has an end that is not there, and has no T where an edge has one frame.
        """
        if edge_time is not None or mask is not None:
            return self._changing((x, edge_index, edge_attr, pe), return_attention_weights, edge_time, mask)
        index = self._index(x, edge_index, edge_attr, pe)
        watched, spec, backend = plan = self._plan(x, index)
        stage, inner, weighs = self.as_stage(x, index, pe, plan), x.shape[1:-1], bool(return_attention_weights)
        if stage is not None:
            out, _, alphas = run_stages(x.reshape(x.size(0), -1, x.size(-1)), [stage], index, pe, weighs=weighs)
            out = out.view(x.size(0), *inner, -1)
            return (out, index.with_attention(alphas[0].view(-1, *inner, self.heads))) if weighs else out
        v = x if self.norm is None else normalised(self.norm, x)
        edge_attr = index.values if edge_attr is None and self.edge_dim is not None else edge_attr
        if backend == "reference":
            out, alpha = self._message_passing(v, index, edge_attr, pe, watched)
        else:
            out, alpha = self._gather(v, index, edge_attr, pe, spec, backend)
        if self.residual:
            out = x + out
        if not return_attention_weights:
            return out
        return out, index.with_attention(alpha().expand(-1, *x.shape[1:-1], -1))

    def _changing(self, inputs: tuple[Any, ...], weighs: bool | None, edge_time: OptTensor, mask: OptTensor) -> Any:
        """A space stage on a graph that changes: on one node for every frame in which a node is there."""
        x, _, edge_attr, pe = inputs
        index = changing_graph(self, *inputs, edge_time)
        frames = FrameIndex(x.shape[:-1], index, edge_time, mask)
        edge_attr = index.values if edge_attr is None and self.edge_dim is not None else edge_attr
        if frames.is_static:
            edge_attr, pe = (v if v is None else with_inner_dims(v, x.dim()) for v in (edge_attr, pe))
            return self.forward(x, index, edge_attr, pe, weighs)
        rows = frames.take(x), frames.index, frames.take_edge_attr(edge_attr), frames.take_pe(pe)
        out = self.forward(*rows, weighs)
        return (frames.put(out[0]), frames.put_attention(out[1])) if weighs else frames.put(out)

    def _index(self, x: Tensor, edge_index: Adj | GraphIndex, edge_attr: OptTensor, pe: OptTensor) -> GraphIndex:
        """Check the inputs: what most calls are at a glance, all else one by one."""
        is_usual = (
            type(x) is Tensor
            and x.layout == torch.strided
            and x.dim() >= 2
            and x.size(-1) == self.in_channels
            and is_like(x, getattr(self.send.lin_dst, "weight", None))
        )
        if not is_usual:
            check_nodes(self, x)
        index = edge_index if isinstance(edge_index, GraphIndex) else GraphIndex(edge_index, x.size(0), self.flow)
        if (
            not is_usual
            or index.num_nodes != x.size(0)
            or index.flow != self.flow
            or index.source.device != x.device
            or edge_attr is not None
            or self.edge_dim is not None
            or (pe is None) != (self.pe_channels == 0)
            or (pe is not None and (type(pe) is not Tensor or not is_like(x, pe) or pe.layout != torch.strided))
            or (pe is not None and pe.shape != (x.size(0), self.pe_channels))
        ):
            check_inputs(self, x, index, edge_attr, pe)
        return index

    def _needs_reference(self, x: Tensor, index: GraphIndex) -> bool:
        """Whether there is nothing to gather, or a faster way would pass somebody by."""
        return (
            index.num_edges == 0
            or x.numel() == 0
            or not (index.has_flow or self.flow == "source_to_target")
            or not may_be_read(self.send, self.pair_score)
            or everything_is_watched()
        )

    def as_stage(self, x: Tensor, index: GraphIndex, pe: OptTensor, plan: Any = None) -> Stage | None:
        """What one call for few rows ``x``, once checked, needs to know; None where it can not do all that is to do."""
        if not pays_in_one_call(x, self.out_channels) or (pe is not None and (pe.dim() != 2 or pe.dtype != x.dtype)):
            return None
        _, spec, backend = plan or self._plan(x, index)
        norm = layer_norm_of(self.norm, x)
        if backend != "native" or spec.dropout > 0 or norm is None:
            return None
        weights = space_weights(self.send, self.pair_score, self.update_mlp)
        return weights and Stage("space", weights, *norm, self.residual, self.heads, self.update_mlp.act_last)

    def _plan(self, x: Tensor, index: GraphIndex) -> tuple[bool, GatherSpec | None, str]:
        """Whether somebody watches the messages, what is to be gathered in a faster way if any, and the backend."""
        watched = messages_are_watched(self, _METHODS)
        if watched or self._needs_reference(x, index):
            return watched, None, "reference"
        dropout = self.dropout if self.training else 0.0
        spec = GatherSpec(self.attention, self.heads, self.send.form, self.pair_score.negative_slope, dropout)
        return watched, spec, self._choose_backend(spec, x, index)

    def _choose_backend(self, spec: GatherSpec, x: Tensor, index: GraphIndex) -> str:
        elements = index.num_edges * self.hidden_channels * (x.numel() // (x.size(0) * x.size(-1)))
        return choose_backend(self.backend, spec, x, self.edge_dim is not None, elements)

    def _message_passing(self, v: Tensor, index: GraphIndex, edge_attr: OptTensor, pe: OptTensor, watched: bool) -> Any:
        """The formula, with a tensor per edge."""
        edge_index = index.adjacency
        if torch.compiler.is_compiling() and index.has_flow:
            check_ends(index.source, index.destination, index.num_nodes)
        (src, dst), (query, key) = self.send(v, pe), self.pair_score(v)
        # edge_updater_type: (query: Tensor, key: Tensor)
        alpha = self.edge_updater(edge_index, query=query, key=key).to(src.dtype)

        # propagate_type: (src: Tensor, dst: Tensor, alpha: Tensor, edge_attr: OptTensor, per_edge: bool)
        gathered = self.propagate(
            edge_index,
            src=src,
            dst=dst,
            alpha=alpha,
            edge_attr=edge_attr,
            per_edge=watched or not self.send.commutes,
        )
        return self.update_mlp(torch.cat([v, gathered.to(v.dtype)], dim=-1)), lambda: alpha

    def _gather(
        self, v: Tensor, index: GraphIndex, edge_attr: OptTensor, pe: OptTensor, spec: GatherSpec, backend: str
    ) -> Any:
        """The same function on tensors ``[N, F, ...]`` with all inner dimensions in one."""
        inner = v.shape[1:-1]
        v, edge_attr, pe = [join_frames(value, inner) for value in (v, edge_attr, pe)]
        src, dst, query, key, own = project(self.send, self.pair_score, self.update_mlp, v, pe)
        edge = self.send.edge_term(edge_attr, 3, src.dtype)
        found = gather(spec, src, dst, query, key, edge, index, self.send.message(), backend)
        summed = found.value.flatten(2)
        if own is not None:
            out = self.update_mlp.forward_from_sum(own, summed, found.total, self.send)
        else:
            gathered = self.send.last_of_sum(summed, found.total) if self.send.has_linear_last else summed
            out = self.update_mlp(torch.cat([v, gathered.to(v.dtype)], dim=-1))
        return out.view(out.size(0), *inner, -1), lambda: found.alpha().reshape(index.num_edges, *inner, -1)

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


_METHODS = {name: getattr(RSTGConv, name) for name in MESSAGE_METHODS}
