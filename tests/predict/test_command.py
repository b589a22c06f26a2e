"""The command: what it prints and writes, and that bad input ends it with one sentence and code 2."""

import dataclasses
import io
import json
import runpy
import shutil
import signal
import sys

import av
import pytest
import torch
from cases import case
from small_predictors import CLASSES, NETWORK, config_of, network, write_weights

from rstg_pyg.datasets.video import stream_video_file
from rstg_pyg.predict import VideoSource
from rstg_pyg.predict.__main__ import main
from rstg_pyg.training import save_weights


@pytest.fixture
def run(capsys):
    """Run the command: return its exit code and the lines of stdout and stderr."""

    def command(*options):
        try:
            code = main([str(option) for option in options])
        except SystemExit as error:
            code = error.code
        written = capsys.readouterr()
        return code, written.out.splitlines(), written.err.splitlines()

    return command


@pytest.fixture
def video(videos):
    return videos("v2")[0][1]


def test_ctrl_c_ends_it_without_a_traceback(run, monkeypatch):
    monkeypatch.setattr("rstg_pyg.predict.__main__.run", lambda args: signal.raise_signal(signal.SIGINT))
    assert run("video.mp4", "--checkpoint", "weights.pt") == (130, [], [])


def count_frames(path):
    return sum(1 for _ in VideoSource(path))


def test_it_names_the_classes(run, videos, video, weights, predictor):
    code, out, err = run(video, "--checkpoint", weights("c2d+rstg:vec"), "--top", 3)
    assert (code, err) == (0, [])
    source = VideoSource(video)
    last = list(predictor("c2d+rstg:vec").stream(source, source_rate=source.rate))[-1]
    assert out == [
        f"{video}: {count_frames(video)} frames, frame by frame, with a recurrent state",
        *(f"{100 * probability:6.2f} %  {name}" for name, probability in last.top(3)),
    ]


def test_it_prints_names_that_the_terminal_cannot_show(video, weights, tmp_path, monkeypatch):
    path = shutil.copy(video, tmp_path / "väst.webm")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main([str(path), "--checkpoint", str(weights("c2d"))]) == 0
    sys.stdout.flush()
    assert f"{tmp_path}/v\\xe4st.webm: ".encode() in sys.stdout.buffer.getvalue()


@pytest.mark.parametrize(("row", "mode"), [("c2d", "stream"), ("i3d+rstg:res3-4", "windows")])
def test_it_writes_json_of_a_folder(run, videos, weights, row, mode):
    folder = videos("v1")[1][1]
    code, out, _ = run(folder, "--checkpoint", weights(row), "--json", "--top", 9)
    (line,) = out
    said = json.loads(line)
    assert code == 0
    assert (said["video"], said["mode"], said["frames"]) == (str(folder), mode, count_frames(folder))
    assert {each["class"] for each in said["predictions"]} == set(CLASSES)
    assert sum(each["probability"] for each in said["predictions"]) == pytest.approx(1)


def test_the_whole_of_a_video_is_what_the_evaluation_says(run, videos, weights, predictor):
    clip, path = videos("v2")[1]
    _, out, _ = run(path, "--checkpoint", weights("i3d"), "--whole", "--json", "--top", 1)
    with torch.no_grad():
        expected = predictor("i3d").model(clip)[0].softmax(0)
    (said,) = json.loads(out[0])["predictions"]
    assert said == {"class": CLASSES[int(expected.argmax())], "probability": float(expected.max())}


def test_a_network_that_overflows_is_refused(run, video, tmp_path):
    """NaN is no JSON."""
    for option in ["--json", "--top=1"]:
        with case(option):
            net, path = network("c2d"), tmp_path / "w.pt"
            with torch.no_grad():
                net.classifier.weight.fill_(3e38)
            save_weights(net, path, config_of("c2d"))
            code, out, (line,) = run(video, "--checkpoint", path, option)
            assert (code, out) == (2, [])
            assert line == f"predict: expected finite answers of the network in {path}, got others: it overflows"


@pytest.mark.parametrize(("name", "codec"), [("o.webm", "vp9"), ("o.MP4", "h264"), ("o.gif", "gif")])
def test_it_draws_every_frame(run, video, weights, tmp_path, name, codec):
    out = tmp_path / "new" / name
    row = {"o.webm": "c2d+rstg:vec", "o.MP4": "i3d+rstg:res3-4", "o.gif": "c2d"}[name]
    code, lines, err = run(video, "--checkpoint", weights(row), "--out", out, "--top", 2)
    assert (code, err) == (0, [])
    assert lines[-1] == f"wrote {out}"
    assert [path.name for path in out.parent.iterdir()] == [name]
    frames = list(stream_video_file(out))
    assert len(frames) == count_frames(video)
    assert not frames[0].equal(frames[-1])
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name.removeprefix("lib").startswith(codec)


def test_a_checkpoint_of_a_run_does_as_the_weights_do(run, video, weights, tmp_path):
    held = torch.load(weights("c2d+rstg:vec"), weights_only=True)
    held["state_dict"] = {f"model.{name}": value for name, value in held["state_dict"].items()}
    torch.save({**held, "pytorch-lightning_version": "2.6.0", "global_step": 3}, tmp_path / "last.ckpt")
    said = [run(video, "--checkpoint", path) for path in (tmp_path / "last.ckpt", weights("c2d+rstg:vec"))]
    assert said[0] == said[1]
    assert said[0][0] == 0


def test_it_runs_as_a_module(video, weights, monkeypatch, capsys):
    command = [str(video), "--checkpoint", str(weights("c2d")), "--device", "cuda:99"]
    monkeypatch.setattr(sys, "argv", ["predict", *command])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("rstg_pyg.predict", run_name="__main__")
    assert ended.value.code == 2
    written = capsys.readouterr()
    (line,) = written.err.splitlines()
    assert written.out == ""
    assert line.startswith("predict: expected a device that torch can use, got 'cuda:99': ")


def test_bad_options(run, video, weights, tmp_path, monkeypatch):
    for options, message in [
        (["--top", 0], "expected --top to be at least 1, got 0"),
        (["--whole", "--stride", 2], "expected --whole alone, got --stride too: it sets what is looked at"),
        (["--stride", 2], "expected no 'window' and no 'stride' for a network that carries a state, got one"),
        (["--frames-per-second", 0], "expected 'frames_per_second' to be frames a second, above 0, got 0.0"),
        (["--source-rate", "nan"], "expected 'rate' to be frames a second, above 0, got nan"),
        (["--out", "o.avi"], "expected a file ending in .webm, .mp4, .gif, got o.avi"),
    ]:
        with case(options, message):
            monkeypatch.chdir(tmp_path)
            assert run(video, "--checkpoint", weights("c2d"), *options) == (2, [], [f"predict: {message}"])
            assert list(tmp_path.iterdir()) == []


def test_bad_videos(run, video, weights, tmp_path):
    def refused(path, *options):
        code, out, (line,) = run(path, "--checkpoint", weights("c2d"), *options)
        assert (code, out) == (2, [])
        return line

    assert (
        refused(tmp_path / "none.webm")
        == f"predict: expected a file {tmp_path}/none.webm, got No such file or directory"
    )
    text = tmp_path / "text.webm"
    text.write_text("no video")
    assert refused(text).startswith(f"predict: expected a video in {text}, got ")
    cut, out = tmp_path / "cut.webm", tmp_path / "out.webm"
    cut.write_bytes(video.read_bytes()[:-200])
    assert refused(cut, "--out", out) == (
        f"predict: expected {video.stat().st_size} bytes in {cut}, got {video.stat().st_size - 200}"
    )
    empty = tmp_path / "folder"
    empty.mkdir()
    looked_for = "predict: expected numbered frames, such as 00001.jpg, img_00001.jpg or 000000.png, in"
    assert refused(empty) == f"{looked_for} {empty}, got none"
    same = shutil.copy(video, tmp_path / "same.webm")
    assert refused(same, "--out", same) == f"predict: expected --out to be another file than the video, got {same}"
    assert same.read_bytes() == video.read_bytes()
    assert not out.exists()


def test_a_frame_that_is_damaged_late_leaves_nothing_half_written(run, videos, weights, tmp_path):
    folder = shutil.copytree(videos("v1")[0][1], tmp_path / "frames")
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:100])
    out = tmp_path / "out.webm"
    out.write_text("from before")
    code, _, (line,) = run(folder, "--checkpoint", weights("c2d+rstg:vec"), "--out", out)
    assert code == 2
    assert line.startswith(f"predict: expected a JPEG or PNG image in {last}, got ")
    assert out.read_text() == "from before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out.webm"]


def test_a_place_that_cannot_be_written(run, video, weights, tmp_path):
    (tmp_path / "file").touch()
    code, _, (line,) = run(video, "--checkpoint", weights("c2d"), "--out", tmp_path / "file" / "o.webm")
    assert code == 2
    assert line.startswith("predict: [Errno ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bad_checkpoints(run, video, tmp_path):
    def refused(path):
        code, out, (line,) = run(video, "--checkpoint", path)
        assert (code, out) == (2, [])
        return line.removeprefix("predict: ")

    path = tmp_path / "w.pt"
    assert refused(path) == f"[Errno 2] No such file or directory: '{path}'"
    path.write_text("text")
    assert refused(path) == f"expected {path} to be a checkpoint, got a file of another kind"
    save_weights(torch.nn.Linear(2, 2), path, {"model": "mean-lstm"})
    other = f"expected {path} to hold a network of the task 'something-something', got one"
    assert refused(path) == f"{other} of 'mean-lstm'"
    save_weights(torch.nn.Linear(2, 2), path)
    assert refused(path) == f"{other} that does not say of what"
    options = dataclasses.asdict(NETWORK)
    unbuilt = f"expected {path} to be of a network that this version can build, got: "
    unmade = f"expected {path} to be of a VideoNetwork that this version knows, got: "
    for changes, message in (
        (
            {"network": {**options, "wings": 2}},
            f"{unmade}expected options of it, got wings, which a later version may know",
        ),
        ({"network": {**options, "depth": 34}}, f"{unbuilt}expected 'depth' to be 18 or 50, got 34"),
        ({"network": None}, f"{unmade}expected its settings to hold 'network' of type Mapping, got NoneType"),
        ({"classes": CLASSES[:5]}, f"{unbuilt}expected the names of 6 classes, got 5 entries"),
        ({"num_frames": 1}, f"{unbuilt}expected clips of at least 2 frames, got 1"),
        ({"size": 0}, f"{unbuilt}expected 'size' to be a positive int, got 0"),
    ):
        write_weights(path, "c2d", **changes)
        assert refused(path) == message
    write_weights(path, "c2d", model="c2d+rstg")
    assert refused(path).endswith("got 'c2d+rstg' (did you mean 'c2d+rstg:vec'?)")
    config = config_of("c2d")
    del config["size"]
    save_weights(network("c2d"), path, config)
    assert refused(path) == f"{unbuilt}expected its settings to hold 'size' of type int, got none"
    save_weights(network("c2d+rstg:vec"), path, config_of("c2d"))
    assert refused(path).startswith(f"expected {path} to hold the ")
    path.write_bytes(path.read_bytes()[:-500])
    assert refused(path).startswith(f"expected {path} to be a whole checkpoint, got ")
