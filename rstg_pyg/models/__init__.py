"""Networks around the heart: backbones, classifiers, the rows of the paper's tables, and a forecaster."""

from rstg_pyg.models.baselines import ConvLSTM, MeanLSTM
from rstg_pyg.models.cnn import ClipCNN, FrameCNN
from rstg_pyg.models.forecaster import Forecaster, masked_error
from rstg_pyg.models.graph_rows import GRAPH_ROWS, GraphNetwork, build_graph_row
from rstg_pyg.models.image_weights import ImageWeights, load_image_weights
from rstg_pyg.models.motion import MotionForecaster, constant_velocity
from rstg_pyg.models.non_local import NonLocalBlock
from rstg_pyg.models.pair_forecaster import PairForecaster
from rstg_pyg.models.resnet import VideoResNet
from rstg_pyg.models.rows import (
    PAPER_SIZE,
    ROWS,
    SMALL,
    VIDEO_PAPER_SIZE,
    VIDEO_ROWS,
    VIDEO_SMALL,
    Network,
    Row,
    VideoNetwork,
    VideoRow,
    build_row,
    build_video_row,
    describe_rows,
    describe_video_rows,
)
from rstg_pyg.models.video_classifier import VideoClassifier

__all__ = [
    "GRAPH_ROWS",
    "PAPER_SIZE",
    "ROWS",
    "SMALL",
    "VIDEO_PAPER_SIZE",
    "VIDEO_ROWS",
    "VIDEO_SMALL",
    "ClipCNN",
    "ConvLSTM",
    "Forecaster",
    "FrameCNN",
    "GraphNetwork",
    "ImageWeights",
    "MeanLSTM",
    "MotionForecaster",
    "Network",
    "NonLocalBlock",
    "PairForecaster",
    "Row",
    "VideoClassifier",
    "VideoNetwork",
    "VideoResNet",
    "VideoRow",
    "build_graph_row",
    "build_row",
    "build_video_row",
    "constant_velocity",
    "describe_rows",
    "describe_video_rows",
    "load_image_weights",
    "masked_error",
]
