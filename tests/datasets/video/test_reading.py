"""Frames of files: what was encoded comes back, and damage is named."""

import gc
import os
import re
import struct
import sys
import wave
import zlib

import av
import numpy as np
import pytest
import torch
from PIL import Image
from small_videos import write_recording

from rstg_pyg.datasets.video import (
    TEMPLATES,
    Damage,
    DamagedVideoError,
    SomethingSomething,
    draw_clip,
    every_frame,
    read_frame_folder,
    read_video_file,
    spread_indices,
    stream_video_file,
    write_frame_folder,
    write_video_file,
)
from rstg_pyg.datasets.video.frame_folders import list_frames, read_frame
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


def test_frames_do_not_wait_for_the_garbage_collector(tmp_path):
    """They would pile up, and hold threads that stop workers which are forked. The first of a file does, without."""
    write_video_file(tmp_path / "a.webm", FRAMES)
    gc.collect()
    gc.disable()
    try:
        read_video_file(tmp_path / "a.webm", every_frame)
        assert len(list(stream_video_file(tmp_path / "a.webm"))) == 20
        assert sum(type(each) is av.VideoFrame for each in gc.get_objects()) <= 2
    finally:
        gc.enable()


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
    frames, places = read_video_file(
        tmp_path / "b.webm", lambda count: counts.append(count) or spread_indices(count, 20)[0]
    )
    assert counts == [20, 50]
    assert torch.equal(frames, every[shown])
    # Where one was left out, the one before stays.
    assert places.tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 7, *range(8, 17)]


def test_frames_that_come_unevenly_are_chosen_by_their_times(tmp_path):
    times = [0, 33, 67, 100, 900, 1500, 2000, 2033, 2500, 3500, 4500, 4700]
    path = write_recording(tmp_path / "a.webm", FRAMES[:12], times)
    every, _ = read_video_file(path, every_frame)
    assert len(every) == 12
    frames, places = read_video_file(path, lambda count: spread_indices(count, 10)[0])
    # As if the last stayed for as long as the others do on average.
    middles = (np.arange(10) + 0.5) * (4700 * 12 / 11) / 10
    wanted = (np.searchsorted(times, middles, side="right") - 1).tolist()
    assert torch.equal(frames[torch.from_numpy(places)], every[wanted])


MATRICES = [
    ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1, (1, 2))),
    ((0, -1, 1, 0), lambda pixels: np.rot90(pixels, 1, (1, 2))),
    ((-1, 0, 0, -1), lambda pixels: np.rot90(pixels, 2, (1, 2))),
    ((-1, 0, 0, 1), lambda pixels: pixels[:, :, ::-1]),
]


def test_videos_are_turned_as_the_file_says(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for pixels in FRAMES[:3]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    plain = read_video_file(path, every_frame)[0].numpy()
    content = bytearray(path.read_bytes())
    for matrix, turn in MATRICES:
        # Of the track's header, as a phone writes it: 16-bit fractions, row by row (ISO/IEC 14496-12, 8.3.2).
        a, b, c, d = (value << 16 for value in matrix)
        struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(content)
        for frames in (read_video_file(path, every_frame)[0], torch.stack(list(stream_video_file(path)))):
            assert np.array_equal(frames.numpy(), turn(plain)), matrix


def test_images_are_turned_as_the_file_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(FRAMES[0]).save(tmp_path / "00001.png", exif=exif)
    assert np.array_equal(read_frame_folder(tmp_path, every_frame)[0][0], np.rot90(FRAMES[0], -1))


def test_text_in_an_old_encoding_does_not_matter(tmp_path):
    write_video_file(tmp_path / "a.webm", FRAMES[:2])
    content = (tmp_path / "a.webm").read_bytes()
    (tmp_path / "a.webm").write_bytes(content.replace(b"Lavf", b"L\xe9vf"))
    assert len(read_video_file(tmp_path / "a.webm", every_frame)[0]) == 2


FORMS = [("{:06d}.jpg", 0), ("img_{:05d}.jpg", 1), ("{:05d}.png", 1), ("v2-{}.JPEG", 0), ("image_{:d}.jpeg", 1)]


@pytest.mark.parametrize(("form", "first"), FORMS)
def test_frames_are_named_as_copies_have_them(tmp_path, form, first):
    for number in range(12):
        (tmp_path / form.format(first + number)).touch()
        (tmp_path / f"flow_x_{number:05d}.jpg").touch()
        (tmp_path / f".{form.format(first + number)}").touch()
    (tmp_path / "cover.jpg").touch()
    (tmp_path / "thumbnail_1.jpg").touch()
    assert list_frames(tmp_path) == [form.format(first + number) for number in range(12)]
    (tmp_path / form.format(first + 7)).unlink()
    names = [form.format(first + number) for number in (0, 11, 7)]
    with pytest.raises(DamagedVideoError, match=re.escape("expected frames {} to {} in ".format(*names))) as error:
        list_frames(tmp_path)
    assert str(error.value).endswith(f"got no {names[2]}") and error.value.damage == Damage.GAP


def test_other_files_in_a_folder_do_not_count(tmp_path):
    write_frame_folder(tmp_path, FRAMES[:3])
    for name in (".DS_Store", "Thumbs.db", "1.jpg", "000004.jpg", "00004.png"):
        (tmp_path / name).write_bytes(b"x")
    assert len(read_frame_folder(tmp_path, every_frame)[0]) == 3
    write_frame_folder(tmp_path, FRAMES[:2])  # over a longer video, and a row of another width
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".DS_Store", "00001.jpg", "00002.jpg", "00004.png", "Thumbs.db"
    ]  # fmt: skip


def test_grey_frames_become_rgb(tmp_path):
    Image.new("L", (10, 8), 90).save(tmp_path / "00001.jpg")
    assert (read_frame_folder(tmp_path, every_frame)[0] == 90).all()
    Image.fromarray(np.full((8, 10), 90 * 257, np.uint16)).save(tmp_path / "00001.png")
    assert (read_frame(tmp_path / "00001.png") == 90).all() and read_frame(tmp_path / "00001.png").shape == (8, 10, 3)


# Damage


def damaged(read, path, damage, message):
    with pytest.raises(DamagedVideoError, match=re.escape(message)) as error:
        read(path, every_frame)
    assert error.value.damage == damage


def test_damaged_folders(tmp_path):
    folder = tmp_path / "5"
    damaged(read_frame_folder, folder, Damage.MISSING, f"expected a folder {folder}, got No such file or directory")
    folder.mkdir()
    looked_for = f"expected numbered frames, such as 00001.jpg, img_00001.jpg or 000000.png, in {folder}, got "
    damaged(read_frame_folder, folder, Damage.EMPTY, f"{looked_for}none")
    (folder / "frame-a.bmp").touch()
    damaged(read_frame_folder, folder, Damage.EMPTY, f"{looked_for}other files, such as frame-a.bmp")
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
        (empty_png(65_500, 65_500), Damage.UNREADABLE, "Image size (4290250000 pixels) exceeds limit"),
        (empty_png(8192, 8193), Damage.UNREADABLE, "one of 8192 x 8193 pixels, more than 67,108,864"),
    ):
        (folder / "00002.jpg").write_bytes(content)
        damaged(read_frame_folder, folder, damage, f"expected a JPEG or PNG image in {folder}/00002.jpg, got {what}")
        # Frames that are not wanted are not read.
        assert len(read_frame_folder(folder, lambda count: np.array([0, 2, 3]))[0]) == 3
    Image.new("RGB", (10, 8)).save(folder / "00002.jpg")
    damaged(
        read_frame_folder,
        folder,
        Damage.MIXED_SIZES,
        f"expected frames of one size in {folder}, got 64 x 96 and 8 x 10",
    )


def empty_png(width, height):
    """An image that says how large it is and has no pixels."""
    chunks = (b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0), b"IDAT")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


@pytest.mark.parametrize("read", [read_frame_folder, read_video_file])
def test_what_is_no_file_is_damaged(tmp_path, read):
    path = tmp_path / "00001.jpg" if read is read_frame_folder else tmp_path / "5.webm"
    video = tmp_path if read is read_frame_folder else path
    path.symlink_to(tmp_path / "gone")
    damaged(read, video, Damage.MISSING, f"expected a file {path}, got No such file or directory")
    path.unlink()
    path.symlink_to(path)
    damaged(read, video, Damage.UNREADABLE, f"expected a file {path}, got Too many levels of symbolic links")
    path.unlink()
    path.mkdir()
    damaged(read, video, Damage.UNREADABLE, f"expected a file {path}, got a folder")
    path.rmdir()
    os.mkfifo(path)
    # Something to read, so that whoever opens it does not wait for ever.
    pipe = os.open(path, os.O_RDWR)
    os.write(pipe, bytes(4096))
    damaged(read, video, Damage.UNREADABLE, f"expected a file {path}, got a pipe or a device")
    os.close(pipe)


def test_a_frame_larger_than_any_camera_makes_is_damaged(tmp_path):
    Image.new("1", (8192, 8193)).save(tmp_path / "a.png")
    damaged(read_video_file, tmp_path / "a.png", Damage.UNREADABLE, f"expected a video in {tmp_path}/a.png, got ")


def test_damaged_files(tmp_path):
    path = tmp_path / "5.webm"
    damaged(read_video_file, path, Damage.MISSING, f"expected a file {path}, got No such file or directory")
    write_video_file(path, FRAMES)
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
    # Not with PyAV: its audio encoders hold threads until the garbage collector comes, which in a forked worker waits.
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 48000, 0, "NONE", None))
        sound.writeframes(bytes(1920))
    damaged(read_video_file, tmp_path / "a.wav", Damage.UNREADABLE, f"expected a video in {tmp_path}/a.wav, got none")


def test_a_codec_that_nothing_decodes_is_damage(tmp_path):
    write_video_file(tmp_path / "a.webm", FRAMES[:2])
    content = (tmp_path / "a.webm").read_bytes()
    (tmp_path / "a.webm").write_bytes(content.replace(b"V_VP9", b"V_XYZ"))
    damaged(read_video_file, tmp_path / "a.webm", Damage.UNREADABLE, "of a kind that FFmpeg decodes, got another")


def test_errors_of_writing(tmp_path):
    with pytest.raises(ValueError, match=r"expected at least one frame for .*a\.webm, got none"):
        write_video_file(tmp_path / "a.webm", [])
    with pytest.raises(ValueError, match=r"expected frames with even sides for .*a\.webm, got 63 x 96"):
        write_video_file(tmp_path / "a.webm", FRAMES[:, 1:])
    with pytest.raises(ValueError, match="'codec' to be one of 'vp9', 'vp8', got 'h264'"):
        write_video_file(tmp_path / "a.webm", FRAMES, codec="h264")
    message = r"expected frames of shape \[64, 96, 3\] for .*a\.webm, got \[32, 96, 3\] at frame 3"
    (tmp_path / "a.webm").write_text("from before")
    with pytest.raises(ValueError, match=message):
        write_video_file(tmp_path / "a.webm", [*FRAMES[:2], FRAMES[2, :32]])
    assert (tmp_path / "a.webm").read_text() == "from before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.webm"]


def test_what_is_not_installed_is_named(made, monkeypatch):
    advice = "is not installed. Install it with 'pip install"
    for version, module, said in (
        ("v1", "PIL", f"Pillow, which reads and writes JPEG frames, {advice} pillow'"),
        ("v2", "av", f"PyAV, which reads and writes video files, {advice} av'"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=f"^{re.escape(said)}$"):
            SomethingSomething(made / version, version)
