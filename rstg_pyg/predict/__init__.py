"""What trained networks say of videos: files, folders of frames and live streams (install the ``examples`` and
``video`` extras). ``python -m rstg_pyg.predict VIDEO --checkpoint FILE`` is the command."""

from rstg_pyg.predict.checkpoint import TrainedNetwork, load_trained_network
from rstg_pyg.predict.live_stream import LiveStream
from rstg_pyg.predict.prediction import Prediction
from rstg_pyg.predict.predictor import Predictor
from rstg_pyg.predict.source import VideoSource

__all__ = ["LiveStream", "Prediction", "Predictor", "TrainedNetwork", "VideoSource", "load_trained_network"]
