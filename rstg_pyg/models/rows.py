"""The networks of the paper's SyncMNIST table: one registry, one set of sizes for all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn import Module

from rstg_pyg.arguments import check_name, describe
from rstg_pyg.blocks.to_vec import RSTGToVec
from rstg_pyg.blocks.volume_pool import VolumePool
from rstg_pyg.datasets.labels import NUM_CLASSES
from rstg_pyg.models.clip_cnn import ClipCNN
from rstg_pyg.models.conv_lstm import ConvLSTM
from rstg_pyg.models.frame_cnn import FrameCNN
from rstg_pyg.models.mean_lstm import MeanLSTM
from rstg_pyg.models.video_classifier import VideoClassifier
from rstg_pyg.norm import Norm


@dataclass(frozen=True)
class Network:
    """The sizes and options that all rows of a table share, so that rows differ in their method alone.

    Args:
        widths: Filters of the backbone's convolutions.
        channels: Size of the graph's nodes and of the hidden states of Mean + LSTM and Conv + LSTM.
        num_stages: Number K of space stages.
        rnn: Cell of the graph's time stages, ``"lstm"`` or ``"gru"``.
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

    def frame_cnn(self) -> FrameCNN:
        return FrameCNN(self.in_channels, self.widths, self.batch_norm, self.refine, self.padding_mode)

    def clip_cnn(self, non_local: tuple[int, ...] = ()) -> ClipCNN:
        return ClipCNN(
            self.in_channels,
            self.widths,
            batch_norm=self.batch_norm,
            refine=self.refine,
            non_local=non_local,
            padding_mode=self.padding_mode,
        )


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
class Row:
    """One network of the table.

    Args:
        name: What a command line calls it.
        title: What the paper calls it.
        published: Accuracy in the paper (%) by number of digits, None where the paper has no figure.
        parts: From the shared sizes to backbone and block.
    """

    name: str
    title: str
    published: Mapping[int, float | None]
    parts: Callable[[Network], tuple[Module, Module]]

    def build(self, network: Network) -> VideoClassifier:
        """Make the network with new weights."""
        backbone, block = self.parts(network)
        return VideoClassifier(backbone, block, network.num_classes)


def _mean_lstm(net: Network) -> tuple[Module, Module]:
    return net.frame_cnn(), MeanLSTM(net.widths[-1], net.channels, readout=net.readout, input_norm=net.input_norm)


def _conv_lstm(net: Network) -> tuple[Module, Module]:
    return net.frame_cnn(), ConvLSTM(net.widths[-1], net.channels, readout=net.readout, input_norm=net.input_norm)


def _i3d(net: Network) -> tuple[Module, Module]:
    return net.clip_cnn(), VolumePool(net.widths[-1])


def _non_local(net: Network) -> tuple[Module, Module]:
    """A block after every layer whose map is of the last size."""
    last = len(net.widths) - 1
    return net.clip_cnn(non_local=(last, last + 1) if net.refine else (last,)), VolumePool(net.widths[-1])


def _graph(stages: str, positions: bool = False) -> Callable[[Network], tuple[Module, Module]]:
    def parts(net: Network) -> tuple[Module, Module]:
        block = RSTGToVec(
            net.widths[-1],
            net.channels,
            readout="mean" if stages == "space-only" else net.readout,
            heatmap_size=net.heatmap_size if positions else None,
            input_norm=net.input_norm,
            num_stages=net.num_stages,
            rnn=net.rnn,
            stages=stages,
            norm=net.norm,
            residual=net.residual,
        )
        return net.frame_cnn(), block

    return parts


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("mean-lstm", "Mean + LSTM", {3: 77.0, 5: None}, _mean_lstm),
        Row("conv-lstm", "Conv + LSTM", {3: 95.0, 5: 39.7}, _conv_lstm),
        Row("i3d", "I3D", {3: None, 5: 90.6}, _i3d),
        Row("non-local", "Non-Local", {3: None, 5: 93.5}, _non_local),
        Row("space-only", "RSTG space-only", {3: 61.3, 5: None}, _graph("space-only")),
        Row("time-only", "RSTG time-only", {3: 89.7, 5: None}, _graph("time-only")),
        Row("homogeneous", "RSTG homogeneous", {3: 95.7, 5: 58.3}, _graph("homogeneous")),
        Row("1-temp-stage", "RSTG 1-temp-stage", {3: 97.0, 5: 74.1}, _graph("1-temp")),
        Row("all-temp-stages", "RSTG all-temp-stages", {3: 98.9, 5: 94.5}, _graph("all-temp")),
        Row("positional", "RSTG positional, all-temp-stages", {3: None, 5: 97.2}, _graph("all-temp", positions=True)),
    )
}
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
    check_name("the name of a row", name, ROWS)
    if not isinstance(network, Network):
        raise ValueError(f"expected 'network' to be a Network, got {describe(network)}")
    return ROWS[name].build(network)


def describe_rows(network: Network = SMALL) -> list[tuple[str, str, int, Mapping[int, float | None]]]:
    """Return name, title, number of parameters and published accuracies (%) of every row, in the table's order.

    Example:
        >>> from rstg_pyg.models import describe_rows
        >>> describe_rows()[0]
        ('mean-lstm', 'Mean + LSTM', 83038, {3: 77.0, 5: None})
    """
    with torch.random.fork_rng(devices=[]):
        sizes = {name: sum(p.numel() for p in row.build(network).parameters()) for name, row in ROWS.items()}
    return [(row.name, row.title, sizes[row.name], row.published) for row in ROWS.values()]
