import pickle
import warnings

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch_geometric.loader import DataLoader

from rstg_pyg.datasets import SomethingSomething, average_views
from rstg_pyg.datasets.video import (
    ClipSequence,
    DamagedVideoError,
    DamagedVideoWarning,
    crop_offsets,
    every_frame,
    resize,
    short_side_to,
    spread_indices,
)


def same(one, other):
    return (
        all(torch.equal(one[name], other[name]) for name in ("video", "y", "valid")) and one.video_id == other.video_id
    )


@pytest.mark.parametrize(("version", "views"), [("v1", "train"), ("v2", "centre"), ("v2", "22")])
def test_items_and_batches(make, version, views):
    dataset = make(version, views=views)
    count = 22 if views == "22" else 1
    data = dataset[2]
    assert set(data.keys()) == {"video", "y", "valid", "video_id"}
    assert data.video.shape == (count, 3, 8, 24, 24) and data.video.dtype == torch.uint8
    assert data.video.is_contiguous()
    assert data.y.dtype == torch.long and data.valid.tolist() == [True] and data.video_id == "3"
    assert dataset.num_views == count and dataset.num_classes == 6 and len(dataset) == 8
    assert repr(dataset) == "SomethingSomething(8)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch.video.shape == (3 * count, 3, 8, 24, 24)
    assert batch.y.shape == batch.valid.shape == (3,)
    assert batch.video_id == ["1", "2", "3"] and batch.num_graphs == 3
    assert same(batch[2], data)


def test_defaults(made):
    train, validation = (SomethingSomething(made / "v1", split=split) for split in ("train", "validation"))
    assert (train.views, train.size, train.num_frames) == ("train", 224, 32)
    assert (validation.views, validation.size, validation.num_frames) == ("centre", 256, 32)
    assert train[0].video.shape == (1, 3, 32, 224, 224)
    assert validation[0].video.shape == (1, 3, 32, 256, 256)


@pytest.mark.parametrize("version", ["v2"])
def test_the_22_views(make, version):
    """2 choices of frames times 11 crops of the resized video, each at its place."""
    dataset = make(version, views="22")
    for i in range(3):
        frames, _ = dataset.read(i, every_frame)
        height, width = short_side_to(*frames.shape[1:3], 24)
        assert height == 24
        video = resize(frames, height, width).transpose(0, 1)
        views = dataset[i].video
        for sampling, chosen in enumerate(spread_indices(len(frames), 8, 2)):
            for crop, left in enumerate(crop_offsets(width, 24, 11)):
                expected = video[:, torch.from_numpy(chosen), :, left : left + 24]
                assert torch.equal(views[11 * sampling + crop], expected)
        centre = make(version, views="centre")[i].video[0]
        (left,) = crop_offsets(width, 24, 1)
        assert torch.equal(centre, video[:, torch.from_numpy(spread_indices(len(frames), 8)[0]), :, left : left + 24])


def test_logits_are_averaged_over_the_views_of_a_video(make):
    dataset = make(views="22")
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    logits = batch.video.double().mean((2, 3, 4))
    expected = torch.stack([dataset[i].video.double().mean((0, 2, 3, 4)) for i in range(3)])
    torch.testing.assert_close(average_views(logits, dataset.num_views), expected)
    assert torch.equal(average_views(logits, 1), logits)
    assert average_views(torch.zeros(0, 5), 22).shape == (0, 5)
    with pytest.raises(ValueError, match=r"expected logits of shape \[B \* 22, M\], got \[21, 4\]"):
        average_views(torch.zeros(21, 4), 22)


@pytest.mark.parametrize("version", ["v2"])
def test_random_clips_are_of_their_video(make, version):
    """With nothing else random, a training clip is a crop of frames, one of each segment."""
    dataset = make(version, scale=(1.0, 1.0), colour_jitter=0.0, flip="never", size=32)
    for i in range(4):
        frames, _ = dataset.read(i, every_frame)
        clip = dataset.clip(i, epoch=5).video[0].transpose(0, 1)
        edges = np.arange(9) * len(frames) / 8
        lefts = set(range(frames.shape[2] - 31))
        for k in range(8):
            segment = range(int(edges[k]), int(np.ceil(edges[k + 1])))
            candidates = frames[list(segment)].permute(0, 3, 1, 2)
            lefts &= {
                left
                for left in range(frames.shape[2] - 31)
                if (candidates[..., left : left + 32] == clip[k]).flatten(1).all(1).any()
            }
        assert len(lefts) == 1


# Determinism


@pytest.mark.parametrize("version", ["v1"])
def test_clips_depend_on_seed_epoch_and_number_alone(make, version):
    dataset, again = make(version), make(version)
    backwards = {i: dataset[i] for i in reversed(range(8))}
    for i in range(8):
        assert same(again[i], backwards[i])
        assert same(again.clip(i, 0), backwards[i])
        assert not torch.equal(again.clip(i, 1).video, backwards[i].video)
    assert same(dataset[3:6][1], backwards[4])
    assert same(dataset[3:6].clip(1, 0), backwards[4])
    assert not torch.equal(make(version, seed=1)[0].video, backwards[0].video)
    assert same(make(version, seed=2**64 - 1)[0], make(version, seed=2**64 - 1)[0])
    dataset.set_epoch(1)
    assert same(dataset[2], again.clip(2, 1))
    fixed = make(version, views="centre")
    assert same(fixed.clip(0, 0), fixed.clip(0, 1))


def test_global_generators_are_neither_used_nor_touched(make):
    dataset = make()
    torch.manual_seed(0)
    np.random.seed(0)
    before = dataset[0]
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    assert (torch.rand(1), np.random.rand()) == expected
    assert same(dataset[0], before)


@pytest.mark.parametrize("version", ["v2"])
def test_workers_and_batches_make_no_difference(make, version):
    dataset = make(version)
    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        expected = torch.cat([dataset[i].video for i in range(8)])
        for batch_size, workers in ((3, 0), (3, 2)):
            batches = list(DataLoader(dataset, batch_size=batch_size, num_workers=workers))
            assert torch.equal(torch.cat([batch.video for batch in batches]), expected)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_live_on_see_the_next_epoch_and_report_damage(make, copied, context):
    root = copied("v2")
    (root / "20bn-something-something-v2/4.webm").write_bytes(b"")
    dataset = make("v2", root=root)
    expected = make("v2")
    loader = DataLoader(dataset, batch_size=8, num_workers=1, persistent_workers=True, multiprocessing_context=context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            clips = [expected.clip(4 if i == 3 else i, epoch).video for i in range(8)]
            assert torch.equal(next(iter(loader)).video, torch.cat(clips))
    assert dataset.damage_report() == "skipped 1 of 8 videos as damaged (limit 10): 4 (empty)"


def test_another_current_folder_changes_nothing(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    dataset = SomethingSomething("v1", "v1", "train", num_frames=4, size=16)
    expected = dataset[0]
    monkeypatch.chdir(tmp_path)
    assert expected.valid and same(dataset[0], expected)


def test_transforms_and_pickles(make):
    def halve(data):
        data.video = data.video // 2
        return data

    dataset = make(transform=halve)
    assert torch.equal(dataset[1].video, make()[1].video // 2)
    assert same(dataset.clip(1, 0), dataset[1])
    assert same(pickle.loads(pickle.dumps(make()))[3], make()[3])


# The sequence of many epochs


def test_a_sequence_takes_every_video_once_an_epoch(make):
    dataset = make()
    clips = ClipSequence(dataset, 28)
    assert len(clips) == 28
    orders = [clips.order(epoch).tolist() for epoch in range(4)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    for n in (27, 3, 12):
        assert same(clips[n], dataset.clip(orders[n // 8][n % 8], n // 8))
    assert same(ClipSequence(make(), 100)[12], clips[12])
    assert ClipSequence(make(seed=1), 8).order(0).tolist() != orders[0]
    some = ClipSequence(dataset[2:5], 6)
    assert {some[n].video_id for n in range(3, 6)} == {"3", "4", "5"}
    for n in (-1, 28):
        with pytest.raises(IndexError, match=f"clip number within 0 to 27, got {n}"):
            clips[n]


def test_a_sequence_in_workers(make):
    clips = ClipSequence(make(), 20)
    expected = torch.cat([clips[n].video for n in range(5, 20)])
    loader = DataLoader(clips, batch_size=4, sampler=range(5, 20), num_workers=2)
    assert torch.equal(torch.cat([batch.video for batch in loader]), expected)


# Arguments


BAD = [
    ({"version": "v3"}, "'version' to be one of 'v1', 'v2', got 'v3'"),
    ({"split": "dev"}, "'split' to be one of 'train', 'validation', 'test', got 'dev'"),
    ({"split": "test", "views": "train"}, "a split with labels for 'views' 'train', got 'test'"),
    ({"views": "33"}, "'views' to be one of 'train', 'centre', '22', got '33'"),
    ({"flip": True}, "'flip' to be one of 'undirected', 'swap', 'never', got True"),
    ({"num_frames": 0}, "'num_frames' to be a positive int, got 0"),
    ({"size": 0}, "'size' to be a positive int, got 0"),
    ({"scale": (0.9, 2)}, r"'scale' to be two numbers of at least 1, in order, got \(0\.9, 2\)"),
    ({"scale": (2, 1.5)}, r"'scale' to be two numbers of at least 1, in order, got \(2, 1\.5\)"),
    ({"colour_jitter": 1.5}, r"'colour_jitter' to be a number within 0 to 1, got 1\.5"),
    ({"seed": -1}, "'seed' to be an integer within 0 to 18446744073709551615, got -1"),
    ({"max_damaged": -1}, "'max_damaged' to be an integer of at least 0, got -1"),
]


def test_bad_arguments(made):
    for kwargs, message in BAD:
        with pytest.raises(ValueError, match=f"expected {message}"):
            SomethingSomething(made / "v1", **kwargs)


def test_bad_paths_and_numbers(make, made, tmp_path):
    with pytest.raises(TypeError, match="expected 'root' to be a path, got None"):
        SomethingSomething(None)
    with pytest.raises(
        FileNotFoundError, match=r"expected a folder of videos .*/elsewhere, got none \(see 'video_dir'\)"
    ):
        SomethingSomething(made / "v1", video_dir=tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"expected the annotation file something-something-v1-labels\.csv"):
        SomethingSomething(tmp_path)
    with pytest.raises(IndexError, match="expected a video number within 0 to 7, got 8"):
        make().get(8)
    with pytest.raises(IndexError, match="expected the number of a video within 0 to 2, got 3"):
        make()[2:5][3]
    with pytest.raises(ValueError, match="'epoch' to be an integer within 0 to 4294967295, got -1"):
        make().set_epoch(-1)


def test_videos_that_lie_elsewhere(copied, made, tmp_path):
    root = copied("v2")
    (root / "20bn-something-something-v2").rename(tmp_path / "videos")
    dataset = SomethingSomething(root, "v2", num_frames=8, size=24, video_dir=tmp_path / "videos")
    assert same(dataset[0], SomethingSomething(made / "v2", "v2", num_frames=8, size=24)[0])


def test_copies_in_other_forms(make, copied, tmp_path):
    """Folders of frames and files stand beside each other, whatever the version; frames have other names."""
    root = copied("v2")
    videos = root / "20bn-something-something-v2"
    for number in (1, 2):
        with av.open(str(videos / f"{number}.webm")) as source, av.open(str(videos / f"{number}.mp4"), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        (videos / f"{number}.webm").unlink()
    frames, _ = make("v2").read(2, every_frame)
    (videos / "3").mkdir()
    for number, frame in enumerate(frames.numpy()):
        Image.fromarray(frame).save(videos / "3" / f"img_{number:06d}.png")
    (videos / "3.webm").unlink()
    dataset = make("v2", root=root)
    assert all(same(dataset[i], make("v2")[i]) for i in range(4))
    assert dataset.damaged == {}


def test_where_nothing_can_be_read_it_is_said_what_was_looked_for(make, copied, tmp_path):
    root = copied("v1")
    looked_for = f"expected 8 videos in {tmp_path}, each a folder of frames such as 1 or a file such as 1.webm or 1.mp4"
    with pytest.raises(FileNotFoundError) as error:
        make(root=root, video_dir=tmp_path)
    assert str(error.value) == f"{looked_for}, got others, such as v1"
    for frame in root.glob("20bn*/*/*"):
        frame.rename(frame.with_suffix(".bmp"))
    with (
        pytest.warns(DamagedVideoWarning),
        pytest.raises(DamagedVideoError, match=r"got none; of the last: expected numbered frames, such as 00001\.jpg"),
    ):
        make(root=root)[0]


def test_the_test_split(made, copied):
    root = copied("v1")
    (root / "something-something-v1-test.csv").write_text("3\n1\n")
    dataset = SomethingSomething(root, split="test", num_frames=8, size=24)
    expected = SomethingSomething(root, views="centre", num_frames=8, size=24)
    assert [data.video_id for data in dataset] == ["3", "1"] and dataset.classes == expected.classes
    assert all(data.y.tolist() == [-1] and data.valid for data in dataset)
    assert torch.equal(dataset[0].video, expected[2].video)
