import pytest
from example_scripts import load_example
from process_settings import process_settings
from small_videos import make_small_videos


@pytest.fixture(scope="session")
def example():
    return load_example("syncmnist")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small data set of videos."""
    return make_small_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(autouse=True)
def as_before():
    """What a command changes in its process is put back."""
    with process_settings():
        yield


@pytest.fixture
def no_pictures(example, monkeypatch):
    """Pictures, which take most of a short run's time, are not drawn; the folders that they would go to are kept."""
    folders = []
    monkeypatch.setattr(
        example, "draw_pictures", lambda model, clips, confusion, folder, *rest: folders.append(folder) or []
    )
    return folders
