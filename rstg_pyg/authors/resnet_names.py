"""The names of the variables of the program's ResNets, and where each goes."""

from rstg_pyg.authors.placement import Placements, convolution_placements, norm_placements
from rstg_pyg.models.resnet import STAGES, VideoResNet
from rstg_pyg.models.resnet_blocks import ConvNorm, ResidualBlock

BRANCHES = {"2a": "a", "2b": "b", "2c": "c", "1": "shortcut"}
"""The parts of a residual block, by what the names of their variables end with."""


def resnet_placements(net: VideoResNet, scope: str) -> Placements:
    """List the placements of a network's convolutions and batch norms.

    Args:
        net: a network of depth 50; its classifier and what stands between its residual blocks are left out.
        scope: what the names of the variables start with, with its last slash.

    Source: variable names of the program, IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> table = resnet_placements(VideoResNet("i3d", width=8), "tower/resnet_i3d/backbone/")
        >>> table["tower/resnet_i3d/backbone/res4_0_branch1/kernel"].shape
        (1, 1, 1, 64, 128)
    """
    table = _conv_norm(f"{scope}conv1", f"{scope}res_conv1_bn", "conv1", net.conv1)
    for stage in STAGES:
        for name, block in getattr(net, stage).named_children():
            if not isinstance(block, ResidualBlock):
                continue
            for branch, part in BRANCHES.items():
                layers = getattr(block, part)
                if layers is not None:
                    variable = f"{scope}{stage}_{name}_branch{branch}"
                    table |= _conv_norm(variable, f"{variable}_bn", f"{stage}.{name}.{part}", layers)
    return table


def _conv_norm(convolution: str, norm: str, name: str, layers: ConvNorm) -> Placements:
    table = convolution_placements(convolution, f"{name}.conv", layers.conv)
    return table | norm_placements(norm, f"{name}.norm", layers.norm)
