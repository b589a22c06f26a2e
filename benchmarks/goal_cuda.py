"""Measures the goals that only a CUDA device can show."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import forms
from compare import COMPILED, Settings, compare, ratio
from goals import BLOCK_STAGES
from problem import Problem

OURS = "rstg-auto"


def measure(problem: Problem, settings: Settings) -> dict[str, float]:
    """Measure all of them; ``problem`` is the space stage of the bfloat16 goals."""
    low = replace(problem, dtype=torch.bfloat16)
    names = [OURS, "dense-split"]
    settings = replace(settings, names=names, compile_mode="max-autotune", compiled_names=names)
    rows = compare([low], True, settings)
    row = {row.name: row for row in rows}
    block = replace(problem, num_stages=BLOCK_STAGES, width=64, batch=4, frames=8)
    return {
        "cuda-bfloat16": row[OURS].share_of_bound,
        "cuda-dense-split": ratio(row[f"dense-split{COMPILED}"], row[OURS]),
        "cuda-launches": count_launches(replace(block, frames=16)) / count_launches(block),
        "cuda-graph": float(replays_equal(block)),
    }


def count_launches(problem: Problem) -> int:
    """Kernels that a forward and a backward pass launch, but for those that cuDNN's recurrent networks launch."""
    form = forms.build(OURS, problem, problem.model())
    x = problem.features()
    work = form.work(x, torch.randn_like(x), backward=True)
    work.run()
    work.prepare()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        work.run()
        torch.cuda.synchronize()
    events = trace.events()
    launched = sum(event.device_type == DeviceType.CUDA for event in events)
    return launched - sum(len(event.kernels) for event in events if "cudnn" in event.name)


def replays_equal(problem: Problem) -> bool:
    """Whether the whole block, forward and backward, gives the same from a CUDA graph as without one."""
    form = forms.build(OURS, problem, problem.model())
    x = problem.features().requires_grad_()
    gradient = torch.randn_like(x)

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = form.module

        def forward(self, x: Tensor) -> Tensor:
            return form.call(x)

    def results(call: torch.nn.Module) -> list[Tensor]:
        inputs = [x, *form.module.parameters()]
        out = call(x)
        return [out.detach().clone(), *(part.clone() for part in torch.autograd.grad(out, inputs, gradient))]

    expected = results(Call())
    captured = torch.cuda.make_graphed_callables(Call(), (torch.randn_like(x).requires_grad_(),))
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(results(captured), expected, strict=True))
