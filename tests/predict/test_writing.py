"""Videos are written in the right colours, whole or not at all."""

from fractions import Fraction

import av
import numpy as np
import pytest
from cases import case
from PIL import Image

from rstg_pyg.datasets.video import stream_video_file
from rstg_pyg.predict.writing import write_video


def frames(count=5):
    """A small patch of one colour that moves over a grey ground of many values."""
    grey = np.random.default_rng(0).integers(60, 120, (48, 64, 1), np.uint8).repeat(3, 2)
    for number in range(count):
        frame = grey.copy()
        frame[16:32, 4 + 8 * number : 20 + 8 * number] = (255, 183, 3)
        yield frame


@pytest.mark.parametrize("ending", ["webm", "mp4", "gif"])
def test_colours_and_the_rate_come_back(tmp_path, ending):
    path = tmp_path / f"new/o.{ending}"
    write_video(path, frames(), Fraction(10))
    back = [frame.numpy().astype(int) for frame in stream_video_file(path)]
    assert len(back) == 5
    for number, frame in enumerate(back):
        patch = frame[20:28, 8 + 8 * number : 16 + 8 * number].mean((0, 1))
        assert abs(patch - np.array([255, 183, 3])).max() < 25
        assert abs(frame[2:14] - next(frames())[2:14]).mean() < 12
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 10


def test_a_gif_of_a_fast_video_plays_as_long(tmp_path):
    """No delay is below two hundredths of a second, which viewers take for ten."""
    for rate, count in [(Fraction(60), 60), (Fraction(240), 240), (Fraction(30000, 1001), 30)]:
        with case(rate, count):
            write_video(tmp_path / "o.gif", frames(count), rate)
            with Image.open(tmp_path / "o.gif") as image:
                delays = [image.seek(number) or image.info["duration"] for number in range(image.n_frames)]
            assert min(delays) >= 20
            assert abs(sum(delays) - 1000) <= 20


@pytest.mark.parametrize("ending", ["webm", "mp4", "gif"])
def test_frames_are_encoded_as_they_come(tmp_path, ending):
    made = []

    def broken():
        for frame in frames(3):
            made.append([(path.name[:2], path.suffix) for path in tmp_path.iterdir()])
            yield frame
        raise RuntimeError("no more")

    path = tmp_path / f"o.{ending}"
    with pytest.raises(RuntimeError, match="no more"):
        write_video(path, broken(), Fraction(10))
    assert made == [[("o.", ".part")]] * 3
    assert list(tmp_path.iterdir()) == []


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file ending in \.webm, \.mp4, \.gif, got o\.png"):
        write_video("o.png", frames(), Fraction(10))
    for ending in ("webm", "mp4", "gif"):
        with pytest.raises(ValueError, match=r"expected at least one frame for .*, got none"):
            write_video(tmp_path / f"o.{ending}", [], Fraction(10))
        message = rf"expected frames of shape \[48, 64, 3\] for .*o\.{ending}, got \[24, 64, 3\] at frame 2"
        with pytest.raises(ValueError, match=message):
            write_video(tmp_path / f"o.{ending}", [next(frames()), next(frames())[:24]], Fraction(10))
    for ending in ("webm", "mp4"):
        with pytest.raises(ValueError, match=rf"expected frames with even sides for .*o\.{ending}, got 47 x 64"):
            write_video(tmp_path / f"o.{ending}", [next(frames())[1:]], Fraction(10))
    assert list(tmp_path.iterdir()) == []
