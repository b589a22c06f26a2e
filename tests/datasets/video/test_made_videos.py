import json
import re

import numpy as np
import pytest
from PIL import Image

from rstg_pyg.datasets import SomethingSomething
from rstg_pyg.datasets.made_videos import main, make_videos
from rstg_pyg.datasets.video import TEMPLATES, class_of_template, draw_clip, every_frame

CLASSES = sorted(map(class_of_template, TEMPLATES))


@pytest.mark.parametrize("pair", [0, 1, 2])
def test_a_pair_of_classes_shows_the_same_frames_backwards(pair):
    first, second = (draw_clip(TEMPLATES[2 * pair + i], 3, 1, 9, 32, 48) for i in (0, 1))
    assert np.array_equal(first.frames, second.frames[::-1])
    assert first.placeholders == second.placeholders
    assert not np.array_equal(first.frames, second.frames)


def where(frames):
    """The middle (row, column) of what differs from the colour of the corner, in every frame."""
    far = np.abs(frames.astype(int) - frames[:1, :1, :1]).sum(-1) > 30
    rows, columns = np.indices(frames.shape[1:3])
    weight = far.sum((1, 2))
    return np.stack([(far * rows).sum((1, 2)) / weight, (far * columns).sum((1, 2)) / weight], 1), far


@pytest.mark.parametrize("index", [0, 3])
def test_things_move_as_the_class_says(index):
    for template, axis, sign in zip(TEMPLATES[:4], (1, 1, 0, 0), (1, -1, 1, -1), strict=True):
        middle, _ = where(draw_clip(template, 0, index, 8, 64, 96, noise=0).frames)
        # The second thing rests, so the middle moves half as far.
        assert sign * (middle[-1] - middle[0])[axis] > 5
        assert abs((middle[-1] - middle[0])[1 - axis]) < 10
    for template, sign in zip(TEMPLATES[4:], (-1, 1), strict=True):
        _, far = where(draw_clip(template, 0, index, 8, 64, 96, noise=0).frames)
        spread = [np.indices(frame.shape)[:, frame].std(1).sum() for frame in far]
        assert sign * (spread[-1] - spread[0]) > 4


def test_clips_are_functions_of_their_arguments():
    clip = draw_clip(TEMPLATES[0], 0, 5, 8, 32, 48)
    assert clip.frames.dtype == np.uint8 and clip.frames.shape == (8, 32, 48, 3)
    assert np.array_equal(clip.frames, draw_clip(TEMPLATES[0], 0, 5, 8, 32, 48).frames)
    for other in (draw_clip(TEMPLATES[0], 1, 5, 8, 32, 48), draw_clip(TEMPLATES[0], 0, 6, 8, 32, 48)):
        assert not np.array_equal(clip.frames, other.frames)
    with pytest.raises(ValueError, match=r"expected a template among .*, got 'Holding'"):
        draw_clip("Holding", 0, 0, 8, 32, 48)


def test_both_formats_hold_the_same_videos(made):
    sets = [
        SomethingSomething(made / version, version, split)
        for version in ("v1", "v2")
        for split in ("train", "validation")
    ]
    for one, other in (sets[::2], sets[1::2]):
        assert one.classes == other.classes == tuple(CLASSES)
        assert one.video_ids.tolist() == other.video_ids.tolist()
        assert [int(one[i].y) for i in range(len(one))] == [int(other[i].y) for i in range(len(other))]
    assert [len(each) for each in sets] == [8, 4, 8, 4]
    assert not set(sets[0].video_ids) & set(sets[1].video_ids)
    for dataset in (sets[0], sets[2]):
        for i in range(8):
            frames, _ = dataset.read(i, every_frame)
            drawn = draw_clip(TEMPLATES[i % 6], 0, i, *frames.shape[:3]).frames
            assert dataset.classes[int(dataset._labels[i])] == class_of_template(TEMPLATES[i % 6])
            assert np.abs(frames.numpy().astype(int) - drawn).mean() < 8


def test_files_are_real(made):
    (made / "v2/20bn-something-something-v2/3.webm").read_bytes().index(b"V_VP9")
    with Image.open(made / "v1/20bn-something-something-v1/3/00001.jpg") as image:
        assert image.format == "JPEG" and image.height == 32
    lines = (made / "v1/something-something-v1-train.csv").read_text().splitlines()
    assert lines[:2] == ["1;Pushing something from left to right", "2;Pushing something from right to left"]
    entry = json.loads((made / "v2/something-something-v2-validation.json").read_text())[0]
    assert set(entry) == {"id", "label", "template", "placeholders"}
    assert entry["template"] == "Pushing [something] from left to right"
    assert entry["label"] == f"Pushing {entry['placeholders'][0]} from left to right"


def test_command(tmp_path, capsys):
    arguments = f"{tmp_path} --version v2 --clips 2 --height 32 --frames 4 5 --codec vp8".split()
    assert main(arguments) == 0
    assert SomethingSomething(tmp_path, "v2").num_classes == 6
    (tmp_path / "20bn-something-something-v2/1.webm").read_bytes().index(b"V_VP8")
    assert main(arguments) == 2
    error = f"made_videos: expected a folder without a data set, got {tmp_path}/something-something-v2-labels.json\n"
    assert capsys.readouterr().err == error


def test_no_data_set_is_written_over(copied, tmp_path):
    for version, ending, names in (
        ("v1", "csv", ["labels/something-something-v1-labels"]),
        ("v2", "json", ["labels", "labels/validation", "test", "something-something-v2-train"]),
    ):
        folder = copied(version)
        for path in folder.glob("*-labels.*"):
            path.unlink()  # as of a copy without it
        with pytest.raises(FileExistsError, match=f"without a data set, got .*{version}-train.{ending}"):
            make_videos(folder, version, clips=1)
        for name in names:
            path = tmp_path / f"{version}-{len(name)}" / f"{name}.{ending}"
            path.parent.mkdir(parents=True)
            path.touch()
            with pytest.raises(FileExistsError, match=f"without a data set, got {re.escape(str(path))}$"):
                make_videos(tmp_path / path.relative_to(tmp_path).parts[0], version, clips=1)


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_an_interrupted_data_set_can_be_made_again(tmp_path, ending):
    version = "v1" if ending == "csv" else "v2"
    for frames in ((9, 9), (4, 4)):
        make_videos(tmp_path, version, clips=1, height=32, frames=frames)
        data = SomethingSomething(tmp_path, version, "train")
        assert len(data.read(0, every_frame)[0]) == frames[0]
        for path in tmp_path.glob(f"*.{ending}"):
            path.unlink()


BAD = [
    ({"version": "v3"}, "'version' to be one of 'v1', 'v2', got 'v3'"),
    ({"codec": "av1"}, "'codec' to be one of 'vp9', 'vp8', got 'av1'"),
    ({"clips": 0}, "'clips' to be a positive int, got 0"),
    ({"height": 33}, "'height' to be even, got 33"),
    ({"frames": (9, 8)}, r"'frames' to be two numbers in order, got \(9, 8\)"),
    ({"frames": (0, 8)}, "'frames' to be a positive int, got 0"),
    ({"seed": -1}, "'seed' to be an integer within 0 to 18446744073709551615, got -1"),
    ({"noise": float("nan")}, "'noise' to be a finite number of at least 0, got nan"),
]


def test_bad_arguments(tmp_path):
    for kwargs, message in BAD:
        with pytest.raises(ValueError, match=f"expected {message}"):
            make_videos(tmp_path, **kwargs)
        assert list(tmp_path.iterdir()) == []
