import pytest
from matplotlib.figure import Figure

from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier


@pytest.fixture
def ax():
    return Figure().add_subplot()


@pytest.fixture
def make_net():
    """A small classifier; arguments go to the graph."""

    def make(in_channels=1, num_classes=46, **kwargs):
        graph = RSTGToVec(8, **{"scales": (2, 1), "num_stages": 2, **kwargs})
        return VideoClassifier(FrameCNN(in_channels, (4, 8)), graph, num_classes)

    return make
