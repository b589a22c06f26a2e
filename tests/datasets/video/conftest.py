import shutil

import pytest

from rstg_pyg.datasets import SomethingSomething
from rstg_pyg.datasets.made_videos import make_videos

SMALL = {"clips": 8, "validation_clips": 4, "height": 32, "frames": (6, 14)}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """One small data set in each format, not to be changed."""
    root = tmp_path_factory.mktemp("made")
    for version in ("v1", "v2"):
        make_videos(root / version, version, **SMALL)
    return root


@pytest.fixture(params=["v1", "v2"])
def version(request):
    return request.param


@pytest.fixture
def make(made):
    """Makes datasets over the made files, with small clips."""

    def make_dataset(version="v1", split="train", root=None, **kwargs):
        root = made / version if root is None else root
        return SomethingSomething(root, version, split, **{"num_frames": 8, "size": 24, **kwargs})

    return make_dataset


@pytest.fixture
def copied(made, tmp_path):
    """A copy of a made data set, to be damaged."""

    def copy(version):
        return shutil.copytree(made / version, tmp_path / version)

    return copy
