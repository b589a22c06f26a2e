"""The gated linear recurrence in Triton against the plain form, on CUDA or in Triton's interpreter."""

import pytest
import torch

from rstg_pyg.ops.scan import gated_scan
from rstg_pyg.ops.triton.attend import is_available

pytest.importorskip("triton")
if not is_available():
    pytest.skip("needs a CUDA device, or TRITON_INTERPRET=1 in the environment", allow_module_level=True)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(lengths, channels, dtype=torch.float64):
    gates = torch.randn(sum(lengths), 2 * channels, dtype=dtype, device=DEVICE)
    gates[:, :channels] += 3
    h0 = torch.randn(len(lengths), channels, dtype=torch.promote_types(dtype, torch.float32), device=DEVICE)
    return gates.requires_grad_(), h0.requires_grad_(), torch.tensor([0, *lengths], device=DEVICE).cumsum(0)


@pytest.mark.parametrize(
    ("lengths", "dtype", "tolerance"),
    [
        ([18, 0, 16, 1], torch.float32, 1e-5),
        ([17, 17], torch.float64, 1e-12),
        ([18, 0, 16, 1], torch.bfloat16, 2e-2),
    ],
    ids=str,
)
def test_it_is_the_plain_form(lengths, dtype, tolerance):
    gates, h0, ptr = draw(lengths, 66, dtype)
    for given in [ptr] + [None] * (len(set(lengths)) == 1):
        found = []
        for backend in ("triton", "plain"):
            outs = gated_scan(gates, h0, given, backend)
            torch.manual_seed(1)
            grads = torch.autograd.grad(outs, [gates, h0], [torch.randn_like(out) for out in outs])
            found.append((*outs, *grads))
        torch.testing.assert_close(*found, rtol=tolerance, atol=tolerance)


def test_operators_are_well_formed():
    from rstg_pyg.ops.triton import scan

    gates, h0, ptr = draw([3, 0, 2], 3)
    out, last = (value.detach() for value in gated_scan(gates, h0, ptr, "plain"))
    torch.library.opcheck(scan.gated_scan, (gates, h0, ptr))
    torch.library.opcheck(scan.gated_scan_grad, (out, last, gates.detach(), h0.detach(), ptr, out))


def test_one_launch_each_way_however_many_frames(monkeypatch):
    from rstg_pyg.ops.triton import scan

    launches = []
    launch = scan._launch
    monkeypatch.setattr(scan, "_launch", lambda *args, **options: launches.append(1) or launch(*args, **options))
    for length in (2, 70):
        gates, h0, _ = draw([length], 3)
        gated_scan(gates, h0, None, "triton")[0].sum().backward()
    assert len(launches) == 4
