"""Frames of files: what was encoded comes back, and damage is named."""

import re
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

from rstg_pyg.datasets.video import (
    TEMPLATES,
    Damage,
    DamagedVideoError,
    draw_clip,
    every_frame,
    read_frame_folder,
    read_video_file,
    stream_video_file,
    write_frame_folder,
    write_video_file,
)
from rstg_pyg.datasets.video.video_files import _webm_length

FRAMES = draw_clip(TEMPLATES[0], 0, 0, 20, 64, 96).frames


@pytest.fixture(params=["jpeg", "vp8", "vp9"])
def video(request, tmp_path):
    """A written video and what reads it."""
    if request.param == "jpeg":
        write_frame_folder(tmp_path / "5", FRAMES)
        return tmp_path / "5", read_frame_folder
    write_video_file(tmp_path / "5.webm", FRAMES, codec=request.param)
    return tmp_path / "5.webm", read_video_file


def test_what_was_encoded_comes_back(video):
    path, read = video
    frames, places = read(path, every_frame)
    assert frames.dtype == torch.uint8 and frames.shape == (20, 64, 96, 3)
    assert places.tolist() == list(range(20))
    differences = np.abs(frames.numpy().astype(int)[:, None] - FRAMES[None]).mean((2, 3, 4))
    assert differences.diagonal().max() < 6
    # Every frame is nearer to its own original than to any other, where the thing moves.
    assert (differences.argmin(1) == np.arange(20))[6:14].all()


def test_only_wanted_frames_are_kept_each_once(video):
    path, read = video
    every, _ = read(path, every_frame)
    wanted = np.array([[3, 3, 19], [0, 7, 3]])
    counts = []
    frames, places = read(path, lambda count: counts.append(count) or wanted)
    assert counts == [20]
    assert frames.shape[0] == 4
    assert places.shape == (2, 3)
    assert torch.equal(frames[torch.from_numpy(places)], every[torch.from_numpy(wanted)])


def test_a_stream_has_the_same_frames(tmp_path):
    write_video_file(tmp_path / "a.webm", FRAMES)
    assert torch.equal(
        torch.stack(list(stream_video_file(tmp_path / "a.webm"))), read_video_file(tmp_path / "a.webm", every_frame)[0]
    )


def test_files_whose_packets_are_not_their_frames(tmp_path):
    """Some packets hold frames that are for reference only and never shown, as encoders that look ahead make them."""
    write_video_file(tmp_path / "a.webm", FRAMES, codec="vp8")
    with av.open(str(tmp_path / "a.webm")) as source, av.open(str(tmp_path / "b.webm"), "w", format="webm") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                content = bytearray(bytes(packet))
                if number in (4, 9, 10):
                    # The bit that has a frame of VP8 shown, RFC 6386, section 9.1.
                    content[0] &= ~0x10
                changed = av.Packet(bytes(content))
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.is_keyframe, changed.stream = packet.is_keyframe, stream
                target.mux(changed)
    every, _ = read_video_file(tmp_path / "a.webm", every_frame)
    shown = [i for i in range(20) if i not in (4, 9, 10)]
    counts = []
    frames, places = read_video_file(tmp_path / "b.webm", lambda count: counts.append(count) or np.arange(count))
    assert counts == [20, 17]
    assert torch.equal(frames, every[shown])
    assert places.tolist() == list(range(17))


def test_other_files_in_a_folder_do_not_count(tmp_path):
    write_frame_folder(tmp_path, FRAMES[:3])
    for name in (".DS_Store", "Thumbs.db", "1.jpg", "000004.jpg", "00004.png"):
        (tmp_path / name).write_bytes(b"x")
    assert len(read_frame_folder(tmp_path, every_frame)[0]) == 3


def test_grey_frames_become_rgb(tmp_path):
    Image.new("L", (10, 8), 90).save(tmp_path / "00001.jpg")
    assert (read_frame_folder(tmp_path, every_frame)[0] == 90).all()


# Damage


def damaged(read, path, damage, message):
    with pytest.raises(DamagedVideoError, match=re.escape(message)) as error:
        read(path, every_frame)
    assert error.value.damage == damage


def test_damaged_folders(tmp_path):
    folder = tmp_path / "5"
    damaged(read_frame_folder, folder, Damage.MISSING, f"expected a folder {folder}, got No such file or directory")
    folder.mkdir()
    damaged(read_frame_folder, folder, Damage.EMPTY, f"expected frames 00001.jpg, ... in {folder}, got none")
    write_frame_folder(folder, FRAMES[:4])
    whole = (folder / "00002.jpg").read_bytes()

    (folder / "00002.jpg").unlink()
    damaged(
        read_frame_folder, folder, Damage.GAP, f"expected frames 00001.jpg to 00004.jpg in {folder}, got no 00002.jpg"
    )
    for content, damage, what in (
        (whole[: len(whole) // 2], Damage.TRUNCATED, "image file is truncated"),
        (whole[:30], Damage.TRUNCATED, ""),
        (b"", Damage.EMPTY, "an empty file"),
        (b"no image" * 50, Damage.UNREADABLE, "cannot identify image file"),
    ):
        (folder / "00002.jpg").write_bytes(content)
        damaged(read_frame_folder, folder, damage, f"expected a JPEG image in {folder}/00002.jpg, got {what}")
        # Frames that are not wanted are not read.
        assert len(read_frame_folder(folder, lambda count: np.array([0, 2, 3]))[0]) == 3
    Image.new("RGB", (10, 8)).save(folder / "00002.jpg")
    damaged(
        read_frame_folder,
        folder,
        Damage.MIXED_SIZES,
        f"expected frames of one size in {folder}, got 64 x 96 and 8 x 10",
    )


@pytest.mark.parametrize("codec", ["vp8", "vp9"])
def test_damaged_files(tmp_path, codec):
    path = tmp_path / "5.webm"
    damaged(read_video_file, path, Damage.MISSING, f"expected a file {path}, got No such file or directory")
    write_video_file(path, FRAMES, codec=codec)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) * 95 // 100, len(whole) // 2, 500, 100):
        path.write_bytes(whole[:length])
        damaged(read_video_file, path, Damage.TRUNCATED, f"expected {len(whole)} bytes in {path}, got {length}")
        with pytest.raises(DamagedVideoError):
            next(stream_video_file(path))
    for content, damage, what in (
        (b"", Damage.EMPTY, f"expected a video in {path}, got an empty file"),
        (whole[:20], Damage.UNREADABLE, f"expected a video in {path}, got "),
        (b"no video" * 50, Damage.UNREADABLE, f"expected a video in {path}, got Invalid data found"),
    ):
        path.write_bytes(content)
        damaged(read_video_file, path, damage, what)


def test_length_of_a_file_by_its_own_account(tmp_path):
    write_video_file(tmp_path / "a.webm", FRAMES[:2])
    whole = (tmp_path / "a.webm").read_bytes()
    assert _webm_length(whole[:256]) == len(whole)
    segment = whole.index(bytes.fromhex("18538067")) + 4
    live = whole[:segment] + bytes.fromhex("01ffffffffffffff") + whole[segment + 8 :]
    assert _webm_length(live) is None
    short = whole[:segment] + bytes.fromhex("4123") + whole[segment + 8 :]
    assert _webm_length(short) == segment + 2 + 0x123
    for start in (b"", b"RIFF", whole[:4], whole[:5], whole[: segment - 1], whole[:segment], whole[: segment + 3]):
        assert _webm_length(start) is None


def test_files_without_a_picture(tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    damaged(read_video_file, tmp_path / "a.webm", Damage.UNREADABLE, f"expected a video in {tmp_path}/a.webm, got none")


def test_errors_of_writing(tmp_path):
    with pytest.raises(ValueError, match=r"expected at least one frame for .*a\.webm, got none"):
        write_video_file(tmp_path / "a.webm", [])
    with pytest.raises(ValueError, match=r"expected frames with even sides for .*a\.webm, got 63 x 96"):
        write_video_file(tmp_path / "a.webm", FRAMES[:, 1:])
    with pytest.raises(ValueError, match="'codec' to be one of 'vp9', 'vp8', got 'h264'"):
        write_video_file(tmp_path / "a.webm", FRAMES, codec="h264")


def test_what_is_not_installed_is_named(made):
    code = (
        "import sys; sys.modules['av'] = sys.modules['PIL'] = None\n"
        "from rstg_pyg.datasets import SomethingSomething\n"
        # Python would warn of a command whose module is there already.
        "assert not {'rstg_pyg.datasets.made_videos', 'rstg_pyg.datasets.video.checking'} & set(sys.modules)\n"
        "for version in ('v1', 'v2'):\n"
        "    try:\n"
        "        SomethingSomething(f'{sys.argv[1]}/{version}', version)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=True)
    advice = "is not installed. Install it with 'pip install \"rstg-pyg[video]\"'"
    assert done.stdout.splitlines() == [
        f"Pillow, which reads and writes JPEG frames, {advice}",
        f"PyAV, which reads and writes video files, {advice}",
    ]
