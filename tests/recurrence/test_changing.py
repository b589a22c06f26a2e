"""Graphs that change: edges in time, nodes that come and go, clips of any length; and that nothing else changes."""

from contextlib import nullcontext
from itertools import pairwise, product

import pytest
import torch
from cases import case
from laws import assert_stream_owns_its_memory
from small_graphs import GRAPHS
from torch.autograd import forward_ad
from torch_geometric.utils import to_torch_csr_tensor

from rstg_pyg import RSTG, RSTGConv, TimeStage
from rstg_pyg.ops import FrameIndex, GraphIndex

FORMS = ["all-temp", "1-temp", "space-only", "time-only", "homogeneous"]
EDGES, N = GRAPHS["irregular"]
T, C, P, D = 5, 4, 3, 2
PE = torch.randn(N, P, dtype=torch.float64)
NAN = float("nan")


def make(**options):
    torch.manual_seed(3)
    return RSTG(C, **{"num_stages": 2, "pe_channels": P, "norm": "layer_norm", "residual": True, **options}).double()


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def some_mask(*inner):
    """Nodes come and go; node 0 is always there, node 3 never, and the last frame is nobody's but node 0's."""
    mask = torch.rand(N, *inner, T) < 0.6
    mask[0], mask[3], mask[1:, ..., -1] = True, False, False
    return mask


def changing_edges(num_edges=60):
    return torch.randint(N, (2, num_edges)), torch.randint(T, (num_edges,))


def frame_of(edges, edge_time, t):
    return edges[:, edge_time == t]


# Nothing changes: the numbers of the call without.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", [(), (2,)], ids=str)
def test_edges_repeated_in_time_and_a_full_mask_change_nothing(form, inner):
    rstg, x, pe = make(stages=form), draw(N, *inner, T, C), draw(N, P)
    expected, state = rstg(x, EDGES, pe=pe)
    shuffled = torch.randperm(EDGES.size(1) * T)
    edges, edge_time = EDGES.repeat(1, T)[:, shuffled], torch.arange(T).repeat_interleave(EDGES.size(1))[shuffled]
    mask = torch.ones(N, *inner, T, dtype=torch.bool)
    for changes in ({"edge_time": edge_time}, {"mask": mask}, {"edge_time": edge_time, "mask": mask}):
        out, last = rstg(x, edges if "edge_time" in changes else EDGES, pe=pe, **changes)
        torch.testing.assert_close(out, expected)
        firsts = [entry[0] if form == "homogeneous" and isinstance(entry, tuple) else entry for entry in last]
        torch.testing.assert_close(firsts, list(state))


# What a frame's space stage sees: the nodes that are there, and the edges of the frame.


@pytest.mark.parametrize("backend", ["reference", "blocks", "native"])
@pytest.mark.parametrize("options", [{}, {"send_act_last": True, "heads": 2}, {"attention": "mean"}], ids=str)
@pytest.mark.parametrize("has_time", [True, False])
def test_a_space_stage_runs_on_every_frame_alone(backend, options, has_time):
    conv = RSTGConv(C, C, pe_channels=P, edge_dim=D, norm="layer_norm", backend=backend, **options).double()
    x, pe, mask = draw(N, 2, T, C), draw(N, T, P), some_mask(2)
    edges, edge_time = changing_edges() if has_time else (EDGES, None)
    edge_attr = draw(edges.size(1), D) if has_time else draw(edges.size(1), T, D)
    out, (_, alpha) = conv(x, edges, edge_attr, pe, return_attention_weights=True, edge_time=edge_time, mask=mask)
    for b in range(2):
        for t in range(T):
            there = mask[:, b, t]
            mine = there[edges].all(0) & (True if edge_time is None else edge_time == t)
            number = there.cumsum(0) - 1
            alone = number[edges[:, mine]]
            attr = edge_attr[mine] if has_time else edge_attr[mine, t]
            expected, (_, weights) = conv(x[there, b, t], alone, attr, pe[there, t], return_attention_weights=True)
            torch.testing.assert_close(out[there, b, t], expected)
            torch.testing.assert_close(alpha[mine, b] if has_time else alpha[mine, b, t], weights)
            assert not out[~there, b, t].any()
            assert has_time or not alpha[~mine, b, t].any()


# Masked = alone.


def pick(entry, *place):
    return tuple(part[place] for part in entry) if isinstance(entry, tuple) else entry[place]


@pytest.mark.parametrize("rnn", ["lstm", "gru", "linear"])
def test_a_time_stage_leaves_absent_frames_out(rnn):
    stage, x, mask = TimeStage(C, rnn, norm="layer_norm", residual=True).double(), draw(N, 2, T, C), some_mask(2)
    _, state = stage(draw(N, 2, 1, C))
    nothing = [torch.zeros_like(part) for part in state]
    nothing = tuple(nothing) if rnn == "lstm" else nothing[0].new_zeros(state.shape)
    for before in (nothing, state):
        out, after = stage(x, None if before is nothing else before, mask)
        for n in range(N):
            for b in range(2):
                there, own = mask[n, b], pick(before, slice(n, n + 1), b)
                if there.any():
                    expected, own = stage(x[n : n + 1, b, there], own)
                    torch.testing.assert_close(out[n, b, there], expected[0])
                assert not out[n, b, ~there].any()
                torch.testing.assert_close(pick(after, slice(n, n + 1), b), own)


class Own(torch.nn.Module):
    """A GRU as somebody else would write it: with a state of two parts, one of them no number of C."""

    def __init__(self, channels):
        super().__init__()
        self.cell = torch.nn.GRUCell(channels, channels)

    def forward(self, x, state, lengths=None):
        h, count = (x.new_zeros(len(x), x.size(2)), x.new_zeros(len(x), dtype=torch.int64)) if state is None else state
        lengths = x.new_full((len(x),), x.size(1)).long() if lengths is None else lengths
        out = []
        for t in range(x.size(1)):
            h = torch.where((t < lengths)[:, None], self.cell(x[:, t], h), h)
            out.append(h)
        return torch.stack(out, 1), (h, count + lengths)


@pytest.mark.parametrize("form", ["all-temp", "1-temp"])
def test_a_module_of_ones_own_is_a_time_stage(form):
    rstg, own = make(stages=form, rnn="gru"), make(stages=form, rnn=Own)
    own.load_state_dict(
        {name.replace("rnn", "rnn.cell").replace("_l0", ""): w for name, w in rstg.state_dict().items()}
    )
    x, mask, pe = draw(N, 2, T, C), some_mask(2), draw(N, P)
    for changes in ({}, {"mask": mask}):
        expected, state = rstg(x, EDGES, pe=pe, **changes)
        out, own_state = own(x, EDGES, pe=pe, **changes)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close([h for h, _ in own_state], list(state))
        frames = mask.sum(-1) if changes else torch.full((N, 2), T)
        assert all(torch.equal(count, frames) for _, count in own_state)
        expected, _ = rstg(x, EDGES, pe=pe, state=state, **changes)
        torch.testing.assert_close(own(x, EDGES, pe=pe, state=own_state, **changes)[0], expected)
    with pytest.raises(
        ValueError, match=r"the state of a time stage to be of shape \[7, 2, '...'\], got \(\[6, 2, 4\]"
    ):
        own(x, EDGES, pe=pe, state=tuple((h[1:], count) for h, count in own_state))
    stage = TimeStage(C, Own).double()
    stage.rnn.forward = lambda x, state, lengths=None: (x, x[:, -1].mean(0))
    with pytest.raises(ValueError, match=r"to give a state of 14 rows, got \[4\]"):
        stage(x)
    with pytest.raises(
        ValueError, match="'rnn' to be one of 'lstm', 'gru', 'linear', or a function from the width to a module"
    ):
        RSTG(C, rnn=torch.nn.GRU(C, C))
    with pytest.raises(ValueError, match="'rnn' to make a module from the width, got 4"):
        RSTG(C, rnn=lambda channels: channels)
    # With a compiler clips ran, and masked ones ended in an error of PyTorch's.
    for network in (torch.nn.GRU, lambda channels: torch.nn.LSTM(channels, channels, batch_first=True)):
        with pytest.raises(ValueError, match=r"called as rnn\(x, state, lengths\), got PyTorch's .*: say rnn='gru'"):
            RSTG(C, rnn=network)


@pytest.mark.parametrize("form", FORMS)
def test_a_masked_batch_gives_what_each_clip_gives_alone(form):
    rstg, pe, lengths = make(stages=form), draw(N, P), [T, 2, 4]
    clips = [draw(N, length, C) for length in lengths]
    x, mask = torch.full((N, 3, T, C), NAN, dtype=torch.float64), torch.zeros(N, 3, T, dtype=torch.bool)
    for number, clip in enumerate(clips):
        x[:, number, : lengths[number]], mask[:, number, : lengths[number]] = clip, True
    out, state = rstg(x, EDGES, pe=pe, mask=mask)
    for number, clip in enumerate(clips):
        expected, last = rstg(clip, EDGES, pe=pe)
        torch.testing.assert_close(out[:, number, : lengths[number]], expected)
        assert not out[:, number, lengths[number] :].any()
        if form != "homogeneous":
            torch.testing.assert_close([pick(entry, slice(None), number) for entry in state], list(last))


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_where_nobody_is_does_not_matter_nor_for_gradients(form):
    rstg, mask, pe = make(stages=form), some_mask(), draw(N, T, P)
    edges, edge_time = changing_edges()
    clean, results = draw(N, T, C), []
    for filling in (0.0, NAN):
        x = clean.clone()
        x[~mask] = filling
        at = pe.clone()
        at[~mask] = filling
        x.requires_grad_()
        rstg.zero_grad()
        out, _ = rstg(x, edges, pe=at, edge_time=edge_time, mask=mask)
        out.square().sum().backward()
        assert not x.grad[~mask].any()
        results.append((out.detach(), x.grad, [p.grad.clone() for p in rstg.parameters() if p.grad is not None]))
    torch.testing.assert_close(*results)


# Clip = stream, cut at random places.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rnn", ["lstm", "gru", "linear"])
@pytest.mark.parametrize("has_time", [True, False])
@pytest.mark.parametrize("moving", [True, False])
def test_a_clip_in_pieces_gives_the_clip(form, rnn, has_time, moving):
    rstg, x, mask = make(stages=form, rnn=rnn), draw(N, 2, T, C), some_mask(2)
    pe = draw(N, T, P) if moving else draw(N, P)
    edges, edge_time = changing_edges() if has_time else (EDGES, None)
    expected, last = rstg(x, edges, pe=pe, edge_time=edge_time, mask=mask)
    cuts = [0, *sorted(torch.randperm(T - 1)[:2].add(1).tolist()), T]
    outs, state = [], None
    for start, end in pairwise(cuts):
        own = (edge_time >= start) & (edge_time < end) if has_time else slice(None)
        out, state = rstg(
            x[..., start:end, :],
            edges[:, own],
            pe=pe[:, start:end] if moving else pe,
            state=state,
            edge_time=edge_time[own] - start if has_time else None,
            mask=mask[..., start:end],
        )
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, -2), expected)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_over_outputs_and_inputs_does_not_reach_a_stream(form):
    ways = [nullcontext, forward_ad.dual_level]  # by kernels, and by plain operations
    for rnn, frames, given, way in product(["lstm", "gru", "linear"], [1, 2], [(), ("pe",), ("pe", "mask")], ways):
        rstg, values = (
            make(stages=form, rnn=rnn, residual=False),
            {"pe": draw(3, N, frames, P), "mask": torch.rand(3, N, frames) < 0.6},
        )

        def run(state, x, *more, rstg=rstg, given=given):
            return rstg(x, EDGES, state=state, **{"pe": PE, **dict(zip(given, more, strict=True))})

        with case(rnn, frames, given, way), way():
            assert_stream_owns_its_memory(run, draw(3, N, frames, C), *(values[name] for name in given))


@pytest.mark.parametrize("form", FORMS)
def test_renaming_nodes_and_reordering_edges_change_nothing(form):
    rstg, x, mask, pe = make(stages=form), draw(N, T, C), some_mask(), draw(N, T, P)
    edges, edge_time = changing_edges()
    order, shuffled = torch.randperm(N), torch.randperm(edges.size(1))
    name = torch.empty_like(order)
    name[order] = torch.arange(N)
    expected, _ = rstg(x, edges, pe=pe, edge_time=edge_time, mask=mask)
    renamed = name[edges][:, shuffled]
    out, _ = rstg(x[order], renamed, pe=pe[order], edge_time=edge_time[shuffled], mask=mask[order])
    torch.testing.assert_close(out, expected[order])


@pytest.mark.parametrize("form", ["all-temp", "homogeneous"])
def test_a_frames_edges_touch_no_other_frame(form):
    rstg, x = make(stages=form, rnn="gru", pe_channels=0), draw(N, T, C)
    edges, edge_time = changing_edges()
    expected, _ = rstg(x, edges, edge_time=edge_time)
    keep = edge_time < T - 1
    out, _ = rstg(x, edges[:, keep], edge_time=edge_time[keep])
    torch.testing.assert_close(out[:, :-1], expected[:, :-1])
    assert not torch.allclose(out[:, -1], expected[:, -1])


@pytest.mark.parametrize("form", FORMS)
def test_nobody_is_there(form):
    rstg, x = make(stages=form, pe_channels=0), draw(N, T, C)
    out, state = rstg(x, EDGES, mask=torch.zeros(N, T, dtype=torch.bool))
    assert not out.any()
    more, _ = rstg(x, EDGES, state=state, mask=torch.ones(N, T, dtype=torch.bool))
    torch.testing.assert_close(more, rstg(x, EDGES)[0])


@pytest.mark.parametrize("form", FORMS)
def test_there_are_no_nodes_or_no_clips(form):
    for rnn, (nodes, *inner), frames in product(["lstm", "gru", "linear"], [(0,), (0, 2), (N, 0)], [1, 2]):
        rstg, x, pe = make(stages=form, rnn=rnn), draw(nodes, *inner, frames, C), draw(nodes, frames, P)
        edges, state = EDGES[:, : nodes * 2], None
        time, mask = torch.zeros_like(edges[0]), torch.ones(x.shape[:-1], dtype=torch.bool)
        for changes in [{"pe": pe[:, 0]}, {"pe": pe}, {"pe": pe, "edge_time": time}, {"pe": pe, "mask": mask}]:
            with case(rnn, x.shape, list(changes)):
                for _ in range(2):
                    out, state, _ = rstg(x, edges, state=state, return_attention_weights=True, **changes)
                    assert out.shape == x.shape
                state = None


def test_a_graph_of_no_frames():
    for mask in (None, torch.zeros(N, 0, dtype=torch.bool)):
        frames = FrameIndex((N, 0), GraphIndex(EDGES[:, :0], N), EDGES[0, :0], mask)
        assert frames.index.num_edges == frames.spacetime_index.num_edges == 0
        assert frames.put(frames.take(draw(N, 0, C))).shape == (N, 0, C)
        assert frames.take_pe(draw(N, P)).shape == (0, P)


def test_a_sparse_matrix_of_edges_in_time():
    """Its edges lie by destination, then by source; their values are edge features."""
    rstg, x, mask = make(pe_channels=0, edge_dim=D), draw(N, T, C), some_mask()
    edges = torch.unique(torch.randint(N, (30, 2)), dim=0).flip(1).t()
    values, edge_time = draw(edges.size(1), D), torch.randint(T, (edges.size(1),))
    matrix = to_torch_csr_tensor(edges, values, size=(N, N)).to_sparse_coo().transpose(0, 1).coalesce()
    for changes in ({"mask": mask}, {"mask": mask, "edge_time": edge_time}):
        expected, _ = rstg(x, edges, values, **changes)
        torch.testing.assert_close(rstg(x, matrix, **changes)[0], expected)


@pytest.mark.parametrize("form", ["all-temp", "homogeneous"])
def test_gradients(form):
    rstg, mask, pe = make(stages=form, rnn="gru", num_stages=1), some_mask(), draw(N, T, P)
    edges, edge_time = changing_edges()

    def run(x, pe, *weights):
        given = dict(zip([name for name, _ in rstg.named_parameters()], weights, strict=True))
        options = {"pe": pe, "edge_time": edge_time, "mask": mask}
        return torch.func.functional_call(rstg, given, (x, edges), options)[0]

    inputs = [draw(N, T, C).requires_grad_(), pe.requires_grad_(), *rstg.parameters()]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_under_transforms():
    for rnn, frames, masked in product(["lstm", "gru", "linear"], [1, T], [False, True]):
        rstg, x, tangent = make(rnn=rnn, num_stages=1), draw(N, frames, C), draw(N, frames, C)
        mask = some_mask()[:, :frames] if masked else None

        def run(x, rstg=rstg, mask=mask):
            return rstg(x, EDGES, pe=PE, mask=mask)[0]

        with case(rnn, frames, masked):
            both = torch.stack([x, tangent])
            torch.testing.assert_close(torch.func.vmap(run)(both), torch.stack([run(one) for one in both]))
            (expected,) = torch.autograd.grad(run(x.requires_grad_()).square().sum(), x)
            x = x.detach()
            torch.testing.assert_close(torch.func.grad(lambda x, run=run: run(x).square().sum())(x), expected)
            _, change = torch.func.jvp(lambda x, run=run: run(x).square().sum(), (x,), (tangent,))
            torch.testing.assert_close(change, (expected * tangent).sum())
            with forward_ad.dual_level():
                out = run(forward_ad.make_dual(x, tangent)).square().sum()
                torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, change)


@pytest.mark.parametrize("form", ["all-temp", "homogeneous"])
def test_compiled_equals_eager(form):
    torch._dynamo.reset()
    rstg, x, mask = make(stages=form, pe_channels=0), draw(N, T, C), some_mask()
    edges, edge_time = changing_edges()
    compiled = torch.compile(rstg, backend="aot_eager")
    for changes in ({"edge_time": edge_time}, {"edge_time": edge_time, "mask": mask}):
        torch.testing.assert_close(compiled(x, edges, **changes)[0], rstg(x, edges, **changes)[0])
    if form == "homogeneous" and torch.__version__ < (2, 13):
        return  # older compilers break the graph where edges are counted
    whole = torch.compile(rstg, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(allow_rnn=True):
        torch.testing.assert_close(whole(x, edges, edge_time=edge_time)[0], rstg(x, edges, edge_time=edge_time)[0])


def test_bad_input():
    rstg, x, mask = make(pe_channels=0), draw(N, T, C), some_mask()
    for edge_time, error, message in [
        (torch.full((10,), T), IndexError, f"hold frames from 0 to {T - 1}, got {T}"),
        (torch.zeros(9, dtype=torch.int64), ValueError, r"integer 'edge_time' of shape \[10\], got .*\[9\]"),
        (torch.zeros(10), ValueError, r"integer 'edge_time' of shape \[10\]"),
    ]:
        with pytest.raises(error, match=message):
            rstg(x, EDGES, edge_time=edge_time)
    for wrong in (mask.long(), mask[:, 1:], mask[..., None]):
        with pytest.raises(ValueError, match=rf"expected a bool 'mask' of shape \[{N}, {T}\]"):
            rstg(x, EDGES, mask=wrong)
        with pytest.raises(ValueError, match=rf"expected a bool 'mask' of shape \[{N}, {T}\]"):
            TimeStage(C)(x.float(), mask=wrong)
    for where in (mask, torch.ones_like(mask)):
        frames = FrameIndex((N, T), mask=where)
        with pytest.raises(ValueError, match=rf"rows 'x' of shape \[{frames.num_rows}, {C}\], got \[3, {C}\]"):
            TimeStage(C)(torch.randn(3, C), mask=frames)
    with pytest.raises(ValueError, match=r"'x' of shape \[N, \*, T, C\] with 'edge_time' or 'mask'"):
        RSTGConv(C, C)(x[:, 0].float(), EDGES, mask=mask[:, 0])
    with pytest.raises(ValueError, match=r"'edge_attr' of shape \[10, 2\] with 'edge_time'"):
        make(pe_channels=0, edge_dim=D)(x, EDGES, draw(10, T, D), edge_time=torch.zeros(10, dtype=torch.int64))
