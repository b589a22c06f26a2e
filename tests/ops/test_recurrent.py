"""Recurrent networks over sequences of different lengths, against PyTorch's."""

import pytest
import torch
from process_settings import process_settings
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

from rstg_pyg.ops import recurrent
from rstg_pyg.ops.native.attend import is_available
from rstg_pyg.ops.recurrent import packed_rnn, plain_packed_rnn, why_not

needs_compiler = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")
MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
LENGTHS = {
    "different": [9, 7, 7, 5, 4, 4, 4, 3, 2, 2, 2, 1, 1],
    "one": [6],
    "equal": [4] * 13,
    "many of 1": [5, 2] + [1] * 31,
    "of 1": [1] * 7,
}
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


def draw(kind, lengths, channels=(20, 16), bias=True, dtype=torch.float64):
    """A module, and the arguments of ``packed_rnn`` with its weights."""
    module = MODULES[kind](*channels, bias=bias).to(dtype)
    padded = torch.randn(max(lengths), len(lengths), channels[0], dtype=dtype)
    rows, batch_sizes, *_ = pack_padded_sequence(padded, torch.tensor(lengths))
    h0, c0 = torch.randn(2, len(lengths), channels[1], dtype=dtype)
    states = [h0.requires_grad_(), c0.requires_grad_() if kind == "lstm" else None]
    return module, [rows.requires_grad_(), batch_sizes, *states, *module.parameters(), *[None] * (0 if bias else 2)]


def of_torch(module, rows, batch_sizes, h0, c0, *weights):
    state = h0[None] if c0 is None else (h0[None], c0[None])
    out, last = module(PackedSequence(rows, batch_sizes), state)
    return [out.data, *([last[0]] if c0 is None else [last[0][0], last[1][0]])]


def of_ours(kind, *inputs):
    return [value for value in packed_rnn(kind, *inputs) if value is not None]


def floats(inputs):
    return [value for value in inputs if value is not None and value.is_floating_point()]


def assert_same(one, other, inputs, tolerance):
    """Outputs and all gradients."""
    grads = [torch.randn_like(value) for value in one]
    found = [(*outs, *torch.autograd.grad(outs, floats(inputs), grads)) for outs in (one, other)]
    torch.testing.assert_close(*found, rtol=tolerance, atol=tolerance)


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize(
    "channels, bias, dtype",
    [
        ((20, 16), True, torch.float32),
        ((5, 64), False, torch.float32),
        ((3, 7), True, torch.float32),
        ((8, 7), False, torch.float64),
        ((7, 32), True, torch.float64),
    ],
)
def test_it_computes_what_the_module_does(kind, lengths, channels, bias, dtype):
    module, inputs = draw(kind, lengths, channels, bias, dtype)
    assert_same(of_torch(module, *inputs), of_ours(kind, *inputs), inputs, TOLERANCES[dtype])


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("channels", [(20, 16), (3, 7)])
@pytest.mark.parametrize("rows", [1, 15])
def test_parts_of_a_sequence_are_the_whole(kind, lengths, channels, rows, monkeypatch):
    module, inputs = draw(kind, lengths, channels)
    monkeypatch.setattr(recurrent, "_PART_BYTES", 1)
    monkeypatch.setattr(recurrent, "_PART_ROWS", rows)
    assert rows > 1 or len(recurrent._parts(inputs[1], 8)) == max(lengths)
    assert_same(of_torch(module, *inputs), of_ours(kind, *inputs), inputs, TOLERANCES[torch.float64])


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_plain_form_is_the_module(kind, bias):
    module, inputs = draw(kind, LENGTHS["different"], bias=bias)
    plain = [value for value in plain_packed_rnn(*inputs) if value is not None]
    assert_same(of_torch(module, *inputs), plain, inputs, TOLERANCES[torch.float64])


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_the_gradient_of_one_output_alone(kind, part):
    module, inputs = draw(kind, LENGTHS["different"])
    outputs, expected = of_ours(kind, *inputs), of_torch(module, *inputs)
    if part < len(outputs):
        assert_same([expected[part]], [outputs[part]], inputs, TOLERANCES[torch.float64])


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("bias", [True, False])
def test_first_and_second_gradients(kind, bias):
    _, inputs = draw(kind, [3, 2, 1, 1], (3, 2), bias)

    def run(*values):
        left = iter(values)
        given = [next(left) if value is not None and value.is_floating_point() else value for value in inputs]
        return tuple(of_ours(kind, *given))

    assert gradcheck(run, floats(inputs), fast_mode=True)
    assert gradgradcheck(run, floats(inputs), fast_mode=True)


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
def test_an_operator_is_what_pytorch_expects_of_one(kind):
    for channels in ((3, 5), (3, 16)):
        _, inputs = draw(kind, [3, 2, 1, 1], channels)
        torch.library.opcheck(torch.ops.rstg_pyg.packed_rnn.default, (*inputs, True))


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
def test_flop_counters_count_the_products(kind):
    _, inputs = draw(kind, LENGTHS["different"])
    totals = []
    for run in (lambda: torch.ops.rstg_pyg.packed_rnn(*inputs, True), lambda: packed_rnn(kind, *inputs)):
        with FlopCounterMode(display=False) as counter:
            out = run()[0]
            once = counter.get_total_flops()
            out.sum().backward()
        totals.append((once, counter.get_total_flops()))
    assert totals[0] == totals[1] and totals[0][1] == 3 * totals[0][0]


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
def test_compiled_code_calls_it(kind):
    torch._dynamo.reset()
    _, inputs = draw(kind, LENGTHS["different"])

    def run(*inputs):
        return packed_rnn(kind, *inputs)[0]

    expected = run(*inputs)
    got = torch.compile(run, fullgraph=True, backend="aot_eager")(*inputs)
    assert_same([expected], [got], inputs[:3], TOLERANCES[torch.float64])


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
def test_transforms_and_forward_gradients_take_the_plain_form(kind):
    _, (rows, *rest) = draw(kind, LENGTHS["different"])
    both = torch.stack([rows, 2 * rows])
    found = torch.func.vmap(lambda one: packed_rnn(kind, one, *rest)[0])(both)
    torch.testing.assert_close(found[1], packed_rnn(kind, 2 * rows, *rest)[0])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(rows.detach(), torch.randn_like(rows))
        assert forward_ad.unpack_dual(packed_rnn(kind, dual, *rest)[0]).tangent is not None


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
def test_threads_and_layouts_change_nothing(kind):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (67,), generator=generator).sort(descending=True).values.tolist()
    _, inputs = draw(kind, lengths, (24, 48), dtype=torch.float32)
    strided = [None if value is None else value.detach().t().contiguous().t().requires_grad_() for value in inputs[2:6]]
    strided = [inputs[0].repeat(1, 2)[:, :24], inputs[1].repeat_interleave(2)[::2], *strided, *inputs[6:]]
    strided[0] = strided[0].detach().requires_grad_()
    found = []
    for count, given in ((1, inputs), (3, inputs), (3, strided)):
        with process_settings():
            torch.set_num_threads(count)
            outs = of_ours(kind, *given)
            found.append((*outs, *torch.autograd.grad(sum(out.square().sum() for out in outs), floats(given))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0], found[2], rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("kind, smallest", [("lstm", 1e-36), ("gru", 1e-7)])
def test_gates_are_exact_at_every_size_and_keep_nan(kind, smallest):
    """Relative to numbers of any size; a GRU's 1 - z is exact beside 1."""
    sizes = torch.logspace(-20, 3, 4001)
    rows = torch.cat([sizes, -sizes]).unsqueeze(1)
    ones, states = torch.ones(16 * (4 if kind == "lstm" else 3), 1), torch.zeros(len(rows), 16)
    inputs = [rows, torch.tensor([len(rows)]), states, states if kind == "lstm" else None, ones]
    inputs.append(torch.zeros(len(ones), 16))
    wide = [value.double() if value is not None and value.is_floating_point() else value for value in inputs]
    found, expected = packed_rnn(kind, *inputs)[0], packed_rnn(kind, *wide)[0]
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=smallest)
    assert packed_rnn(kind, rows * torch.nan, *inputs[1:])[0].isnan().all()


@needs_compiler
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("sizes", [[], [0, 0]])
def test_nothing_gives_nothing(kind, sizes):
    _, inputs = draw(kind, [1])
    empty = [None if value is None else value[:0] for value in inputs[2:4]]
    outs = of_ours(kind, inputs[0][:0], torch.tensor(sizes, dtype=torch.int64), *empty, *inputs[4:])
    assert all(out.shape == (0, 16) for out in outs)
    sum(out.sum() for out in outs).backward()
    assert all(value.grad.count_nonzero() == 0 for value in inputs[4:])


@needs_compiler
def test_errors():
    _, inputs = draw("lstm", [2, 1])
    for kind in ("gru", "rnn"):
        with pytest.raises(ValueError, match=f"expected 'lstm' with a c0 or 'gru' without one, got '{kind}'"):
            packed_rnn(kind, *inputs)
    for sizes in ([1, 2], [2, 2], [3], [2, 2, -1]):
        with pytest.raises(ValueError, match="expected 'batch_sizes' to begin with 2 sequences"):
            packed_rnn("lstm", inputs[0], torch.tensor(sizes), *inputs[2:])
    with pytest.raises(ValueError, match="expected 'batch_sizes' on the CPU, int64"):
        packed_rnn("lstm", inputs[0], inputs[1].int(), *inputs[2:])
    with pytest.raises(ValueError, match=r"expected states, weights and biases on the CPU, torch\.float32"):
        packed_rnn("lstm", inputs[0].float(), *inputs[1:])
    with pytest.raises(ValueError, match=r"float32 or float64, got torch\.bfloat16"):
        packed_rnn("lstm", *inputs[:2], inputs[2].bfloat16(), *inputs[3:])
    assert why_not(inputs[0]) is None
    assert "on meta" in why_not(inputs[0].to("meta"))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_rows_in_bfloat16_lie_by_float64(kind):
    torch.manual_seed(0)
    rnn, sizes = getattr(torch.nn, kind.upper())(20, 32), torch.tensor([6, 4, 4, 1])
    rows, states = torch.randn(15, 20).bfloat16(), torch.randn(1 + (kind == "lstm"), 6, 32)
    found = []
    for dtype in (torch.float32, torch.float64):
        weights = [weight.detach().to(dtype).requires_grad_() for weight in rnn.all_weights[0]]
        given = (rows if dtype == torch.float32 else rows.to(dtype)).requires_grad_()
        h0, *c0 = states.to(dtype)
        out = packed_rnn(kind, given, sizes, h0, c0[0] if c0 else None, *weights)[0]
        assert out.dtype == dtype
        found.append([out, *torch.autograd.grad(out.square().sum(), [given, *weights])])
    assert found[0][1].dtype == torch.bfloat16
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0.01, atol=0.01 * b.abs().max().item())
