"""The authors' whole networks: for SyncMNIST, and for Something-Something with blocks in a ResNet or at its end."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from rstg_pyg.arguments import check_choice, describe, num_dims
from rstg_pyg.authors.block import AuthorsRSTG, AuthorsToMap, AuthorsToVec
from rstg_pyg.authors.norms import AfterGraphNorm
from rstg_pyg.authors.stages import glorot
from rstg_pyg.models.resnet import STAGES, VideoResNet

FINAL = "final"
PLACES = (*STAGES, FINAL)
POOL_SIDE = 14
PIXEL_MEAN, PIXEL_STD = 0.45, 0.225
SMALLEST = 22
"""Side of the frames of which three convolutions and poolings leave a map."""

PUBLISHED = {
    "c2d": ("c2d", ()),
    "c2d_rstg": ("c2d", (FINAL,)),
    "i3d": ("i3d", ()),
    "i3d_rstg_final": ("i3d", (FINAL,)),
    "i3d_rstg_res3_res4": ("i3d", ("res3", "res4")),
}
"""Form and places of the networks with a published checkpoint."""


class AuthorsSyncMNISTNet(nn.Module):
    r"""Three convolutions per frame, the space-time block, a linear layer.

    .. math::
        \mathrm{logits} = W\,\mathrm{vec}\big(\mathrm{RSTG}\big(\mathrm{conv}^{3}(x)\big)\big) + b

    Each convolution is 3 x 3 without padding, followed by a ReLU and 2 x 2 max-pooling: frames of 64 x 64 become maps
    of 6 x 6. The block has positions, three stages, additive attention and a batch norm of the node input. Pixels come
    raw, in 0..255, as integers or floats.

    Args:
        filters: Channels of the convolutions and of the graph.
        num_classes: Number of logits.
        in_channels: Channels of the video.

    Shapes:
        - **video:** ``[B, in_channels, T, H, W]``, at least 22 x 22 pixels, so that a map is left.
        - **output:** logits ``[B, num_classes]``.

    Raises:
        ValueError: If the video is of another shape.

    Source: Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, arXiv:1904.05582; program: IuliaDuta/RSTG at 788a7a3, its
    SyncMNIST configuration.

    Example:
        >>> import torch
        >>> from rstg_pyg.authors import AuthorsSyncMNISTNet
        >>> AuthorsSyncMNISTNet(filters=8)(255 * torch.rand(2, 1, 10, 64, 64)).shape
        torch.Size([2, 46])
    """

    def __init__(self, filters: int = 512, num_classes: int = 46, in_channels: int = 1) -> None:
        super().__init__()
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        for width in (in_channels, filters, filters):
            layers += [nn.Conv2d(width, filters, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2)]
        self.backbone = nn.Sequential(*layers)
        self.graph = AuthorsRSTG(filters, input_batch_norm=True)
        self.to_vec = AuthorsToVec()
        self.classifier = nn.Linear(filters, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does: Glorot uniform kernels, zero biases."""
        for convolution in self.backbone[::3]:
            glorot(convolution)
        self.graph.reset_parameters()
        glorot(self.classifier)

    def forward(self, video: Tensor) -> Tensor:
        if num_dims(video) != 5 or video.size(1) != self.in_channels:
            raise ValueError(f"expected a video of shape [B, {self.in_channels}, T, H, W], got {describe(video)}")
        if min(video.shape[-2:]) < SMALLEST:
            raise ValueError(f"expected a video of at least {SMALLEST} x {SMALLEST} pixels, got {describe(video)}")
        if not video.is_floating_point():
            video = video.to(self.backbone[0].weight.dtype)
        frames = video.transpose(1, 2)
        features = self.backbone(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.classifier(self.to_vec(self.graph(features.transpose(1, 2))))


class GraphBranch(nn.Module):
    r"""Block, readout and norm: what the program adds to a feature volume or to its mean.

    .. math::
        \mathrm{branch}(F) = \mathrm{norm}\big(\mathrm{readout}(\mathrm{RSTG}(F))\big)

    The block has the configuration of the program's Something-Something networks: three scales, three stages, dot
    attention with one head, layer norm, an update MLP of two layers per scale.

    Args:
        in_channels: Width C of the feature volume.
        channels: Width of the graph where it has its own; None keeps ``in_channels``.
        readout: ``"map"`` for a volume, ``"vec"`` for a vector of the clip.
        heatmap_size: Side of the position heatmaps; None, as in the published networks, for no positions.

    Shapes:
        - **volume:** ``[B, C, T, H, W]``. **output:** ``[B, C, T, H, W]`` or ``[B, C]``.
    """

    def __init__(
        self, in_channels: int, channels: int | None = None, readout: str = "map", heatmap_size: int | None = None
    ) -> None:
        super().__init__()
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
        size = {"size": tuple(volume.shape[-2:])} if isinstance(self.readout, AuthorsToMap) else {}
        return self.norm(self.readout(self.graph(volume), **size))


class GraphResidual(GraphBranch):
    """The branch added to the volume that it reads: for a stage, in a row with its blocks."""

    def forward(self, volume: Tensor) -> Tensor:
        return volume + super().forward(volume)


class AuthorsVideoNet(VideoResNet):
    r"""A C2D or I3D ResNet-50 with space-time blocks in it or at its end, as the authors' program has it.

    .. math::
        \mathrm{logits} = W\big(\mathrm{pool}(F) + \mathrm{branch}(F)\big) + b, \qquad F = \mathrm{res5}(\cdots)

    for ``"final"``, and :math:`F \leftarrow F + \mathrm{branch}(F)` inside a stage, where the branch stands in front of
    the stage's last residual block. ``pool`` is the mean over windows of 14 x 14 that slide over the map, which a crop
    of 224 x 224 fills once; a smaller map is one window. The graph is as wide as res3, where it has no width of its
    own. The batch norms of the backbone normalise by their running statistics, in training too.

    Args:
        form: ``"c2d"`` or ``"i3d"``.
        places: Where blocks stand: any of ``"res2"``, ``"res3"``, ``"res4"``, ``"res5"`` and ``"final"``.
        num_classes: Number of logits.
        width: Channels of the first convolution, 64 in the program.
        dropout: Probability that an entry of the clip's vector is dropped in training.
        heatmap_size: Side of the position heatmaps of a single block; None, as in the published networks, for no
            positions.

    Shapes:
        - **video:** ``[B, 3, T, H, W]``, RGB; uint8 pixels, or floats that are ``(pixel / 255 - 0.45) / 0.225``.
        - **output:** logits ``[B, num_classes]``.

    Raises:
        ValueError: If an argument is out of its range, or the video is of another shape.

    Source: Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, arXiv:1904.05582; program: IuliaDuta/RSTG at 788a7a3, its
    Something-Something configurations; departures 14 to 17.

    Example:
        >>> import torch
        >>> from rstg_pyg.authors import AuthorsVideoNet
        >>> net = AuthorsVideoNet("i3d", ("res3", "res4"), width=4)
        >>> net(torch.rand(1, 3, 4, 64, 64)).shape
        torch.Size([1, 174])
    """

    def __init__(
        self,
        form: str = "i3d",
        places: Sequence[str] = (FINAL,),
        num_classes: int = 174,
        width: int = 64,
        dropout: float = 0.3,
        heatmap_size: int | None = None,
    ) -> None:
        check_choice("form", form, ("c2d", "i3d"))
        if not set(places) <= set(PLACES) or len(set(places)) < len(places):
            names = ", ".join(map(repr, PLACES))
            raise ValueError(f"expected 'places' to hold each of {names} at most once, got {list(places)}")
        if heatmap_size is not None and len(places) > 1:
            raise ValueError(f"expected 'heatmap_size' to be None with several places, got {heatmap_size}")
        super().__init__(
            form,
            num_classes=num_classes,
            width=width,
            dropout=dropout,
            frozen_bn=True,
            res5_stride=1,
            pool_padding=0,
        )
        self.places = tuple(place for place in PLACES if place in places)
        graph_width = self.widths["res3"]
        for place in self.places:
            if place == FINAL:
                self.final = GraphBranch(self.out_channels, graph_width, "vec", heatmap_size)
            else:
                own = None if place == "res3" else graph_width
                residual = GraphResidual(self.widths[place], own, heatmap_size=heatmap_size)
                # In front of the last block; the names of the blocks stay.
                *first, last = getattr(self, place).named_children()
                setattr(self, place, nn.Sequential(OrderedDict([*first, ("rstg", residual), last])))

    def constants(self) -> dict[str, Tensor | None]:
        shape = (1, 3, 1, 1, 1)
        return {"pixel_mean": torch.full(shape, PIXEL_MEAN), "pixel_std": torch.full(shape, PIXEL_STD)}

    @classmethod
    def published(cls, name: str) -> "AuthorsVideoNet":
        """The network of a published checkpoint, with new weights.

        Args:
            name: ``"c2d"``, ``"c2d_rstg"``, ``"i3d"``, ``"i3d_rstg_final"`` or ``"i3d_rstg_res3_res4"``.

        Raises:
            ValueError: For another name.

        Example:
            >>> AuthorsVideoNet.published("c2d_rstg").places
            ('final',)
        """
        check_choice("name", name, tuple(PUBLISHED))
        form, places = PUBLISHED[name]
        return cls(form, places)

    def branch(self, place: str) -> tuple[str, GraphBranch]:
        """Name and module of the branch at a place."""
        name = place if place == FINAL else f"{place}.rstg"
        return name, self.get_submodule(name)

    def forward(self, video: Tensor) -> Tensor:
        features = self.features(video)
        window = (features.size(2), *(min(POOL_SIDE, side) for side in features.shape[-2:]))
        vectors = avg_pool3d(features, window, stride=1).mean(dim=(2, 3, 4))
        if FINAL in self.places:
            vectors = vectors + self.final(features)
        return self.classifier(self.dropout(vectors))
