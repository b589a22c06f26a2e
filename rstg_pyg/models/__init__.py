"""Networks around the blocks: backbones, classifiers, and the rows of the paper's tables."""

from rstg_pyg.models.clip_cnn import ClipCNN
from rstg_pyg.models.conv_lstm import ConvLSTM
from rstg_pyg.models.frame_cnn import FrameCNN
from rstg_pyg.models.image_weights import ImageWeights, load_image_weights
from rstg_pyg.models.mean_lstm import MeanLSTM
from rstg_pyg.models.non_local import NonLocalBlock
from rstg_pyg.models.resnet import VideoResNet
from rstg_pyg.models.rows import PAPER_SIZE, ROWS, SMALL, Network, Row, build_row, describe_rows
from rstg_pyg.models.video_classifier import VideoClassifier
from rstg_pyg.models.video_rows import (
    VIDEO_PAPER_SIZE,
    VIDEO_ROWS,
    VIDEO_SMALL,
    VideoNetwork,
    VideoRow,
    build_video_row,
    describe_video_rows,
)

__all__ = [
    "PAPER_SIZE",
    "ROWS",
    "SMALL",
    "VIDEO_PAPER_SIZE",
    "VIDEO_ROWS",
    "VIDEO_SMALL",
    "ClipCNN",
    "ConvLSTM",
    "FrameCNN",
    "ImageWeights",
    "MeanLSTM",
    "Network",
    "NonLocalBlock",
    "Row",
    "VideoClassifier",
    "VideoNetwork",
    "VideoResNet",
    "VideoRow",
    "build_row",
    "build_video_row",
    "describe_rows",
    "describe_video_rows",
    "load_image_weights",
]
