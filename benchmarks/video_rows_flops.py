"""Counts the arithmetic of a network."""

from __future__ import annotations

import copy

import torch
from torch.nn import Module
from torch.utils.flop_counter import FlopCounterMode


def forward_flops(net: Module, shape: tuple[int, ...]) -> int:
    """Floating-point operations of the convolutions and matrix products of one call, two for a multiply-add.

    The network runs in evaluation mode on the meta device, where nothing is calculated, and where recurrent layers,
    attention and space stages fall apart into products that torch's counter knows: on a CPU it sees neither oneDNN's
    LSTM and fused attention nor the package's native code. A space stage thus counts as its formula reads, 8 products
    of a C-vector with a C x C matrix per node, also where a backend saves some of them. Additions, norms, activations,
    poolings, and the scores and sums over edges do not count.
    """
    twin = copy.deepcopy(net).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.empty(shape, device="meta"))
    return counter.get_total_flops()
