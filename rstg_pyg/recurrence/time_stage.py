"""The time stage: one recurrent cell per node, over the node's own past."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rstg_pyg.arguments import (
    check_choice,
    check_flags,
    check_like,
    check_memory,
    check_positive,
    describe,
    is_like,
    num_dims,
)
from rstg_pyg.formula import Formula
from rstg_pyg.norm import Norm, layer_norm_of, normalised, resolve_norm
from rstg_pyg.ops import FrameIndex
from rstg_pyg.ops.frames import check_mask
from rstg_pyg.ops.recurrent import packed_rnn, why_not
from rstg_pyg.ops.stages import CellWeights, Stage, are_plain
from rstg_pyg.recurrence.rnn import LinearRNN, chrono_init, is_lstm, run_rnn
from rstg_pyg.watched import calls_are_watched, everything_is_watched, is_bare, is_transformed

RNNState = Tensor | tuple[Tensor, ...]
"""``(h, c)`` of an LSTM or ``h`` of the others, each ``[N, *, C]``; of a module of one's own, one tensor or several,
``[N, *, ...]``."""

RNN = str | Callable[[int], Module]
"""``"lstm"``, ``"gru"``, ``"linear"``, or a function from the width to a module, see :class:`TimeStage`."""

_CELL_ROWS = 128
"""Up to this many nodes, one frame at a time goes through the cell's own function: on a CPU the network's call first
copies its weights to another layout, which only several frames or many nodes are worth."""

_CELLS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
LINEAR = "linear"
OWN = "own"
"""The kind of a time stage with a module of the user's."""


def check_sequence(x: Tensor, channels: int) -> None:
    """Raise unless ``x`` is a sequence of node features ``[N, *, T >= 1, channels]``."""
    dims = x.dim() if isinstance(x, Tensor) and x.layout == torch.strided else -1
    if dims < 3 or x.size(-1) != channels or x.size(-2) < 1:
        hint = ": there is no bipartite form" if isinstance(x, (tuple, list)) else ""
        wanted = f"a node sequence 'x' of shape [num_nodes, *, T >= 1, {channels}]"
        raise ValueError(f"expected {wanted}, got {describe(x)}{hint}")


class TimeStage(Formula):
    r"""The time stage of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
    `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    .. math::
        \mathbf{h}_i^t = f_{time}(\mathbf{v}_i^t, \mathbf{h}_i^{t-1})

    for every node on its own: one call of a recurrent network over all nodes and frames.

    Args:
        channels: Size C of the node features.
        rnn: ``"lstm"``, ``"gru"``, ``"linear"`` for long memories (see
            :class:`~rstg_pyg.recurrence.LinearRNN`), or a function from C to a module of one's own, see
            below.
        norm: Normalisation of the stage's input, see :class:`~rstg_pyg.RSTGConv`.
        residual: Add the stage's input to its output.
        bias: Learn additive biases, in the named networks.
        chrono: Start with memories of up to so many frames, in the named networks, see
            :func:`~rstg_pyg.recurrence.chrono_init`; None leaves them as they are.

    A module of one's own is called with sequences ``x [R, T, C]``, the state that it returned before or None, and
    ``lengths [R]`` or None: how many of a sequence's frames are there, from the first on, at least one. It returns its
    output ``[R, T, C]``, of which frames beyond a length are not looked at, and the state after the last frame that is
    there: a tensor ``[R, ...]`` or a tuple of them, which starts at zero.

    Where a ``mask`` says that a node is absent, its output is 0, its memory stays what it was, and what stands in its
    input does not matter: as if those frames were left out of its sequence.

    Shapes:
        - **x:** ``[N, *, T, C]``. **state:** ``h`` or ``(h, c)``, each ``[N, *, C]``; None starts at zero.
        - **mask:** ``[N, *, T]`` bool; or a :class:`~rstg_pyg.ops.FrameIndex`, with which x and output are its rows.
        - **output:** ``([N, *, T, C], state)``.

    Raises:
        ValueError: If an argument is out of its range, or the state or the mask does not fit the input.

    Example:
        >>> import torch
        >>> from rstg_pyg import TimeStage
        >>> out, (h, c) = TimeStage(16)(torch.randn(14, 10, 16))
        >>> out.shape, h.shape
        (torch.Size([14, 10, 16]), torch.Size([14, 16]))

        A module of one's own, a mean over all frames so far:

        >>> class Mean(torch.nn.Module):
        ...     def forward(self, x, state, lengths=None):
        ...         total, count = (x.new_zeros(len(x), 1), x.new_zeros(len(x), 1)) if state is None else state
        ...         total, count = total[:, None] + x.cumsum(1), count + torch.arange(1, x.size(1) + 1)
        ...         last = x.new_full((len(x),), x.size(1)).long() - 1 if lengths is None else lengths - 1
        ...         rows = torch.arange(len(x))
        ...         return total / count[..., None], (total[rows, last], count[rows, last, None])
        >>> stage = TimeStage(16, rnn=lambda channels: Mean())
        >>> out, state = stage(torch.randn(14, 10, 16), mask=torch.rand(14, 10) < 0.5)
        >>> out.shape
        torch.Size([14, 10, 16])
    """

    def __init__(
        self,
        channels: int,
        rnn: RNN = "lstm",
        norm: Norm = None,
        residual: bool = False,
        bias: bool = True,
        chrono: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(channels=channels)
        if not callable(rnn) or isinstance(rnn, Module):
            check_choice("rnn", rnn, (*_CELLS, LINEAR), "or a function from the width to a module")
        check_flags(residual=residual, bias=bias)
        self.channels = channels
        self.residual = residual
        self.formula = {"residual": residual}
        self.norm = resolve_norm(norm, channels)
        self.kind = rnn if isinstance(rnn, str) else OWN
        if self.kind in _CELLS:
            self.rnn = _CELLS[rnn](channels, channels, bias=bias, batch_first=True)
        else:
            self.rnn = LinearRNN(channels, bias) if rnn == LINEAR else made_by(rnn, channels)
        self.chrono = chrono
        if chrono is not None:
            chrono_init(self.rnn, chrono)

    def reset_parameters(self) -> None:
        if hasattr(self.rnn, "reset_parameters"):
            self.rnn.reset_parameters()
        if self.chrono is not None:
            chrono_init(self.rnn, self.chrono)
        if self.norm is not None and hasattr(self.norm, "reset_parameters"):
            self.norm.reset_parameters()

    def forward(
        self, x: Tensor, state: RNNState | None = None, mask: Tensor | FrameIndex | None = None
    ) -> tuple[Tensor, RNNState]:
        if mask is None:
            return self._everywhere(x, state)
        if isinstance(mask, FrameIndex):
            return self._on_rows(x, state, mask)
        check_sequence(x, self.channels)
        frames = FrameIndex(x.shape[:-1], mask=check_mask(mask, x.shape[:-1], x))
        if frames.is_static:
            return self._everywhere(x, state)
        out, state = self._on_rows(frames.take(x), state, frames)
        return frames.put(out), state

    def _everywhere(self, x: Tensor, state: RNNState | None) -> tuple[Tensor, RNNState]:
        """Run on ``x [N, *, T, C]`` where all nodes are there."""
        if type(x) is not Tensor or x.layout != torch.strided or x.dim() < 3 or x.size(-1) != self.channels:
            check_sequence(x, self.channels)
        if x.size(-2) < 1 or not is_like(x, getattr(self.rnn, "weight_hh_l0", None)):
            check_sequence(x, self.channels)
            check_like("x", x, self)
        v = x if self.norm is None else normalised(self.norm, x)
        if self._takes_cell(v):
            out, state = self._one_frame(v, state)
        elif self.kind == LINEAR:
            node_shape, before = x.shape[:-2], self._flat(state, x.shape[:-2], v)
            out, h = self.rnn(v.flatten(0, -3), None if before is None else before[0])
            out, state = out.view(v.shape), h.view(*node_shape, self.channels)
        elif self._takes_operator(v):
            node_shape, rows = x.shape[:-2], v.flatten(0, -3).transpose(0, 1)
            sizes = torch.full((rows.size(0),), rows.size(1), device="cpu")
            before = self._flat(state, node_shape, v)
            if before is None:
                before = (rows.new_zeros(rows.shape[1:]),) * (1 + is_lstm(self.rnn, self.kind))
            out, parts = self._run_operator(rows.flatten(0, 1), sizes, before)
            out = out.unflatten(0, rows.shape[:2]).transpose(0, 1).unflatten(0, node_shape)
            state = _per_node(parts, node_shape)
        else:
            node_shape = x.shape[:-2]
            rows, before = v.flatten(0, -3), self._flat(state, node_shape, v)
            out, last = self._run_own(rows, before) if self.kind == OWN else run_rnn(self.rnn, rows, _layered(before))
            out, parts = out.unflatten(0, node_shape), last if isinstance(last, tuple) else (last,)
            # Not unflatten: compilers of torch before 2.13 take an LSTM's state to have another dimension of size 1.
            own = self.kind == OWN
            parts = tuple(part.view(*node_shape, *(part.shape[1:] if own else part.shape[-1:])) for part in parts)
            state = parts if isinstance(last, tuple) else parts[0]
        return (x + out if self.residual else out), state

    def _on_rows(self, x: Tensor, state: RNNState | None, frames: FrameIndex) -> tuple[Tensor, RNNState | None]:
        """Run on rows ``[M, C]``, the frames in which nodes are there."""
        if num_dims(x) != 2 or x.shape != (frames.num_rows, self.channels):
            raise ValueError(f"expected rows 'x' of shape {[frames.num_rows, self.channels]}, got {describe(x)}")
        if frames.rows is None:
            out, state = self._everywhere(frames.put(x), state)
            return frames.take(out), state
        check_like("x", x, self)
        v, node_shape = x if self.norm is None else normalised(self.norm, x), frames.shape[:-1]
        before = self._flat(state, node_shape, v)
        if before is None and self.kind != OWN:
            dtype = torch.promote_types(v.dtype, torch.float32) if self.kind == LINEAR else v.dtype
            before = (v.new_zeros(node_shape.numel(), self.channels, dtype=dtype),) * (1 + is_lstm(self.rnn, self.kind))
        if frames.num_rows == 0:
            return x, state if before is None else _per_node(before, node_shape)
        if self.kind == LINEAR:
            order, inverse = frames.by_sequence
            out, h = self.rnn(v.index_select(0, order), before[0], frames.ptr)
            out = out.index_select(0, inverse)
            return (x + out if self.residual else out), h.view(*node_shape, self.channels)
        steps = frames.steps
        packed = PackedSequence(v.index_select(0, steps.order), steps.sizes)
        given = None if before is None else tuple(part.index_select(0, steps.sequences) for part in before)
        if self.kind == OWN:
            padded, lengths = pad_packed_sequence(packed, batch_first=True)
            out, last = self._run_own(padded, given, lengths.to(x.device))
            out = pack_padded_sequence(out, lengths, batch_first=True).data
            last = last if isinstance(last, tuple) else (last,)
        elif self._takes_operator(v):
            out, last = self._run_operator(packed.data, packed.batch_sizes, given)
        else:
            out, last = run_rnn(self.rnn, packed, _layered(given))
            out, last = out.data, [part[0] for part in (last if isinstance(last, tuple) else (last,))]
        if before is None:
            before = [part.new_zeros(node_shape.numel(), *part.shape[1:]) for part in last]
        after = [old.to(new.dtype).index_copy(0, steps.sequences, new) for old, new in zip(before, last, strict=True)]
        out = out.index_select(0, steps.inverse)
        return (x + out if self.residual else out), _per_node(after, node_shape)

    def _run_own(
        self, rows: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None = None
    ) -> tuple[Tensor, RNNState]:
        """What a module of the user's makes of sequences ``[R, T, C]``."""
        out, state = self.rnn(rows, None if state is None else one_or_all(state), lengths)
        if num_dims(out) != 3 or out.shape != rows.shape:
            raise ValueError(f"expected {self.rnn} to give an output of shape {list(rows.shape)}, got {describe(out)}")
        parts = state if isinstance(state, tuple) else (state,)
        if not all(num_dims(part) > 0 and part.size(0) == rows.size(0) for part in parts):
            raise ValueError(f"expected {self.rnn} to give a state of {rows.size(0)} rows, got {describe(state)}")
        return out, state

    def as_stage(self, x: Tensor) -> Stage | None:
        """What one call for few rows ``x [*, C]`` needs to know; None where it can not do all that this stage does."""
        rnn, norm = self.rnn, layer_norm_of(self.norm, x)
        if norm is None or not self._is_plain() or x.dtype != rnn.weight_hh_l0.dtype:
            return None
        weights = CellWeights(*rnn.all_weights[0], *(None, None)[: 0 if rnn.bias else 2])
        return Stage(rnn.mode.lower(), weights, *norm, self.residual) if are_plain(weights) else None

    def _is_plain(self) -> bool:
        """Whether :attr:`rnn` is one layer of PyTorch's, whose weights may be read in place of a call."""
        rnn = self.rnn
        return is_bare(rnn, *_CELLS.values()) and (rnn.num_layers, rnn.bidirectional, rnn.proj_size) == (1, False, 0)

    def _takes_cell(self, v: Tensor) -> bool:
        few = v.size(-2) == 1 and v.numel() <= _CELL_ROWS * self.channels
        watched = everything_is_watched()
        return few and v.is_cpu and self._is_plain() and not watched and not torch.is_autocast_enabled("cpu")

    def _takes_operator(self, v: Tensor) -> bool:
        """Whether the steps are this package's: faster than PyTorch's, the more so where lengths differ."""
        if torch.compiler.is_exporting() or not self._is_plain():
            return False
        if not torch.compiler.is_compiling() and is_transformed(v):
            return not calls_are_watched()  # as written down: PyTorch's networks take few transforms
        return v.is_cpu and not everything_is_watched() and why_not(self.rnn.weight_hh_l0) is None

    def _run_operator(
        self, rows: Tensor, sizes: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run packed rows ``[M, C]`` from states ``[R, C]``; these are in the type of the weights under autocast."""
        rnn, dtype = self.rnn, self.rnn.weight_hh_l0.dtype
        weights = [rnn.weight_ih_l0, rnn.weight_hh_l0, *([rnn.bias_ih_l0, rnn.bias_hh_l0] if rnn.bias else [])]
        h, *c = (part.to(dtype) for part in state)
        kind = "lstm" if type(rnn) is torch.nn.LSTM else "gru"
        given = rows if rows.dtype == torch.bfloat16 else rows.to(dtype)
        out, *last = packed_rnn(kind, given, sizes, h, c[0] if c else None, *weights)
        return out.to(rows.dtype), tuple(part.to(rows.dtype) for part in last if part is not None)

    def _one_frame(self, v: Tensor, state: RNNState | None) -> tuple[Tensor, RNNState]:
        """What :attr:`rnn` makes of ``v [N, *, 1, C]``."""
        shape, rows = v.shape[:-2], v.flatten(0, -2)
        rnn = self.rnn
        weights = [rnn.weight_ih_l0, rnn.weight_hh_l0, *([rnn.bias_ih_l0, rnn.bias_hh_l0] if rnn.bias else [])]
        if state is None:
            h = c = torch.zeros_like(rows)
        else:
            h, *c = (one.to(v.dtype).reshape(rows.shape) for one in self._parts(state, shape, v.device))
            c = c[0] if c else None
        if type(rnn) is torch.nn.LSTM:
            h, c = torch.lstm_cell(rows, (h, c), *weights)
            return h.view(v.shape), (h.clone().view(*shape, self.channels), c.view(*shape, self.channels))
        h = torch.gru_cell(rows, h, *weights)
        return h.view(v.shape), h.clone().view(*shape, self.channels)

    def _parts(self, state: RNNState, node_shape: torch.Size, device: torch.device) -> tuple[Tensor, ...]:
        """The tensors of a state, such as ``h``, and ``c`` of an LSTM, of the right shapes."""
        if self.kind == OWN:
            parts = state if isinstance(state, tuple) else (state,)
            if not all(isinstance(part, Tensor) and part.shape[: len(node_shape)] == node_shape for part in parts):
                raise ValueError(
                    f"expected the state of a time stage to be of shape {[*node_shape, '...']}, got {describe(state)}"
                )
            return parts
        is_pair = is_lstm(self.rnn, self.kind)
        shape = [*node_shape, self.channels]
        parts = state if is_pair else (state,)
        if type(parts) is not tuple or len(parts) != 1 + is_pair or any(not _is(part, shape, device) for part in parts):
            check_memory("the state of a time stage", state, "hc" if is_pair else "h", shape, device)
        return parts

    def _flat(self, state: RNNState | None, node_shape: torch.Size, like: Tensor) -> tuple[Tensor, ...] | None:
        """The tensors of a state with all nodes in one dimension, ``[R, ...]``, of a type that goes with the input."""
        if state is None:
            return None
        parts = tuple(part.flatten(0, len(node_shape) - 1) for part in self._parts(state, node_shape, like.device))
        return parts if self.kind in (OWN, LINEAR) else tuple(part.to(like.dtype) for part in parts)

    def __repr__(self) -> str:
        name = type(self.rnn).__name__.lower() if self.kind == OWN else self.kind
        return f"{type(self).__name__}({self.channels}, rnn={name!r})"


def made_by(rnn: Callable[[int], Module], channels: int) -> Module:
    """What a function of the user's makes from the width."""
    networks = (*_CELLS.values(), torch.nn.RNN)
    module = rnn if rnn in networks else rnn(channels)
    if rnn in networks or type(module) in networks:
        raise ValueError(
            f"expected 'rnn' to make a module that is called as rnn(x, state, lengths), got PyTorch's {module}, which "
            "takes no lengths: say rnn='gru' or rnn='lstm'"
        )
    if not isinstance(module, Module):
        raise ValueError(f"expected 'rnn' to make a module from the width, got {describe(module)}")
    return module


def one_or_all(parts: Sequence[Tensor]) -> RNNState:
    return tuple(parts) if len(parts) > 1 else parts[0]


def _layered(parts: tuple[Tensor, ...] | None) -> RNNState | None:
    """A state as PyTorch's networks take it, with a dimension for their layers."""
    return None if parts is None else one_or_all([part.unsqueeze(0) for part in parts])


def _per_node(parts: Sequence[Tensor], node_shape: torch.Size) -> RNNState:
    """A state of tensors ``[R, ...]`` with a node's dimensions."""
    return one_or_all([part.view(*node_shape, *part.shape[1:]) for part in parts])


def _is(part: Any, shape: list[int], device: torch.device) -> bool:
    fits = isinstance(part, Tensor) and part.is_floating_point() and list(part.shape) == shape
    return fits and part.device == device
