import pytest
from small_predictors import CLASSES, network, write_weights

from rstg_pyg.datasets import SomethingSomething
from rstg_pyg.datasets.made_videos import make_videos
from rstg_pyg.predict import Predictor


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """One small data set in each format, with odd and even numbers of frames, not to be changed."""
    root = tmp_path_factory.mktemp("made")
    for version in ("v1", "v2"):
        make_videos(root / version, version, clips=2, validation_clips=3, height=40, frames=(6, 13), codec="vp8")
    return root


@pytest.fixture(scope="session")
def videos(made):
    """The validation videos of each format as the evaluation sees them, and where they lie."""

    def read(version):
        dataset = SomethingSomething(made / version, version, "validation", num_frames=8, size=32)
        return [(dataset[i].video, dataset.video_path(i)) for i in range(len(dataset))]

    return read


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """The file of a row's network."""
    folder, files = tmp_path_factory.mktemp("weights"), {}

    def write(row):
        if row not in files:
            files[row] = write_weights(folder / f"{len(files)}.pt", row)
        return files[row]

    return write


@pytest.fixture(scope="session")
def predictor():
    """A predictor of a row."""
    made = {}

    def make(row):
        if row not in made:
            made[row] = Predictor(network(row), CLASSES, num_frames=8, size=32)
        return made[row]

    return make
