"""Recurrent space-time graphs as modules that take feature volumes, a network around them, and other such blocks."""

from rstg_pyg.models.clip_cnn import ClipCNN
from rstg_pyg.models.conv_lstm import ConvLSTM
from rstg_pyg.models.frame_cnn import FrameCNN
from rstg_pyg.models.mean_lstm import MeanLSTM
from rstg_pyg.models.non_local import NonLocalBlock
from rstg_pyg.models.rows import PAPER_SIZE, ROWS, SMALL, Network, Row, build_row, describe_rows
from rstg_pyg.models.to_map import RSTGToMap
from rstg_pyg.models.to_vec import RSTGToVec
from rstg_pyg.models.video_classifier import VideoClassifier
from rstg_pyg.models.volume_pool import VolumePool

__all__ = [
    "PAPER_SIZE",
    "ROWS",
    "SMALL",
    "ClipCNN",
    "ConvLSTM",
    "FrameCNN",
    "MeanLSTM",
    "Network",
    "NonLocalBlock",
    "RSTGToMap",
    "RSTGToVec",
    "Row",
    "VideoClassifier",
    "VolumePool",
    "build_row",
    "describe_rows",
]
