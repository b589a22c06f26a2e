"""What a predictor says is what its network says of clips, in constant memory."""

import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from cases import case
from small_predictors import CLASSES, network
from small_videos import write_recording

from rstg_pyg.datasets.video import spread_indices, stream_video_file, write_frame_folder
from rstg_pyg.files import open_file
from rstg_pyg.predict import Predictor, VideoSource
from rstg_pyg.predict.source import square_box, to_square
from rstg_pyg.predict.stream import FrameSampler

ROWS = ["c2d", "c2d+rstg:vec", "i3d", "i3d+rstg:vec", "i3d+rstg:res3-4"]


def pixels(count, height=40, width=54):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("row", ["c2d+rstg:vec", "nonlocal", "i3d+rstg:res3-4"])
def test_the_whole_of_a_video_gives_the_logits_of_the_evaluation(predictor, videos, row):
    for video, path in (*videos("v1"), *videos("v2")):
        said = list(predictor(row).whole(VideoSource(path)))
        with torch.no_grad():
            expected = predictor(row).model(video)[0]
        assert all(torch.equal(prediction.logits, expected) for prediction in said)
        assert [prediction.index for prediction in said] == list(range(sum(1 for _ in VideoSource(path))))
        if "+" in row:
            assert {prediction.attention.shape for prediction in said} == {(90,)}
            assert not torch.equal(said[0].attention, said[-1].attention)


@torch.no_grad()
def test_a_stream_says_what_the_clip_so_far_does(predictor):
    for row in ["c2d", "c2d+rstg:vec"]:
        with case(row):
            frames = pixels(7)
            clip = to_square(frames, 32)[None]
            said = list(predictor(row).stream(frames))
            assert said[0].logits is None
            assert said[0].probabilities is None
            assert said[0].top() == []
            for index, prediction in enumerate(said[1:], start=1):
                torch.testing.assert_close(prediction.logits, predictor(row).model(clip[:, :, : index + 1])[0])
                assert prediction.index == index
                assert torch.equal(prediction.frame, frames[index])
            if "+" in row:
                _, attention = predictor(row).clip(clip[0])
                torch.testing.assert_close(said[3].attention, attention[:, 1])
                torch.testing.assert_close(said[6].attention, attention[:, 2])


def test_a_camera_that_writes_into_one_array_gives_what_frames_do(predictor):
    def camera():
        array = np.empty((40, 48, 3), dtype=np.uint8)
        for frame in frames:
            array[...] = frame.numpy()
            yield array

    frames = pixels(7)[:, :40, :48]
    for one, other in zip(predictor("c2d").stream(camera()), predictor("c2d").stream(frames), strict=True):
        assert torch.equal(one.frame, other.frame)
        assert (one.logits is None and other.logits is None) or torch.equal(one.logits, other.logits)


@torch.no_grad()
def test_windows_are_averaged_and_the_last_ends_with_the_video(predictor):
    for count, windows in [
        (12, [(0, 4), (2, 6), (4, 8), (6, 10), (8, 12)]),
        (7, [(0, 4), (2, 6), (3, 7)]),
        (4, [(0, 4)]),
    ]:
        with case(count, windows):
            clip = to_square(pixels(count), 32)[None]
            said = list(predictor("i3d+rstg:res3-4").stream(pixels(count), window=4))
            each = torch.cat([predictor("i3d+rstg:res3-4").model(clip[:, :, first:last]) for first, last in windows])
            torch.testing.assert_close(said[-1].logits, each.mean(0))
            assert [prediction.logits is None for prediction in said] == [index < 3 for index in range(count - 1)] + [
                False
            ]
            torch.testing.assert_close(said[3].logits, each[0])
            _, attention = predictor("i3d+rstg:res3-4").clip(clip[0, :, slice(*windows[-1])])
            torch.testing.assert_close(said[-1].attention, attention[:, -1])


@torch.no_grad()
def test_short_videos_are_spread_over_a_window(predictor):
    for count in [1, 2, 5]:
        with case(count):
            clip = to_square(pixels(count), 32)[:, spread_indices(count, 8)[0]]
            said = list(predictor("i3d").stream(pixels(count)))
            assert torch.equal(said[-1].logits, predictor("i3d").model(clip[None])[0])
            assert len(said) == count


@torch.no_grad()
def test_a_single_frame_counts_twice_for_a_network_of_pairs(predictor):
    clip = to_square(pixels(1), 32)[None]
    said = list(predictor("c2d").stream(pixels(1)))
    torch.testing.assert_close(said[0].logits, predictor("c2d").model(torch.cat([clip, clip], 2))[0])


def test_frames_are_taken_as_the_evaluation_takes_them():
    for count, taken in [(40, 8), (8, 8), (5, 8), (13, 8), (30, 7), (1, 3)]:
        with case(count, taken):
            sampler = FrameSampler(Fraction(count, taken))
            found = [index for index in range(count) for _ in range(sampler.times())]
            assert found == spread_indices(count, taken)[0].tolist()


def test_the_rate_covers_four_seconds_with_a_clip(predictor):
    frames = pixels(24)
    by_default = list(predictor("c2d").stream(frames, source_rate=12))
    chosen = list(predictor("c2d").stream(frames, source_rate=12, frames_per_second=2))
    slower = list(predictor("c2d").stream(frames, source_rate=12, frames_per_second=4))
    assert torch.equal(by_default[-1].logits, chosen[-1].logits)
    assert not torch.equal(slower[-1].logits, chosen[-1].logits)
    torch.testing.assert_close(chosen[-1].logits, list(predictor("c2d").stream(frames[3::6]))[-1].logits)
    assert len(by_default) == 24


def test_a_recording_is_seen_at_the_times_of_its_frames(predictor, tmp_path):
    times = [0, 33, 67, 100, 900, 1500, 2000, 2033, 2500, 3500, 4500, 4675]
    path = write_recording(tmp_path / "a.webm", pixels(12).numpy(), times)
    source = VideoSource(path)
    frames = list(stream_video_file(path))
    said = list(predictor("c2d").stream(source, source_rate=source.rate, frames_per_second=2))
    # The 5.1 seconds from the first frame to the end of the last.
    looks = [frames[np.searchsorted(times, 250 + 500 * k, side="right") - 1] for k in range(10)]
    torch.testing.assert_close(said[-1].logits, list(predictor("c2d").stream(looks))[-1].logits)
    assert abs(len(said) / source.rate - 5.1) < 1 / source.rate
    assert len(list(predictor("i3d+rstg:vec").whole(source))) == len(said)
    # Whoever gives a rate wants each frame once.
    given = VideoSource(path, 6)
    assert [given.rate, len(list(given))] == [6, 12]
    assert len(list(predictor("i3d+rstg:vec").whole(given))) == 12


def test_a_video_shorter_than_the_time_between_two_frames_is_looked_at(predictor):
    frames = pixels(2)
    said = list(predictor("c2d").stream(frames, source_rate=12, frames_per_second=1))
    torch.testing.assert_close(said[-1].logits, list(predictor("c2d").stream(frames[1:]))[-1].logits)


@pytest.mark.parametrize("row", ["c2d+rstg:vec", "i3d"])
def test_no_frame_is_kept(predictor, row):
    alive = weakref.WeakSet()

    def frames(count):
        for _ in range(count):
            # A tensor of its own, which nobody can hold unseen.
            frame = torch.zeros(40, 40, 3, dtype=torch.uint8)
            alive.add(frame)
            yield frame
            del frame

    def most(count):
        highest = 0
        for _ in predictor(row).stream(frames(count), window=4 if row == "i3d" else None):
            highest = max(highest, len(alive))
        return highest

    assert most(5) == most(20) <= 3


def test_a_file_of_weights_is_read_once(weights, monkeypatch):
    read = []
    monkeypatch.setattr("rstg_pyg.training.weights.open_file", lambda path: read.append(path) or open_file(path))
    Predictor.from_checkpoint(weights("c2d"))
    assert read == [weights("c2d")]


def test_streams_of_one_predictor_take_turns(predictor):
    first, second = (pixels(count)[:4] for count in (4, 5))
    streams = [predictor("c2d+rstg:vec").open() for _ in range(2)]
    for pair in zip(first, second, strict=True):
        said = [live.push(frame) for live, frame in zip(streams, pair, strict=True)]
    for live, one, frames in zip(streams, said, (first, second), strict=True):
        alone = list(predictor("c2d+rstg:vec").stream(frames))[-1]
        assert torch.equal(live.finish().logits, alone.logits)
        assert torch.equal(one.attention, alone.attention)


def test_which_rows_do_what(predictor):
    assert [predictor(row).carries_state for row in ROWS] == [True, True, False, False, False]
    assert [predictor(row).graph is None for row in ROWS] == [True, False, True, False, False]
    assert predictor("c2d").clip(to_square(pixels(4), 32))[1] is None


def test_the_box_is_what_the_network_sees():
    for height, width in [(40, 54), (54, 40), (240, 427), (31, 31)]:
        with case(height, width):
            top, left, bottom, right = square_box(height, width, 32)
            assert bottom - top == pytest.approx(min(height, width), rel=0.02)
            assert right - left == pytest.approx(min(height, width), rel=0.02)
            assert (top + bottom) / 2 == pytest.approx(height / 2, abs=height / 60)
            assert (left + right) / 2 == pytest.approx(width / 2, abs=width / 60)


def test_errors(predictor, tmp_path):
    def refused(message, call):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message

    c2d, i3d = predictor("c2d"), predictor("i3d")
    refused(
        "expected no 'window' and no 'stride' for a network that carries a state, got one", lambda: c2d.open(stride=2)
    )
    refused("expected 'window' to be an integer of at least 2, got 1", lambda: i3d.open(window=1))
    refused("expected 'stride' to be an integer within 1 to 8, got 9", lambda: i3d.open(stride=9))
    refused("expected 'stride' to be an integer within 1 to 8, got 1.5", lambda: i3d.open(stride=1.5))
    assert c2d.open(np.float32(30), np.int64(2)) is not None
    refused("expected 'source_rate' with 'frames_per_second', got none", lambda: c2d.open(frames_per_second=2))
    refused("expected 'source_rate' to be frames a second, above 0, got 0", lambda: c2d.open(source_rate=0))
    live = c2d.open()
    refused("expected frames before the end, got none", live.finish)
    live.push(pixels(1)[0])
    refused("expected frames of one size, got 40 x 54 and 54 x 40", lambda: live.push(pixels(1, 54, 40)[0]))
    refused(
        "expected a frame of shape [H, W, 3], uint8, got torch.float32 of shape [3, 40, 54]",
        lambda: live.push(torch.rand(3, 40, 54)),
    )
    assert live.push(pixels(1)[0].numpy()[:, ::-1]).index == 1  # of a library that gives arrays
    live.finish()
    refused("expected no frame after the last, got one", lambda: live.push(pixels(1)[0]))
    refused("expected the names of 6 classes, got 2", lambda: Predictor(network("c2d"), CLASSES[:2], 8, 32))
    with pytest.raises(ValueError, match="expected a device that torch can use, got 'abc': "):
        Predictor(network("c2d"), CLASSES, 8, 32, device="abc")
    write_frame_folder(tmp_path / "17", np.zeros((2, 8, 10, 3), np.uint8))
    assert VideoSource(tmp_path / "17").rate == 12
    refused("expected 'rate' to be frames a second, above 0, got -1", lambda: VideoSource(tmp_path / "17", -1))
