"""The networks of the paper's Something-Something table: one registry, one set of sizes for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rstg_pyg.arguments import check_name, describe
from rstg_pyg.blocks.insertion import insert_rstg
from rstg_pyg.blocks.rstg_pool import RSTGPool
from rstg_pyg.models.resnet import VideoResNet
from rstg_pyg.norm import Norm

VEC = "vec"
"""The place of a graph at the end of the network, see :class:`~rstg_pyg.blocks.RSTGPool`."""


@dataclass(frozen=True)
class VideoNetwork:
    """The sizes and options that all rows of the table share, so that rows differ in their method alone.

    Args:
        depth: 18 or 50, see :class:`~rstg_pyg.models.VideoResNet`, as for the next seven.
        width: Channels of conv1.
        num_classes: Number of classes.
        in_channels: Channels of a frame.
        dropout: Dropout of the clip's vector.
        frozen_bn: Keep the batch normalisations of the backbone in evaluation mode.
        res5_stride: Stride in space of res5.
        pool_padding: Padding of the max-pooling after conv1.
        channels: Size of the graph's nodes, at every place.
        num_stages: Number K of space stages.
        rnn: Cell of the graph's time stages, ``"lstm"`` or ``"gru"``.
        norm: Normalisation of every stage's input.
        residual: Whether every stage adds its input to its output.
        readout: ``"last"`` or ``"mean"`` over time, of the rows with a vector.
        input_norm: Normalisation of what enters the graph.
        heatmap_size: Side of the position heatmaps, or None for graphs without positions.
        checkpoint_graph: Run the graph's stages a second time in the backward pass instead of keeping what they make.
    """

    depth: int = 50
    width: int = 64
    num_classes: int = 174
    in_channels: int = 3
    dropout: float = 0.0
    frozen_bn: bool = False
    res5_stride: int = 2
    pool_padding: int = 1
    channels: int = 512
    num_stages: int = 3
    rnn: str = "lstm"
    norm: Norm = "layer_norm"
    residual: bool = True
    readout: str = "last"
    input_norm: Norm = "layer_norm"
    heatmap_size: int | None = None
    checkpoint_graph: bool = False

    def backbone(self, form: str) -> VideoResNet:
        names = ("depth", "num_classes", "in_channels", "width", "dropout", "frozen_bn", "res5_stride", "pool_padding")
        return VideoResNet(form, **{name: getattr(self, name) for name in names})

    def graph(self) -> dict[str, Any]:
        names = ("channels", "num_stages", "rnn", "norm", "residual", "input_norm", "heatmap_size")
        return {"checkpoint": self.checkpoint_graph, **{name: getattr(self, name) for name in names}}


VIDEO_SMALL = VideoNetwork(
    depth=18,
    width=16,
    res5_stride=1,
    channels=64,
    num_stages=1,
    rnn="gru",
    readout="mean",
    input_norm="batch_norm",
)
"""Sizes for a CPU, for frames of 64 x 64, of which 4 x 4 are left at the end of res5: regions of 3 x 3 need as many."""

VIDEO_PAPER_SIZE = VideoNetwork(dropout=0.3, res5_stride=1, pool_padding=0)
"""Sizes of the paper and the authors' program, for 32 frames of 224 x 224: 16 frames of 14 x 14 at the end of res5, of
28 x 28 at res3. Layer norm and residual updates in the graph are those that help to learn. The program trains from
weights of Kinetics, with ``frozen_bn``."""


@dataclass(frozen=True)
class VideoRow:
    """One network of the table.

    Args:
        name: What a command line calls it.
        title: What the paper calls it.
        published: Top-1 and top-5 accuracy on Something-Something v1 in the paper (%), by 1 and 5.
        form: The backbone, see :class:`~rstg_pyg.models.VideoResNet`.
        places: The stages that a graph follows, or :data:`VEC`.
    """

    name: str
    title: str
    published: Mapping[int, float]
    form: str
    places: tuple[str, ...] = ()

    def build(self, network: VideoNetwork) -> VideoResNet:
        """Make the network with new weights."""
        net = network.backbone(self.form)
        if self.places == (VEC,):
            net.pool = RSTGPool(net.out_channels, readout=network.readout, **network.graph())
            return net
        blocks = {stage: {"in_channels": net.widths[stage], **network.graph()} for stage in self.places}
        return insert_rstg(net, blocks, layout="channels_first")


VIDEO_ROWS: dict[str, VideoRow] = {
    row.name: row
    for row in (
        VideoRow("c2d", "C2D", {1: 31.7, 5: 64.7}, "c2d"),
        VideoRow("i3d", "I3D", {1: 41.6, 5: 72.2}, "i3d"),
        VideoRow("nonlocal", "NL I3D", {1: 44.4, 5: 76.0}, "nonlocal"),
        VideoRow("c2d+rstg:vec", "RSTG-C2D", {1: 42.8, 5: 73.6}, "c2d", (VEC,)),
        VideoRow("i3d+rstg:vec", "RSTG-to-vec", {1: 47.7, 5: 77.9}, "i3d", (VEC,)),
        VideoRow("i3d+rstg:res2", "RSTG-to-map res2", {1: 46.9, 5: 76.8}, "i3d", ("res2",)),
        VideoRow("i3d+rstg:res3", "RSTG-to-map res3", {1: 47.7, 5: 77.8}, "i3d", ("res3",)),
        VideoRow("i3d+rstg:res4", "RSTG-to-map res4", {1: 48.4, 5: 78.1}, "i3d", ("res4",)),
        VideoRow("i3d+rstg:res3-4", "RSTG-to-map res3-4", {1: 49.2, 5: 78.8}, "i3d", ("res3", "res4")),
    )
}
"""The networks on Something-Something v1 of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu,
NeurIPS 2019, arXiv:1904.05582). Every graph starts as nothing: a row with one computes what its backbone does until it
is trained. RSTG-to-map stands at the end of a stage; the authors' program has it in front of the stage's last block,
which is ``insert_rstg(net, {"res3.2": ...})`` for res3. RSTG-to-vec is added to the mean of res5, as there."""


def build_video_row(name: str, network: VideoNetwork = VIDEO_SMALL) -> VideoResNet:
    """Make the network of a row with new weights.

    Raises:
        ValueError: If no row has that name.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import build_video_row
        >>> build_video_row("i3d+rstg:res3-4")(torch.rand(2, 3, 8, 32, 32)).shape
        torch.Size([2, 174])
    """
    check_name("the name of a row", name, VIDEO_ROWS)
    if not isinstance(network, VideoNetwork):
        raise ValueError(f"expected 'network' to be a VideoNetwork, got {describe(network)}")
    return VIDEO_ROWS[name].build(network)


def describe_video_rows(network: VideoNetwork = VIDEO_SMALL) -> list[tuple[str, str, int, Mapping[int, float]]]:
    """Return name, title, number of parameters and published top-1 and top-5 accuracy (%) of every row.

    Example:
        >>> from rstg_pyg.models import describe_video_rows
        >>> describe_video_rows()[0]
        ('c2d', 'C2D', 724542, {1: 31.7, 5: 64.7})
    """
    with torch.random.fork_rng(devices=[]):
        sizes = {name: sum(p.numel() for p in row.build(network).parameters()) for name, row in VIDEO_ROWS.items()}
    return [(row.name, row.title, sizes[row.name], row.published) for row in VIDEO_ROWS.values()]
