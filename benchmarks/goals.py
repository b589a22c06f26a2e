"""The goals: what the package has to reach, each a number that ``throughput.py --goals`` measures in one run."""

from __future__ import annotations

from dataclasses import dataclass

STAGE_SIZES = {64: (16, 10), 256: (16, 10), 512: (4, 10)}
"""Clips and frames of one space stage, forward and backward, on scales 3-2-1, by the width."""

BLOCK_STAGES = 3
BLOCK_WIDTH = 512

NODE_TENSORS = {"default": 8, "relu-last": 7}
"""Tensors ``[N, B, T, C]`` that autograd must keep of a space stage, if everything per edge is computed again: the
input, the source and the destination half, query and key, the gathered messages, the hidden layer of the update, and in
the default form the weighted sum that enters the last send layer."""


@dataclass(frozen=True)
class Goal:
    """A number and its limit.

    Attributes:
        key: Name of the measurement.
        text: What is measured.
        required: The limit.
        at_least: Whether the limit is a lower one.
        unit: Of the number; empty for a ratio.
    """

    key: str
    text: str
    required: float
    at_least: bool = False
    unit: str = ""

    def met(self, measured: float) -> bool:
        return measured >= self.required if self.at_least else measured <= self.required

    def requirement(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.required:.3g}{self.unit}"


def _by_width(
    form: str, quantity: str, text: str, required: tuple[float, float, float], at_least: bool = False
) -> list[Goal]:
    return [
        Goal(f"{form}-{width}-{quantity}", f"{form} form, C = {width}: {text}", limit, at_least)
        for width, limit in zip(STAGE_SIZES, required, strict=True)
    ]


STAGE_GOALS = [
    *_by_width("default", "plain", "times as fast as `plain`", (5, 2.8, 3.5), at_least=True),
    *_by_width("default", "memory", "peak memory, of that of `plain`", (0.2, 0.2, 0.2)),
    *_by_width("default", "bound", "time, in times of `bound`", (4, 2, 1.6)),
    *_by_width("default", "bound-fastest", "time, in times of `bound-fastest`", (4, 2, 1.6)),
    *_by_width("default", "gatv2", "time, in times of `gatv2`", (1, 1.3, 1.3)),
    *_by_width("relu-last", "plain", "times as fast as `plain`", (3, 2.2, 2.4), at_least=True),
    *_by_width("relu-last", "authors", "times as fast as `dense-concat`", (4, 4, 4), at_least=True),
    *_by_width("relu-last", "bound", "time, in times of `bound`", (3.5, 1.7, 1.4)),
    *_by_width("relu-last", "bound-fastest", "time, in times of `bound-fastest`", (3.5, 1.7, 1.4)),
    *_by_width("relu-last", "memory", "peak memory, of that of `plain`", (1 / 3, 1 / 3, 1 / 3)),
]

BLOCK_GOALS = [
    Goal("block-authors", f"whole block, C = {BLOCK_WIDTH}: times as fast as `authors`", 3, at_least=True),
]

MEMORY_GOALS = [
    Goal("stream-memory", "stream: peak memory of 100 frames, of that of 10", 1),
    *(
        Goal(f"{form}-saved", f"{form} form, C = 256: what autograd keeps, of the node tensors that it must keep", 1.5)
        for form in NODE_TENSORS
    ),
]

DOUBLING_GOALS = [
    Goal(f"doubling-{what}-{axis}", f"{name}: the most that a doubling of {size} costs", 2.1)
    for what, name in (("stage", "space stage"), ("block", "whole block"))
    for axis, size in (("frames", "T (1 to 256)"), ("batch", "B (1 to 256)"), ("nodes", "N and E (16 to 4,096 nodes)"))
]

IMPORT_GOALS = [Goal("import", "import of rstg_pyg after that of torch_geometric", 50, unit=" ms")]

CUDA_GOALS = [
    Goal("cuda-launches", "CUDA, whole block: kernel launches outside cuDNN at T = 16, of those at T = 8", 1),
    Goal("cuda-graph", "CUDA, whole block: captured in a CUDA graph with equal results (1: yes)", 1, at_least=True),
    Goal("cuda-bfloat16", "CUDA, bfloat16, C = 512, B T = 2560: share of the bound", 0.4, at_least=True),
    Goal("cuda-dense-split", "CUDA, the same: times as fast as `dense-split` under max-autotune", 2, at_least=True),
]

GOALS = [*STAGE_GOALS, *BLOCK_GOALS, *MEMORY_GOALS, *DOUBLING_GOALS, *IMPORT_GOALS, *CUDA_GOALS]
