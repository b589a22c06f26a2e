"""The networks of the paper's two tables, SyncMNIST and Something-Something: a registry and one set of sizes each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch.nn import Module

from rstg_pyg.arguments import check_name, describe
from rstg_pyg.blocks.insertion import insert_rstg
from rstg_pyg.blocks.to_vec import RSTGPool, RSTGToVec
from rstg_pyg.blocks.volume_pool import VolumePool
from rstg_pyg.datasets.scenes import NUM_CLASSES
from rstg_pyg.models.baselines import ConvLSTM, MeanLSTM
from rstg_pyg.models.cnn import ClipCNN, FrameCNN
from rstg_pyg.models.resnet import VideoResNet
from rstg_pyg.models.video_classifier import VideoClassifier
from rstg_pyg.norm import Norm

VEC = "vec"
"""The place of a graph at the end of the network, see :class:`~rstg_pyg.blocks.RSTGPool`."""

Described = list[tuple[str, str, int, Mapping[int, float | None]]]


@dataclass(frozen=True)
class _Row:
    """What the rows of both tables have: a ``name``, the paper's ``title`` for it, and ``published`` accuracies."""

    name: str
    title: str
    published: Mapping[int, float | None]


R = TypeVar("R", bound=_Row)


def _table(*rows: R) -> dict[str, R]:
    return {row.name: row for row in rows}


def _build(rows: Mapping[str, Any], name: str, network: Any, kind: type) -> Any:
    check_name("the name of a row", name, rows)
    if not isinstance(network, kind):
        raise ValueError(f"expected 'network' to be a {kind.__name__}, got {describe(network)}")
    return rows[name].build(network)


def _describe(rows: Mapping[str, Any], network: Any) -> Described:
    with torch.random.fork_rng(devices=[]):
        sizes = {name: sum(p.numel() for p in row.build(network).parameters()) for name, row in rows.items()}
    return [(row.name, row.title, sizes[row.name], row.published) for row in rows.values()]


def _graph_options(network: Any) -> dict[str, Any]:
    names = ("channels", "num_stages", "rnn", "norm", "residual", "input_norm", "heatmap_size")
    return {name: getattr(network, name) for name in names}


@dataclass(frozen=True)
class Network:
    """The sizes and options that all rows of a table share, so that rows differ in their method alone.

    Args:
        widths: Filters of the backbone's convolutions.
        channels: Size of the graph's nodes and of the hidden states of Mean + LSTM and Conv + LSTM.
        num_stages: Number K of space stages.
        rnn: Of the graph's time stages, ``"lstm"``, ``"gru"`` or ``"linear"``.
        batch_norm: Batch normalisation in the backbone.
        refine: One more convolution at the end of the backbone, see :class:`~rstg_pyg.FrameCNN`.
        padding_mode: What that convolution sees beyond the border of the map.
        norm: Normalisation of every stage's input.
        residual: Whether every stage adds its input to its output.
        readout: ``"last"`` or ``"mean"`` over time; space-only has no memory and always takes the mean.
        input_norm: Normalisation of what enters the graph, Mean + LSTM and Conv + LSTM.
        heatmap_size: Side of the position heatmaps of the positional row.
        in_channels: Channels of a frame.
        num_classes: Number of classes.
        chrono: Start the graph's time stages with memories of up to so many frames, see :class:`~rstg_pyg.TimeStage`.
    """

    widths: tuple[int, ...]
    channels: int
    num_stages: int = 3
    rnn: str = "lstm"
    batch_norm: bool = False
    refine: bool = False
    padding_mode: str = "zeros"
    norm: Norm = None
    residual: bool = False
    readout: str = "last"
    input_norm: Norm = None
    heatmap_size: int = 6
    in_channels: int = 1
    num_classes: int = NUM_CLASSES
    chrono: int | None = None

    def frame_cnn(self) -> FrameCNN:
        return FrameCNN(self.in_channels, self.widths, self.batch_norm, self.refine, self.padding_mode)

    def clip_cnn(self, non_local: tuple[int, ...] = ()) -> ClipCNN:
        options = {name: getattr(self, name) for name in ("batch_norm", "refine", "padding_mode")}
        return ClipCNN(self.in_channels, self.widths, non_local=non_local, **options)


SMALL = Network(
    widths=(16, 64),
    channels=64,
    num_stages=1,
    rnn="gru",
    batch_norm=True,
    refine=True,
    padding_mode="replicate",
    norm="layer_norm",
    residual=True,
    readout="mean",
    input_norm="batch_norm",
)
"""Sizes that learn in minutes on a CPU, for frames of 32 x 32. The one convolution with padding repeats the border, for
the paper's backbone has no padding: zeros mark 20 of the 36 places of the map, and would tell every row where it is."""

PAPER_SIZE = replace(SMALL, widths=(512, 512, 512), channels=512, num_stages=3, rnn="lstm")
"""Filters, channels and stages of the paper, for frames of 64 x 64; the options that help to learn are those of
:data:`SMALL`."""


@dataclass(frozen=True)
class Row(_Row):
    """One network of the SyncMNIST table.

    Args:
        name: What a command line calls it.
        title: What the paper calls it.
        published: Accuracy in the paper (%) by number of digits, None where the paper has no figure.
        parts: From the shared sizes to backbone and block.
    """

    parts: Callable[[Network], tuple[Module, Module]]

    def build(self, network: Network) -> VideoClassifier:
        """Make the network with new weights."""
        backbone, block = self.parts(network)
        return VideoClassifier(backbone, block, network.num_classes)


def _recurrent(kind: Callable[..., Module]) -> Callable[[Network], tuple[Module, Module]]:
    return lambda net: (
        net.frame_cnn(),
        kind(net.widths[-1], net.channels, readout=net.readout, input_norm=net.input_norm),
    )


def _i3d(net: Network) -> tuple[Module, Module]:
    return net.clip_cnn(), VolumePool(net.widths[-1])


def _non_local(net: Network) -> tuple[Module, Module]:
    """A block after every layer whose map is of the last size."""
    last = len(net.widths) - 1
    return net.clip_cnn(non_local=(last, last + 1) if net.refine else (last,)), VolumePool(net.widths[-1])


def _graph(stages: str, positions: bool = False) -> Callable[[Network], tuple[Module, Module]]:
    def parts(net: Network) -> tuple[Module, Module]:
        options = {**_graph_options(net), "chrono": net.chrono}
        if not positions:
            options["heatmap_size"] = None
        readout = "mean" if stages == "space-only" else net.readout
        block = RSTGToVec(net.widths[-1], stages=stages, readout=readout, **options)
        return net.frame_cnn(), block

    return parts


ROWS: dict[str, Row] = _table(
    Row("mean-lstm", "Mean + LSTM", {3: 77.0, 5: None}, _recurrent(MeanLSTM)),
    Row("conv-lstm", "Conv + LSTM", {3: 95.0, 5: 39.7}, _recurrent(ConvLSTM)),
    Row("i3d", "I3D", {3: None, 5: 90.6}, _i3d),
    Row("non-local", "Non-Local", {3: None, 5: 93.5}, _non_local),
    Row("space-only", "RSTG space-only", {3: 61.3, 5: None}, _graph("space-only")),
    Row("time-only", "RSTG time-only", {3: 89.7, 5: None}, _graph("time-only")),
    Row("homogeneous", "RSTG homogeneous", {3: 95.7, 5: 58.3}, _graph("homogeneous")),
    Row("1-temp-stage", "RSTG 1-temp-stage", {3: 97.0, 5: 74.1}, _graph("1-temp")),
    Row("all-temp-stages", "RSTG all-temp-stages", {3: 98.9, 5: 94.5}, _graph("all-temp")),
    Row("positional", "RSTG positional, all-temp-stages", {3: None, 5: 97.2}, _graph("all-temp", positions=True)),
)
"""The table of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
arXiv:1904.05582), in its order."""


def build_row(name: str, network: Network = SMALL) -> VideoClassifier:
    """Make the network of a row with new weights.

    Raises:
        ValueError: If no row has that name.

    Example:
        >>> import torch
        >>> from rstg_pyg.models import build_row
        >>> build_row("conv-lstm")(torch.rand(2, 1, 10, 32, 32)).shape
        torch.Size([2, 46])
    """
    return _build(ROWS, name, network, Network)


def describe_rows(network: Network = SMALL) -> Described:
    """Return name, title, number of parameters and published accuracies (%) of every row, in the table's order.

    Example:
        >>> from rstg_pyg.models import describe_rows
        >>> describe_rows()[0]
        ('mean-lstm', 'Mean + LSTM', 83038, {3: 77.0, 5: None})
    """
    return _describe(ROWS, network)


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
        rnn: Of the graph's time stages, ``"lstm"``, ``"gru"`` or ``"linear"``.
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
        """Arguments of every graph."""
        return {**_graph_options(self), "checkpoint": self.checkpoint_graph}


VIDEO_SMALL = VideoNetwork(
    depth=18, width=16, res5_stride=1, channels=64, num_stages=1, rnn="gru", readout="mean", input_norm="batch_norm"
)
"""Sizes for a CPU, for frames of 64 x 64, of which 4 x 4 are left at the end of res5: regions of 3 x 3 need as many."""

VIDEO_PAPER_SIZE = VideoNetwork(dropout=0.3, res5_stride=1, pool_padding=0)
"""Sizes of the paper and the authors' program, for 32 frames of 224 x 224: 16 frames of 14 x 14 at the end of res5, of
28 x 28 at res3. Layer norm and residual updates in the graph are those that help to learn. The program trains from
weights of Kinetics, with ``frozen_bn``."""


@dataclass(frozen=True)
class VideoRow(_Row):
    """One network of the Something-Something table.

    Args:
        name: As in :class:`Row`; so is ``title``.
        published: Top-1 and top-5 accuracy on Something-Something v1 in the paper (%), by 1 and 5.
        form: The backbone, see :class:`~rstg_pyg.models.VideoResNet`.
        places: The stages that a graph follows, or :data:`VEC`.
    """

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


VIDEO_ROWS: dict[str, VideoRow] = _table(
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
    return _build(VIDEO_ROWS, name, network, VideoNetwork)


def describe_video_rows(network: VideoNetwork = VIDEO_SMALL) -> Described:
    """Return name, title, number of parameters and published top-1 and top-5 accuracy (%) of every row.

    Example:
        >>> from rstg_pyg.models import describe_video_rows
        >>> describe_video_rows()[0]
        ('c2d', 'C2D', 724542, {1: 31.7, 5: 64.7})
    """
    return _describe(VIDEO_ROWS, network)
