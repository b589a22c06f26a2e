"""The program's space-time block as a branch beside a video network's features."""

import torch
from torch import Tensor, nn

from rstg_pyg.authors.block import AuthorsRSTG
from rstg_pyg.authors.norms import TF_LAYER_NORM_EPS
from rstg_pyg.authors.readout import AuthorsToMap, AuthorsToVec


class AfterGraphNorm(nn.Module):
    r"""Layer norm over everything but the batch, then a gain that starts at zero.

    .. math::
        y = s \odot \Big(\frac{x - \mu}{\sqrt{\sigma^2 + 10^{-12}}} + \beta\Big)

    with :math:`s` and :math:`\beta` one number per channel. The zero makes a network that takes the branch in compute
    what it did before, until it is trained.

    Args:
        channels: width of the features.

    Shapes:
        - input: `[B, C, *]`, maps `[B, C, T, H, W]` or vectors `[B, C]`
        - output: the input's

    Source: program (IuliaDuta/RSTG at 788a7a3), departure 15.

    Example:
        >>> AfterGraphNorm(16)(torch.randn(2, 16)).abs().max().item()
        0.0
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gain and bias to 0."""
        nn.init.zeros_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, C, *]`; the shape stays."""
        normalised = nn.functional.layer_norm(x, x.shape[1:], eps=TF_LAYER_NORM_EPS)
        per_channel = (-1,) + (1,) * (x.dim() - 2)
        return self.scale.view(per_channel) * (normalised + self.bias.view(per_channel))

    def extra_repr(self) -> str:
        return f"{self.scale.numel()}"


class GraphBranch(nn.Module):
    r"""Block, readout and norm: what the program adds to a feature volume or to its mean.

    .. math::
        \mathrm{branch}(F) = \mathrm{norm}\big(\mathrm{readout}(\mathrm{RSTG}(F))\big)

    The block has the configuration of the program's Something-Something networks: three scales, three stages, dot
    attention with one head, layer norm, an update MLP of two layers per scale.

    Args:
        in_channels: width C of the feature volume.
        channels: width of the graph where it has its own; `None` keeps `in_channels`.
        readout: `"map"` for a volume, `"vec"` for a vector of the clip.
        heatmap_size: side of the position heatmaps; `None`, as in the published networks, for no positions.

    Shapes:
        - volume: `[B, C, T, H, W]`
        - output: `[B, C, T, H, W]` or `[B, C]`

    Raises:
        ValueError: for another `readout`, and for a volume of another shape.

    Source: Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, arXiv:1904.05582; program: IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> GraphBranch(16, channels=8, readout="vec")(torch.randn(2, 16, 3, 6, 6)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self, in_channels: int, channels: int | None = None, readout: str = "map", heatmap_size: int | None = None
    ) -> None:
        super().__init__()
        if readout not in ("map", "vec"):
            raise ValueError(f"expected 'readout' to be 'map' or 'vec', got {readout!r}")
        self.graph = AuthorsRSTG(
            in_channels, channels, attention="dot", heatmap_size=heatmap_size, norm="layer", update_per_scale=True
        )
        self.readout = AuthorsToMap() if readout == "map" else AuthorsToVec()
        self.norm = AfterGraphNorm(in_channels)

    def reset_parameters(self) -> None:
        """Draw new weights as the program does."""
        self.graph.reset_parameters()
        self.norm.reset_parameters()

    def forward(self, volume: Tensor) -> Tensor:
        """What to add to a volume `[B, C, T, H, W]`, or to its mean."""
        nodes = self.graph(volume)
        if isinstance(self.readout, AuthorsToMap):
            return self.norm(self.readout(nodes, size=tuple(volume.shape[-2:])))
        return self.norm(self.readout(nodes))


class GraphResidual(GraphBranch):
    r"""The branch added to the volume that it reads.

    .. math::
        F \leftarrow F + \mathrm{norm}\big(\mathrm{map}(\mathrm{RSTG}(F))\big)

    Args:
        in_channels: width C of the feature volume.
        channels: width of the graph where it has its own; `None` keeps `in_channels`.
        heatmap_size: side of the position heatmaps; `None` for no positions.

    Shapes:
        - input, output: `[B, C, T, H, W]`

    Source: as :class:`GraphBranch`.

    Example:
        >>> volume = torch.randn(2, 16, 3, 6, 6)
        >>> torch.equal(GraphResidual(16, channels=8)(volume), volume)
        True
    """

    def __init__(self, in_channels: int, channels: int | None = None, heatmap_size: int | None = None) -> None:
        super().__init__(in_channels, channels, "map", heatmap_size)

    def forward(self, volume: Tensor) -> Tensor:
        """The volume `[B, C, T, H, W]` and what the graph adds to it."""
        return volume + super().forward(volume)
