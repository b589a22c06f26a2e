"""Clips in motion, read back."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.animation import FFMpegWriter
from matplotlib.colors import to_rgb
from PIL import Image

from rstg_pyg import region_graph
from rstg_pyg.visualize import animate_clips, pair_names
from rstg_pyg.visualize.animation import _Page
from rstg_pyg.visualize.clip_set import check_clips
from rstg_pyg.visualize.sheet import INK, MARK, TRUE, WRONG

GRAPH = region_graph((3, 2, 1))
VIDEOS = torch.rand(4, 10, 32, 32, generator=torch.Generator().manual_seed(0))
ALPHA = torch.rand(90, 4, 10, generator=torch.Generator().manual_seed(1))


def frames_of(path):
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield np.array(image.convert("RGB")), image.info["duration"]


def test_a_gif_has_every_frame_and_holds_the_last(tmp_path):
    animate_clips(VIDEOS[:1, :5], None, None, tmp_path / "clip.gif", fps=4, hold=3)
    frames = list(frames_of(tmp_path / "clip.gif"))
    # Pillow stores equal frames as one that stays longer.
    assert [duration for _, duration in frames] == [250, 250, 250, 250, 750]
    assert all((before != after).any() for (before, _), (after, _) in pairwise(frames))


def test_a_gif_of_a_fast_clip_plays_as_long(tmp_path):
    """No delay is below two hundredths of a second, which viewers take for ten; the last frame is there."""
    animate_clips(VIDEOS[:1, 9:], None, None, tmp_path / "last.gif", dpi=40)
    (last, _), *_ = frames_of(tmp_path / "last.gif")
    for fps, shown in ((30, 10), (60, 7), (240, 3)):
        animate_clips(VIDEOS[:1], None, None, tmp_path / "clip.gif", fps=fps, hold=2, dpi=40)
        frames = list(frames_of(tmp_path / "clip.gif"))
        delays = [duration for _, duration in frames]
        assert len(frames) == shown
        assert min(delays) >= 20
        assert abs(sum(delays) - 11_000 / fps) <= 20
        panel = np.s_[10:70, 20:100]
        assert np.abs(frames[-1][0][panel].astype(int) - last[panel]).mean() < 8


def test_four_clips_are_below_two_hundred_kilobytes_a_frame(tmp_path):
    path = tmp_path / "clips.gif"
    labels, marks = torch.tensor([0, 1, 2, 45]), torch.full((4, 3, 2, 4), 5.0)
    probabilities = torch.rand(4, 3, 46).softmax(-1)
    animate_clips(
        VIDEOS[:, :3], GRAPH, ALPHA[..., :3], str(path), marks=marks, title="clips", probabilities=probabilities,
        labels=labels, classes=pair_names(), hold=1,
    )  # fmt: skip
    assert len(list(frames_of(path))) == 3
    assert path.stat().st_size < 600_000


def test_a_mark_moves_with_its_frame(tmp_path):
    """Without arrows or regions, the pixels of the mark's colour are those of its box."""
    marks = torch.zeros(1, 2, 1, 4)
    marks[0, :, 0] = torch.tensor([[4.5, 4.5, 12.5, 12.5], [14.5, 18.5, 22.5, 26.5]])
    animate_clips(torch.zeros(1, 2, 32, 32), None, None, tmp_path / "clip.gif", marks=marks, hold=1, dpi=100)
    seen = []
    for frame, _ in frames_of(tmp_path / "clip.gif"):
        near = np.abs(frame / 255 - to_rgb(MARK)).max(-1) < 0.2
        rows, columns = np.nonzero(near[:195])  # above the legend
        seen.append((rows.min(), columns.min(), rows.max(), columns.max()))
    pixel = 1.8 * 100 / 32
    assert np.subtract(*seen[::-1]) == pytest.approx(np.array([10, 14, 10, 14]) * pixel, abs=2)
    assert seen[0][2] - seen[0][0] == pytest.approx(8 * pixel, abs=3)


@pytest.fixture
def page():
    probabilities = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.2, 0.7, 0.1, 0.0], [0.15, 0.05, 0.6, 0.2]])

    def make(labels, captions=None, videos=VIDEOS[:1, :3]):
        given = None if captions else probabilities[None]
        names = None if captions else ["a", "b", "c", "d"]
        return _Page(check_clips(videos, None, None, captions, None, given, labels, names), None, "", 4, 8)

    return make


def test_the_prediction_evolves_and_its_colour_says_whether_it_is_right(page):
    shown, said = page([1]), []
    for t in range(3):
        shown.show(t)
        (_, below, title, _) = shown.places[0]
        said.append((title.get_text(), title.get_color(), shown.counter.get_text()))
        # The classes that lead in the end, at every frame in the same order.
        assert [text.get_text() for text in below.texts[::2]] == ["c", "d", "a", "b (true)"]
    assert said == [("a  50%", WRONG, "1 / 3"), ("b  70%", TRUE, "2 / 3"), ("c  60%", WRONG, "3 / 3")]
    assert [text.get_text() for text in below.texts[1::2]] == ["60%", "20%", "15%", "5%"]


def test_without_labels_nothing_is_right_or_wrong_and_captions_take_the_place_of_predictions(page):
    shown = page(None)
    shown.show(0)
    assert shown.places[0][2].get_color() == INK
    shown = page(None, captions=["a clip"])
    shown.show(2)
    assert shown.places[0][2].get_text() == "a clip"
    assert shown.places[0][1] is None


def test_colour_clips_and_several_rows(tmp_path):
    animate_clips(torch.rand(3, 2, 8, 16, 3), None, None, tmp_path / "clip.gif", columns=2)
    assert len(list(frames_of(tmp_path / "clip.gif"))) == 2


@pytest.mark.skipif(not FFMpegWriter.isAvailable(), reason="needs ffmpeg")
def test_an_mp4(tmp_path):
    animate_clips(VIDEOS[:1, :3], GRAPH, None, tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"


def test_an_mp4_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    message = r"^expected the program 'ffmpeg' to write '.*clip\.mp4' with, found none: install it or take a \.gif$"
    with pytest.raises(RuntimeError, match=message):
        animate_clips(VIDEOS, None, None, tmp_path / "clip.mp4")


@pytest.mark.parametrize("fails_at", [0, 2])
def test_what_fails_midway_leaves_the_old_picture(tmp_path, monkeypatch, fails_at):
    def show(page, t):
        if t == fails_at:
            raise RuntimeError(f"no frame {t}")

    monkeypatch.setattr(_Page, "show", show)
    (tmp_path / "clip.gif").write_text("from before")
    with pytest.raises(RuntimeError, match=f"no frame {fails_at}"):
        animate_clips(VIDEOS[:1], None, None, tmp_path / "clip.gif")
    assert (tmp_path / "clip.gif").read_text() == "from before"
    assert [path.name for path in tmp_path.iterdir()] == ["clip.gif"]


ERRORS = [
    ({"path": "clip.avi"}, ValueError, r"expected 'path' to end in \.gif or \.mp4, got 'clip\.avi'"),
    ({"path": "none/clip.gif"}, FileNotFoundError, "expected a folder to write 'none/clip.gif' to, got 'none', wh"),
    ({"fps": 0}, ValueError, "expected 'fps' and 'dpi' to be positive, got 0 and 90"),
    ({"columns": 0}, ValueError, "expected 'columns' to be a positive int, got 0"),
    ({"hold": 0}, ValueError, "expected 'hold' to be a positive int, got 0"),
    ({"strongest": -1}, ValueError, "expected 'strongest' to be an integer of at least 0, got -1"),
    ({"strongest": 2.5}, ValueError, "expected 'strongest' to be an integer of at least 0, got 2.5"),
    ({"alpha": ALPHA[:, :, :5]}, ValueError, r"expected alpha of shape \[90, 4, 10\], got \[90, 4, 5\]"),
]


def test_errors():
    for changes, error, message in ERRORS:
        with pytest.raises(error, match=f"^{message}"):
            animate_clips(**{"videos": VIDEOS, "graph": GRAPH, "alpha": ALPHA, "path": "clip.gif", **changes})
