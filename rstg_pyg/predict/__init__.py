"""What trained networks say of videos: files, folders of frames and live streams (install the ``examples`` and
``video`` extras). ``python -m rstg_pyg.predict VIDEO --checkpoint FILE`` is the command."""

from rstg_pyg.predict.predictor import Predictor, TrainedNetwork, load_trained_network
from rstg_pyg.predict.source import VideoSource
from rstg_pyg.predict.stream import LiveStream, Prediction

__all__ = ["LiveStream", "Prediction", "Predictor", "TrainedNetwork", "VideoSource", "load_trained_network"]
