"""The authors' networks for Something-Something."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from rstg_pyg.arguments import check_choice
from rstg_pyg.authors.graph_branch import GraphBranch, GraphResidual
from rstg_pyg.models.resnet import STAGES, VideoResNet

FINAL = "final"
PLACES = (*STAGES, FINAL)
POOL_SIDE = 14
PIXEL_MEAN, PIXEL_STD = 0.45, 0.225

PUBLISHED = {
    "c2d": ("c2d", ()),
    "c2d_rstg": ("c2d", (FINAL,)),
    "i3d": ("i3d", ()),
    "i3d_rstg_final": ("i3d", (FINAL,)),
    "i3d_rstg_res3_res4": ("i3d", ("res3", "res4")),
}
"""Form and places of the networks with a published checkpoint."""


class AuthorsVideoNet(VideoResNet):
    r"""A C2D or I3D ResNet-50 with space-time blocks in it or at its end, as the authors' program has it.

    .. math::
        \mathrm{logits} = W\big(\mathrm{pool}(F) + \mathrm{branch}(F)\big) + b, \qquad F = \mathrm{res5}(\cdots)

    for `"final"`, and :math:`F \leftarrow F + \mathrm{branch}(F)` inside a stage, where the branch stands in front of
    the stage's last residual block. `pool` is the mean over windows of 14 x 14 that slide over the map, which a crop of
    224 x 224 fills once; a smaller map is one window. The graph is as wide as res3, where it has no width of its own.
    The batch norms of the backbone normalise by their running statistics, in training too.

    Args:
        form: `"c2d"` or `"i3d"`.
        places: where blocks stand: any of `"res2"`, `"res3"`, `"res4"`, `"res5"` and `"final"`.
        num_classes: number of logits.
        width: channels of the first convolution, 64 in the program.
        dropout: probability that an entry of the clip's vector is dropped in training.
        heatmap_size: side of the position heatmaps of a single block; `None`, as in the published networks, for no
            positions.

    Shapes:
        - video: `[B, 3, T, H, W]`, RGB; uint8 pixels, or floats that are already `(pixel / 255 - 0.45) / 0.225`
        - output: logits `[B, num_classes]`

    Raises:
        ValueError: for arguments outside these ranges, and for a video of another shape.

    Source: Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, arXiv:1904.05582; program: IuliaDuta/RSTG at 788a7a3, its
    Something-Something configurations; departures 14 to 17.

    Example:
        >>> import torch
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
        self.pixel_mean.fill_(PIXEL_MEAN)
        self.pixel_std.fill_(PIXEL_STD)
        graph_width = self.widths["res3"]
        for place in self.places:
            if place == FINAL:
                self.final = GraphBranch(self.out_channels, graph_width, "vec", heatmap_size)
            else:
                own = None if place == "res3" else graph_width
                residual = GraphResidual(self.widths[place], own, heatmap_size)
                setattr(self, place, _before_last(getattr(self, place), residual))

    @classmethod
    def published(cls, name: str) -> "AuthorsVideoNet":
        """The network of a published checkpoint, with new weights.

        Args:
            name: `"c2d"`, `"c2d_rstg"`, `"i3d"`, `"i3d_rstg_final"` or `"i3d_rstg_res3_res4"`.

        Raises:
            ValueError: for another name.

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
        """Logits `[B, num_classes]` of a video `[B, 3, T, H, W]`."""
        features = self.features(video)
        window = (features.size(2), *(min(POOL_SIDE, side) for side in features.shape[-2:]))
        vectors = avg_pool3d(features, window, stride=1).mean(dim=(2, 3, 4))
        if FINAL in self.places:
            vectors = vectors + self.final(features)
        return self.classifier(self.dropout(vectors))


def _before_last(stage: nn.Sequential, residual: GraphResidual) -> nn.Sequential:
    """A stage with a residual in front of its last block; the names of the blocks stay."""
    *first, last = stage.named_children()
    return nn.Sequential(OrderedDict([*first, ("rstg", residual), last]))
