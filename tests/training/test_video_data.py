"""The data of videos: which clips a batch, a chunk, a process, a validation and a test get."""

import dataclasses
import warnings
from types import SimpleNamespace

import pytest
import torch
from cases import case
from small_videos import RECIPE, TRAINING, VALIDATION, damage, make_small_videos

from rstg_pyg.datasets import SomethingSomething
from rstg_pyg.datasets.video import DamagedVideoWarning
from rstg_pyg.training import CheckpointError, VideoData, VideoRecipe
from rstg_pyg.training.video_data import describe_damage

FIELDS = ("video", "y", "valid")


@pytest.fixture(scope="module")
def data(videos):
    return VideoData(videos, RECIPE, seed=3)


def trainer(epoch=0, rank=0, world_size=1):
    """What the data asks a trainer for."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=world_size, strategy=strategy)


def check(batches, clips, sizes):
    """Hold batches against clips, one by one."""
    batches = list(batches)
    assert [batch.num_graphs for batch in batches] == [len(batch.y) for batch in batches] == sizes
    clips = list(clips)
    for name in FIELDS:
        assert torch.equal(torch.cat([batch[name] for batch in batches]), torch.cat([clip[name] for clip in clips]))


def test_an_epoch_is_a_chunk_of_the_sequence_of_all_rounds(data):
    for epoch, numbers in [(0, range(6)), (1, range(6, 12))]:
        with case(epoch, numbers):
            data.trainer = trainer(epoch)
            check(data.train_dataloader(), map(data.train_clips.__getitem__, numbers), [4, 2])
            videos = data.train_clips.dataset
            assert (videos.num_frames, videos.size, videos.scale, videos.seed) == (4, 32, (1.0, 1.2), 3)
            assert len(videos) == TRAINING


@pytest.mark.parametrize("views", ["centre", "22"])
def test_two_processes_get_the_clips_of_one(videos, views):
    data = VideoData(videos, dataclasses.replace(RECIPE, val_clips=4), views=views)
    for loader in ("train_dataloader", "val_dataloader"):
        data.trainer = trainer(1)
        whole = list(getattr(data, loader)())
        shares = []
        for rank in (0, 1):
            data.trainer = trainer(1, rank, world_size=2)
            shares.append(list(getattr(data, loader)()))
        for batch, both in zip(whole, zip(*shares, strict=True), strict=True):
            for name in FIELDS:
                assert torch.equal(torch.cat([part[name] for part in both]), batch[name])
    tested = []
    for rank in (0, 1):
        data.trainer = trainer(0, rank, world_size=2)
        tested += list(data.test_dataloader())
    sizes = [1] * VALIDATION if views == "22" else [3, 4]
    check(tested, map(data.test_clips.__getitem__, range(VALIDATION)), sizes)


def test_validation_is_on_the_same_centre_clips_for_every_seed_and_all_views(videos, data):
    data.trainer = trainer()
    clips = [data.val_clips[i] for i in range(RECIPE.val_clips)]
    check(data.val_dataloader(), clips, [4, 1])
    names = [clip.video_id for clip in clips]
    assert len(set(names)) == RECIPE.val_clips
    other = VideoData(videos, RECIPE, seed=8, views="22")
    assert [clip.video_id for clip in other.val_clips] == names
    assert other.val_clips[0].video.shape == (1, 3, 4, 32, 32)
    assert other.test_clips[0].video.shape == (22, 3, 4, 32, 32)


def test_tests_are_on_all_videos_or_some(videos):
    names = SomethingSomething(videos, split="validation").video_ids.tolist()
    for count, size in ((None, None), (3, 48), (99, 48)):
        data = VideoData(videos, dataclasses.replace(RECIPE, test_clips=count, test_size=size))
        tested = [clip.video_id for clip in data.test_clips]
        assert len(set(tested) & set(names)) == len(tested) == min(count or VALIDATION, VALIDATION)
        assert data.test_clips[0].video.shape[-1] == data.val_clips[0].video.shape[-1] == data.recipe.clip_size


def test_worker_processes_read_the_same_clips(videos, data):
    helped = VideoData(videos, RECIPE, seed=3, num_workers=2)
    data.trainer = None
    loader = helped.train_dataloader()
    assert loader.num_workers == 2
    for batch, expected in zip(loader, data.train_dataloader(), strict=True):
        assert all(torch.equal(batch[name], expected[name]) for name in FIELDS)


def test_a_run_that_only_tests_needs_no_training_videos(tmp_path):
    make_small_videos(tmp_path)
    (tmp_path / "something-something-v1-train.csv").unlink()
    data = VideoData(tmp_path, RECIPE)
    assert sum(batch.num_graphs for batch in data.test_dataloader()) == VALIDATION
    with pytest.raises(FileNotFoundError, match=r"something-something-v1-train\.csv"):
        data.train_dataloader()


def test_damaged_videos_are_named_and_do_not_count(tmp_path):
    make_small_videos(tmp_path)
    broken = damage(tmp_path, 2, TRAINING + 1, TRAINING + 3)
    data = VideoData(tmp_path, VideoRecipe(10, num_frames=4, size=32, batch_size=5, chunk=10), num_workers=1)
    assert data.damaged() == {"train": [], "validation": []}
    with pytest.warns(DamagedVideoWarning, match="video 2 is skipped"):
        list(VideoData(tmp_path, data.recipe).train_dataloader())
    with warnings.catch_warnings(action="ignore", category=DamagedVideoWarning):
        loaders = (data.train_dataloader(), data.test_dataloader())
        train, test = (torch.cat([batch.valid for batch in loader]) for loader in loaders)
    assert train.all()
    assert test.tolist() == [False, True, False, True, True, True, True]
    assert data.damaged() == {"train": broken[:1], "validation": broken[1:]}
    assert describe_damage(data.damaged()) == [
        "damaged train videos, which others stand in for: 2 (unreadable)",
        "damaged validation videos, which do not count: 11 (unreadable), 13 (unreadable)",
    ]
    many = describe_damage({"train": [], "validation": [f"{n} (missing)" for n in range(1012)]})
    assert many[0].endswith("8 (missing), 9 (missing) and 1,002 more")


def test_a_step_has_no_more_clips_than_there_are_videos(videos):
    recipe = dataclasses.replace(RECIPE, accumulate=3)
    with pytest.raises(ValueError, match="at most as many clips per step as the 10 videos, got 12"):
        VideoData(videos, recipe).train_dataloader()


def test_every_process_needs_a_video(videos):
    data = VideoData(videos, dataclasses.replace(RECIPE, batch_size=6, val_clips=2))
    data.trainer = trainer(0, 0, world_size=3)
    with pytest.raises(ValueError, match="expected a video for each of the 3 processes, got 2"):
        data.val_dataloader()


def test_a_run_goes_on_with_the_same_videos_alone(tmp_path, data):
    held = data.state_dict()
    data.load_state_dict(dict(held))
    fewer = VideoData(make_small_videos(tmp_path / "fewer", TRAINING - 1), RECIPE)
    with pytest.raises(CheckpointError, match=r"expected the training videos that the run began with, 10, got 9$"):
        fewer.load_state_dict(held)
    other = VideoData(make_small_videos(tmp_path / "other"), RECIPE)
    other.load_state_dict(held)
    labels = tmp_path / "other" / "something-something-v1-train.csv"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join(lines[1:] + lines[:1]))
    with pytest.raises(CheckpointError, match=r"10, got 10 with other names or labels$"):
        VideoData(tmp_path / "other", RECIPE).load_state_dict(held)
