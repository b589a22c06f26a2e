"""Holds the forms of one function against each other before they are timed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from forms import Form

OUTPUT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest norm of a difference, relative to the norm of the tensor."""

GRADIENT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-2}
"""The same for gradients. A rounding that moves a value over the kink of a ReLU switches a gradient on or off: in
float32 that befalls a few of millions of values, in bfloat16 so many that gradients cannot be compared."""


def results(form: Form, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """The output and the gradients of a form for node features ``[N, B, T, C]`` and the gradient of the output."""
    x, gradient = form.pack(x).detach().contiguous().requires_grad_(), form.pack(gradient)
    form.module.zero_grad(set_to_none=True)
    out = form.call(x)
    out.backward(gradient)
    found = {"output": form.unpack(out.detach()), "gradient of the input": form.unpack(x.grad)}
    return found | {f"gradient of {name}": value for name, value in form.gradients().items()}


def assert_equal(forms: Mapping[str, Form], x: Tensor, gradient: Tensor) -> None:
    """Raise unless all forms of the package's function give the same output and gradients up to rounding."""
    expected: dict[str, Tensor] = {}
    for name, form in forms.items():
        if form.gradients is None:
            continue
        found = results(form, x, gradient)
        form.module.zero_grad(set_to_none=True)
        expected = expected or found
        for what, value in expected.items():
            tolerances = OUTPUT_TOLERANCE if what == "output" else GRADIENT_TOLERANCE
            error, norm = (found[what] - value).float().norm(), value.float().norm()
            if not error <= tolerances.get(x.dtype, math.inf) * norm:
                raise AssertionError(f"form {name!r}: the {what} of norm {norm:.1e} is off by {error:.1e}")
