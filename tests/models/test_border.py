"""Maps with their border repeated."""

import pytest
import torch
import torch.nn.functional as F

from rstg_pyg import FrameCNN
from rstg_pyg.models import ClipCNN
from rstg_pyg.models.cnn import repeat_border


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 2, 1, 4)])
@pytest.mark.parametrize("compiled", [False, True])
def test_it_is_replication_padding(shape, compiled):
    torch._dynamo.reset()
    maps = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    call = torch.compile(repeat_border, backend="aot_eager", fullgraph=True) if compiled else repeat_border
    expected = F.pad(maps, (1, 1, 1, 1) + (0, 0) * (maps.dim() - 4), mode="replicate")
    found = call(maps)
    assert torch.equal(found, expected)
    gradient = torch.randn_like(expected)
    for a, b in zip(*(torch.autograd.grad(out, maps, gradient) for out in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FrameCNN(1, (3, 4), batch_norm=True, refine=True, padding_mode="replicate"),
        lambda: ClipCNN(1, (3, 4), batch_norm=True, refine=True, padding_mode="replicate"),
    ],
    ids=["frames", "clips"],
)
def test_a_compiled_backbone_trains(make):
    """Channels last, as the networks are: there PyTorch's own replication padding stops a compiled backward pass."""
    torch._dynamo.reset()
    plain = make()
    shape = (2, 1, 16, 16) if isinstance(plain, FrameCNN) else (2, 1, 3, 16, 16)
    x = torch.rand(shape)
    plain(x).sin().sum().backward()
    expected = [parameter.grad.clone() for parameter in plain.parameters()]
    plain.zero_grad()
    torch.compile(plain)(x).sin().sum().backward()
    for parameter, gradient in zip(plain.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)
