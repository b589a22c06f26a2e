import pytest
from small_videos import make_small_videos


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """The folder of a small data set of videos, to be left as it is."""
    return make_small_videos(tmp_path_factory.mktemp("videos"))
