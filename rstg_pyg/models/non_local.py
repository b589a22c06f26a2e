"""Attention between all places of all frames."""

from torch import Tensor
from torch.nn import Linear, MaxPool3d, Module
from torch.nn.functional import scaled_dot_product_attention

from rstg_pyg.arguments import check_flags, check_positive
from rstg_pyg.blocks.to_map import ZeroChannelBatchNorm
from rstg_pyg.blocks.volume_pool import check_volume
from rstg_pyg.norm import normalised


class NonLocalBlock(Module):
    r"""The embedded Gaussian block of "Non-local Neural Networks" (Wang, Girshick, Gupta, He, CVPR 2018,
    `arXiv:1711.07971 <https://arxiv.org/abs/1711.07971>`_): every place of every frame takes a weighted mean over all
    of them.

    .. math::
        \mathbf{x}'_i = \mathbf{x}_i + \mathrm{BatchNorm}\left( \mathbf{W}_z \sum_j
        \mathrm{softmax}_j \left( \frac{(\mathbf{W}_\theta \mathbf{x}_i)^\top \mathbf{W}_\phi \hat{\mathbf{x}}_j}
        {\sqrt{C'}} \right) \mathbf{W}_g \hat{\mathbf{x}}_j \right)

    The division by :math:`\sqrt{C'}` keeps the softmax from one winner; the paper's formula has none. The weight and
    the bias of the batch normalisation start at zero, so a network that takes the block in computes what it did before
    until they are trained.

    Args:
        channels: Size C of the volume's features.
        inner_channels: Size C' of queries, keys and values (default: half of C, at least 1).
        max_pool: Whether :math:`\hat{\mathbf{x}}` is the volume after 2 x 2 max-pooling of each frame, which quarters
            the products, or the volume itself.

    Shapes:
        - **input, output:** ``[B, C, T, H, W]``.

    Raises:
        ValueError: If an argument is not positive, or a volume does not fit.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import NonLocalBlock
        >>> block, volume = NonLocalBlock(64), torch.randn(2, 64, 10, 6, 6)
        >>> torch.equal(block(volume), volume)
        True
    """

    def __init__(self, channels: int, inner_channels: int | None = None, max_pool: bool = True) -> None:
        super().__init__()
        check_positive(channels=channels)
        check_flags(max_pool=max_pool)
        inner_channels = max(1, channels // 2) if inner_channels is None else inner_channels
        check_positive(inner_channels=inner_channels)
        self.in_channels = self.channels = channels
        self.inner_channels = inner_channels
        # The places at the border of an odd map are keys as well.
        self.pool = MaxPool3d((1, 2, 2), ceil_mode=True) if max_pool else None
        self.query = Linear(channels, inner_channels)
        self.key_value = Linear(channels, 2 * inner_channels)
        self.lin_out = Linear(inner_channels, channels, bias=False)
        self.norm = ZeroChannelBatchNorm(channels)

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters; those of the normalisation to zero."""
        for layer in (self.query, self.key_value, self.lin_out, self.norm):
            layer.reset_parameters()

    def forward(self, volume: Tensor) -> Tensor:
        check_volume(self, volume)
        seen = volume if self.pool is None else self.pool(volume)
        query = self.query(_places(volume))
        key, value = self.key_value(_places(seen)).chunk(2, -1)
        # One head: the fused kernels take four dimensions.
        mean = scaled_dot_product_attention(query[:, None], key[:, None], value[:, None]).squeeze(1)
        change = normalised(self.norm, self.lin_out(mean)).unflatten(1, volume.shape[2:]).movedim(-1, 1)
        return volume + change.to(volume.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, {self.inner_channels}, max_pool={self.pool is not None})"


def _places(volume: Tensor) -> Tensor:
    """``[B, C, T, H, W] -> [B, T * H * W, C]``, free of copies in the layout channels_last_3d."""
    return volume.movedim(1, -1).flatten(1, 3)
