r"""Batch normalisation of a convolution's output, without looking at the output.

Shape legend: N frames, C channels of a frame, O filters, P = C * kernel height * kernel width values of a patch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, Module

from rstg_pyg.watched import everything_is_watched, is_bare

MAX_PATCH = 32
"""Patches of up to so many values are worth their moments: kernels of 3 x 3 on frames of three channels are."""


def can_fold(conv: Module, norm: Module, *around: Module) -> bool:
    """Whether :func:`folded_norm` computes what the two layers do, and nobody looks at them or at what is ``around``
    them."""
    return (
        is_bare(conv, Conv2d)
        and is_bare(norm, BatchNorm2d)
        and all(is_bare(module, type(module)) for module in around)
        and not everything_is_watched()
        and conv.weight[0].numel() <= MAX_PATCH
        and conv.groups == 1
        and conv.padding == (0, 0)
        and conv.bias is None
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


def folded_norm(frames: Tensor, conv: Conv2d, norm: BatchNorm2d) -> Tensor:
    r"""Return ``norm(conv(frames))``.

    An output is a product :math:`\mathbf{w}^\top \mathbf{p}` with a patch of the frame, so its mean and variance follow
    from those of the patches,

    .. math::
        \mu = \mathbf{w}^\top \mathrm{E}[\mathbf{p}], \qquad
        \sigma^2 = \mathbf{w}^\top \mathrm{Cov}[\mathbf{p}] \, \mathbf{w},

    and the normalisation :math:`\gamma (\mathbf{w}^\top \mathbf{p} - \mu) / \sigma + \beta` is a convolution with other
    weights: of a layer with few channels in and many out, whose output is the largest tensor of the network, only the
    convolution is left. The moments are computed in float64, for a patch's values are much alike and an edge detector's
    variance is what is left when they cancel.

    Shapes:
        - **frames:** ``[N, C, H, W]``. **output:** ``[N, O, H', W']``.

    Source: this package's.

    Example:
        >>> import torch
        >>> from rstg_pyg.models.folded_norm import folded_norm
        >>> conv, norm = torch.nn.Conv2d(1, 8, 3, bias=False), torch.nn.BatchNorm2d(8)
        >>> folded_norm(torch.rand(2, 1, 6, 6), conv, norm).shape
        torch.Size([2, 8, 4, 4])
    """
    with torch.autocast(frames.device.type, enabled=False):
        weight = conv.weight.flatten(1).double()
        if norm.training:
            mean, variance, count = _output_moments(frames, conv, weight)
            _move_running_moments(norm, mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        else:
            mean, variance = norm.running_mean.double(), norm.running_var.double()
        scale = norm.weight * (variance + norm.eps).rsqrt()
        folded = (weight * scale.unsqueeze(1)).view_as(conv.weight).to(conv.weight.dtype)
        shift = (norm.bias - mean * scale).to(conv.weight.dtype)
    return F.conv2d(frames, folded, shift, conv.stride, dilation=conv.dilation)


def _output_moments(frames: Tensor, conv: Conv2d, weight: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance ``[O]`` of the outputs of the kernels ``weight [O, P]``, and how many each has."""
    patches = F.unfold(frames.double(), conv.kernel_size, conv.dilation, stride=conv.stride)
    count = patches.size(0) * patches.size(2)
    mean_patch = patches.mean((0, 2))
    covariance = (patches @ patches.transpose(1, 2)).sum(0) / count - torch.outer(mean_patch, mean_patch)
    variance = ((weight @ covariance) * weight).sum(1).clamp(min=0)
    return weight @ mean_patch, variance, count


@torch.no_grad()
def _move_running_moments(norm: BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), norm.momentum)
