"""Recurrent space-time graphs as modules that take feature volumes, a network around them, and other such blocks."""

from rstg_pyg.models.clip_cnn import ClipCNN
from rstg_pyg.models.conv_lstm import ConvLSTM
from rstg_pyg.models.frame_cnn import FrameCNN
from rstg_pyg.models.image_weights import ImageWeights, load_image_weights
from rstg_pyg.models.inserted_blocks import InsertedBlocks
from rstg_pyg.models.insertion import host_state_dict, insert_rstg, load_host_state_dict, remove_rstg
from rstg_pyg.models.mean_lstm import MeanLSTM
from rstg_pyg.models.non_local import NonLocalBlock
from rstg_pyg.models.resnet import VideoResNet
from rstg_pyg.models.rows import PAPER_SIZE, ROWS, SMALL, Network, Row, build_row, describe_rows
from rstg_pyg.models.rstg_pool import RSTGPool
from rstg_pyg.models.to_map import RSTGToMap
from rstg_pyg.models.to_vec import RSTGToVec
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
from rstg_pyg.models.volume_pool import VolumePool

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
    "InsertedBlocks",
    "MeanLSTM",
    "Network",
    "NonLocalBlock",
    "RSTGPool",
    "RSTGToMap",
    "RSTGToVec",
    "Row",
    "VideoClassifier",
    "VideoNetwork",
    "VideoResNet",
    "VideoRow",
    "VolumePool",
    "build_row",
    "build_video_row",
    "describe_rows",
    "describe_video_rows",
    "host_state_dict",
    "insert_rstg",
    "load_host_state_dict",
    "load_image_weights",
    "remove_rstg",
]
