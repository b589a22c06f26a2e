"""The gated linear recurrence: every way to compute it against a loop over the frames."""

import pytest
import torch
from process_settings import process_settings
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from rstg_pyg.ops.native.attend import is_available
from rstg_pyg.ops.scan import gated_scan, why_not

BACKENDS = [pytest.param("native", marks=pytest.mark.skipif(not is_available(), reason="no compiler")), "plain"]
LENGTHS = {"different": [9, 0, 1, 17, 8, 33], "equal": [12, 12, 12], "of 1": [1] * 5, "none": [0, 0]}
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


def draw(lengths, channels, dtype=torch.float64):
    """Gates that keep most of a state, first states, and where sequences begin."""
    gates = torch.randn(sum(lengths), 2 * channels, dtype=dtype)
    gates[:, :channels] += 3
    h0 = torch.randn(len(lengths), channels, dtype=torch.promote_types(dtype, torch.float32))
    return gates.requires_grad_(), h0.requires_grad_(), torch.tensor([0, *lengths]).cumsum(0)


def loop(gates, h0, ptr):
    outs, last = [gates[:0, : h0.size(1)]], []
    for h, begin, end in zip(h0, ptr, ptr[1:], strict=False):
        for d, v in (row.chunk(2) for row in gates[begin:end]):
            h = d.sigmoid() * h + (1 - d.sigmoid()) * v
            outs.append(h[None])
        last.append(h)
    return torch.cat(outs), torch.stack(last)


def results(run, gates, h0, ptr):
    """Outputs and all gradients."""
    outs = run(gates, h0, ptr)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outs]
    return *outs, *torch.autograd.grad(outs, [gates, h0], grads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("channels", [3, 80])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_it_is_the_loop_over_the_frames(backend, lengths, channels, dtype):
    gates, h0, ptr = draw(lengths, channels, dtype)
    expected = results(loop, gates, h0, ptr)
    for given in [ptr] + [None] * (len(set(lengths)) == 1):
        found = results(lambda *inputs, given=given: gated_scan(*inputs[:2], given, backend), gates, h0, ptr)
        torch.testing.assert_close(found, expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_1000_frames_in_float32_lie_by_the_loop_in_float64(backend):
    gates, h0, ptr = draw([1000, 1000], 20)
    with torch.no_grad():
        gates[:, :20] += torch.linspace(0, 4, 20)  # up to 0.999
    expected = results(loop, gates, h0, ptr)
    narrow = [value.detach().float().requires_grad_() for value in (gates, h0)]
    found = results(lambda gates, h0, ptr: gated_scan(gates, h0, None, backend), *narrow, ptr)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [30.0, 200.0, 1e4])
def test_gates_that_are_shut_or_open_lose_nothing(backend, scale):
    """Their products would be 0 or overflow; nothing is divided by them."""
    gates, h0, ptr = draw([40, 40], 16, torch.float32)
    with torch.no_grad():
        gates[:, :16] = scale * gates[:, :16].sub(3).sign()
    found, expected = (results(run, gates, h0, ptr) for run in (lambda *x: gated_scan(*x, backend), loop))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_one_output_alone(backend):
    gates, h0, ptr = draw(LENGTHS["different"], 5)
    for k in (0, 1):
        found, expected = (
            torch.autograd.grad(run(gates, h0, ptr)[k].square().sum(), [gates, h0])
            for run in (lambda *x: gated_scan(*x, backend), loop)
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_and_second_gradients(backend):
    gates, h0, ptr = draw([3, 0, 2], 2)
    for given in (ptr, None):
        inputs = (gates, h0) if given is not None else (gates[:3].detach().requires_grad_(), h0)
        assert gradcheck(lambda gates, h0, given=given: gated_scan(gates, h0, given, backend), inputs)
        assert gradgradcheck(lambda gates, h0, given=given: gated_scan(gates, h0, given, backend), inputs)


@pytest.mark.skipif(not is_available(), reason="no compiler")
def test_the_operator_is_what_pytorch_expects_of_one():
    gates, h0, ptr = draw([3, 2, 1], 3)
    for given in (ptr, None):
        torch.library.opcheck(torch.ops.rstg_pyg.gated_scan.default, (gates, h0, given))


def test_compiled_and_transformed_and_forward_gradients():
    gates, h0, ptr = draw(LENGTHS["different"], 5)
    torch._dynamo.reset()
    compiled = torch.compile(gated_scan, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(results(compiled, gates, h0, ptr), results(gated_scan, gates, h0, ptr))
    for given in (ptr, None):
        rows = gates[: 5 * len(h0)] if given is None else gates
        found = torch.func.vmap(lambda one, given=given: gated_scan(one, h0, given)[0])(torch.stack([rows, 2 * rows]))
        torch.testing.assert_close(found[1], gated_scan(2 * rows, h0, given)[0])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(gates.detach(), torch.randn_like(gates))
        assert forward_ad.unpack_dual(gated_scan(dual, h0, ptr)[0]).tangent is not None


@pytest.mark.skipif(not is_available(), reason="no compiler")
@pytest.mark.parametrize("count", [2, 67])
def test_threads_and_layouts_change_nothing(count):
    gates, h0, ptr = draw(torch.randint(60, 90, (count,)).tolist(), 72, torch.float32)
    strided = gates.detach().repeat(1, 2)[:, :144].requires_grad_(), h0.detach().t().contiguous().t().requires_grad_()
    found = []
    for threads, given in ((1, (gates, h0)), (3, (gates, h0)), (3, strided)):
        with process_settings():
            torch.set_num_threads(threads)
            found.append(results(gated_scan, *given, ptr.repeat_interleave(2)[::2]))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_keeps_its_state_in_float32(backend):
    gates, h0, ptr = draw(LENGTHS["different"], 20, torch.bfloat16)
    out, last = gated_scan(gates, h0, ptr, backend)
    assert (out.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    expected = results(loop, gates.detach().double().requires_grad_(), h0.detach().double().requires_grad_(), ptr)
    torch.testing.assert_close(last.double(), expected[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.double(), expected[0], rtol=0.01, atol=0.01)
    out.square().sum().backward()
    assert gates.grad.dtype == torch.bfloat16 and h0.grad.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors(backend):
    gates, h0, ptr = draw([3, 2, 1], 4)
    for ends in ([0, 3, 5, 7], [1, 3, 5, 6], [0, 5, 3, 6], [0, 3, 5, 5]):
        with pytest.raises(ValueError, match="expected 'ptr' to lead from 0 to 6 rows and not to decrease, got"):
            gated_scan(gates, h0, torch.tensor(ends), backend)
    for wrong, message in (
        ((gates, h0, ptr[1:]), r"expected 'ptr' of shape \[4\] and type torch.int64, got torch.int64 of shape \[3\]"),
        ((gates, h0, ptr.int()), "got torch.int32"),
        ((gates[:5], h0, None), "expected 'gates' of 3 sequences of one length, got 5 rows"),
        ((gates, h0.float(), ptr), r"type torch.float64, got \[6, 8\] and torch.float32 of shape \[3, 4\]"),
        ((gates, h0[:, :3], ptr), r"shape \[M, 2 \* C\].*got \[6, 8\] and torch.float64 of shape \[3, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            gated_scan(*wrong, backend)


def test_why_not():
    gates, h0, ptr = draw([1], 1)
    with pytest.raises(ValueError, match="'backend' to be one of 'native', 'triton', 'plain', got 'cuda'"):
        gated_scan(gates, h0, ptr, "cuda")
    assert why_not("plain", gates) is None
    assert "float64 on meta" in why_not("native", gates.to("meta"))
    assert "float16 on cpu" in why_not("native", gates.half())
