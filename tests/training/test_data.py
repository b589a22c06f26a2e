"""The data of clips: which clips a batch, a chunk, a process, a validation and a test get."""

import dataclasses
import os
import pickle
import resource
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cases import case
from small_runs import PHASES, RECIPE, fit
from torch.utils.data import Dataset
from torch_geometric.data import Batch

from rstg_pyg import SyncMNIST
from rstg_pyg.training import Curriculum, Phase, RunData, SyncMNISTData
from rstg_pyg.training.data import ClipBatches, share_of_batches

MNIST = os.environ.get("RSTG_PYG_MNIST")
PATHS = Path(os.environ.get("RSTG_PYG_REFERENCE", ""), "predefined_path_test.pickle")
BINARY = PHASES[0].clips


@pytest.fixture
def data(tmp_path):
    return SyncMNISTData(tmp_path, RECIPE, digits="sklearn")


def trainer(epoch=0, rank=0, world_size=1, device="cpu"):
    """What the data asks a trainer for."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=world_size, strategy=strategy)


def check(loader, clips, sizes):
    """Hold a loader's batches against clips, one by one."""
    batches = list(loader)
    assert [batch.num_graphs for batch in batches] == [len(batch.y) for batch in batches] == sizes
    clips = list(clips)
    for name in ("video", "y"):
        assert torch.equal(torch.cat([batch[name] for batch in batches]), torch.cat([clip[name] for clip in clips]))
    return torch.cat([batch.binary for batch in batches])


# The curriculum


def test_every_clip_is_seen_once_and_in_order(tmp_path, data):
    seen = []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(46))

        def forward(self, video):
            if self.training:
                seen.append(video)
            return self.weight.expand(len(video), 46)

    fit(tmp_path, dataclasses.replace(RECIPE, optimizer="adamw"), net=Net())
    clips = data.train_clips
    assert len(clips) == 30
    torch.testing.assert_close(torch.cat(seen), torch.cat([clips[i].video for i in range(30)]))


def test_the_curriculum_changes_at_its_clip(data):
    clips = data.train_clips
    easy, hard = clips.datasets
    assert torch.equal(clips[7].video, easy[7].video)
    assert torch.equal(clips[8].video, hard[8].video)
    assert [bool(clips[i].binary) for i in (0, 7, 8, 29)] == [True, True, False, False]
    assert (easy.num_digits, easy.no_sync_probability) == (2, 0.5)
    assert (hard.num_digits, hard.no_sync_probability) == (3, 1 / 92)
    assert data.test_clips.num_digits == 3
    assert not data.test_clips.train
    assert data.source == "sklearn"


def test_all_clips_have_the_delay_of_the_recipe(tmp_path):
    data = SyncMNISTData(tmp_path, dataclasses.replace(RECIPE, delay=3), digits="sklearn")
    assert {clips.delay for clips in [*data.train_clips.datasets, data.test_clips]} == {3}
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    assert {next(iter(loader)).video.size(2) for loader in loaders} == {13}
    data = SyncMNISTData(tmp_path, dataclasses.replace(RECIPE, delay=3, num_frames=5), digits="sklearn")
    assert {clips[0].video.size(2) for clips in [*data.train_clips.datasets, data.test_clips]} == {5}


def test_a_curriculum_needs_a_dataset_per_phase():
    with pytest.raises(ValueError, match="one dataset per phase, got 2 phases and 0 datasets"):
        Curriculum(PHASES, [])


# Batches


def test_a_batch_holds_the_clips_of_its_range(data):
    for start, stop in [(0, 3), (6, 8), (5, 12), (8, 9), (27, 36)]:
        with case(start, stop):
            batch = ClipBatches(data.train_clips, "cpu")[range(start, stop)]
            expected = [data.train_clips[i] for i in range(start, stop)]
            binary = check([batch], expected, [stop - start])
            assert torch.equal(binary, torch.cat([clip.binary for clip in expected]))
            assert (batch.video.dtype, batch.y.dtype, batch.binary.dtype) == (torch.uint8, torch.int64, torch.bool)


def test_a_batch_is_a_range_of_clips(data):
    for index in [3, range(4, 4), range(0, 8, 2), range(5, 2, -1), torch.arange(3)]:
        with case(index), pytest.raises(ValueError, match="expected a range of consecutive clips, got "):
            ClipBatches(data.train_clips, "cpu")[index]


def test_batches_come_from_processes_that_are_started_anew(data):
    """As on macOS and Windows, where all that a worker has went through pickle."""
    batches = ClipBatches(data.train_clips, "cpu")
    theirs = pickle.loads(pickle.dumps(batches))[range(2, 9)]
    assert torch.equal(theirs.video, batches[range(2, 9)].video)


def test_there_are_no_clips_after_those_of_validation(data):
    batches = ClipBatches(data.train_clips, "cpu")
    for index in (range(34, 37), range(-2, 2)):
        with pytest.raises(IndexError, match="expected clip numbers within 0 to 35, got "):
            batches[index]


def test_processes_share_every_batch_equally():
    for count in [1, 5, 11, 12, 13]:
        for world_size in [1, 2, 3]:
            with case(count, world_size):
                clips = range(100, 100 + count)
                shares = [share_of_batches(clips, 6, rank, world_size) for rank in range(world_size)]
                together = [[number for share in batch for number in share] for batch in zip(*shares, strict=True)]
                for batch in zip(*shares, strict=True):
                    assert len({len(share) for share in batch}) == 1
                seen = [number for batch in together for number in batch]
                assert seen == list(clips)[: len(seen)]
                assert count - len(seen) < world_size
                assert all(len(batch) == 6 for batch in together[:-1])


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(ValueError, match="'batch_size' to be a multiple of the 4 processes, got 6"):
        share_of_batches(range(12), 6, 0, 4)


# What a trainer gets


def test_an_epoch_is_a_chunk(tmp_path):
    for epoch, sizes in [(0, [4, 4, 4]), (1, [4, 4, 4]), (2, [4, 2])]:
        with case(epoch, sizes):
            data = SyncMNISTData(tmp_path, dataclasses.replace(RECIPE, chunk=12), digits="sklearn")
            data.trainer = trainer(epoch)
            numbers = range(12 * epoch, 12 * epoch + sum(sizes))
            binary = check(data.train_dataloader(), map(data.train_clips.__getitem__, numbers), sizes)
            assert binary.tolist() == [number < BINARY for number in numbers]


def test_without_a_trainer_it_is_the_first_chunk(data):
    check(data.train_dataloader(), map(data.train_clips.__getitem__, range(10)), [4, 4, 2])


def test_two_processes_get_the_clips_of_one(data):
    whole, parts = [], []
    for epoch in range(3):
        data.trainer = trainer(epoch)
        whole += list(data.train_dataloader()) + list(data.val_dataloader())
        shares = []
        for rank in (0, 1):
            data.trainer = trainer(epoch, rank, world_size=2)
            shares.append([*data.train_dataloader(), *data.val_dataloader()])
        parts += zip(*shares, strict=True)
    for batch, both in zip(whole, parts, strict=True):
        for name in ("video", "y", "binary"):
            assert torch.equal(torch.cat([part[name] for part in both]), batch[name])


def test_validation_follows_training(data):
    hard = data.train_clips.datasets[1]
    data.trainer = trainer(epoch=1)
    assert not check(data.val_dataloader(), (hard[i] for i in range(30, 36)), [4, 2]).any()


def test_a_test_counts_every_clip_once(data):
    for world_size in [1, 2, 3, 7]:
        with case(world_size):
            videos = []
            for rank in range(world_size):
                data.trainer = trainer(0, rank, world_size)
                videos += [batch.video for batch in data.test_dataloader()]
            assert torch.equal(
                torch.cat(videos), torch.cat([data.test_clips[i].video for i in range(RECIPE.test_clips)])
            )


def test_a_batch_size_that_the_processes_cannot_share(data):
    data.trainer = trainer(world_size=3)
    with pytest.raises(ValueError, match="'batch_size' to be a multiple of the 3 processes, got 4"):
        data.train_dataloader()


def test_worker_processes_make_the_same_clips(tmp_path, data):
    helped = SyncMNISTData(tmp_path, RECIPE, digits="sklearn", num_workers=2)
    loader, other = helped.train_dataloader(), data.train_dataloader()
    assert (loader.num_workers, other.num_workers) == (2, 0)
    for batch, expected in zip(loader, other, strict=True):
        assert all(torch.equal(batch[name], expected[name]) for name in ("video", "y", "binary"))


def test_any_other_device_than_a_cpu_makes_the_clips_itself(tmp_path, monkeypatch):
    devices = []
    monkeypatch.setattr(
        "rstg_pyg.training.data.ClipGenerator", lambda dataset, device: devices.append(torch.device(device))
    )
    data = SyncMNISTData(tmp_path, RECIPE, digits="sklearn", num_workers=2)
    for device, workers in (("cpu", 2), ("cuda", 0), ("cuda", 0)):
        data.trainer = trainer(device=device)
        assert data.train_dataloader().num_workers == data.val_dataloader().num_workers == workers
    assert [device.type for device in devices] == ["cpu", "cpu", "cuda", "cuda"]
    assert data.test_dataloader().num_workers == 0
    assert devices[-1].type == "cuda"


def test_clips_follow_from_the_seed(tmp_path, data):
    same, other = (SyncMNISTData(tmp_path, RECIPE, seed, digits="sklearn") for seed in (0, 1))
    for split in ("train_clips", "test_clips"):
        video = getattr(data, split)[3].video
        assert torch.equal(getattr(same, split)[3].video, video)
        assert not torch.equal(getattr(other, split)[3].video, video)


# The authors' test clips


@pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
@pytest.mark.skipif(not PATHS.is_file(), reason="RSTG_PYG_REFERENCE does not name the folder with the authors' paths")
@pytest.mark.parametrize("paths", ["authors", PATHS], ids=["authors", "file"])
def test_the_authors_test_clips(tmp_path, paths):
    recipe = dataclasses.replace(RECIPE, phases=(Phase(30, num_digits=5),), size=64)
    data = SyncMNISTData(tmp_path, recipe, seed=3, test_paths=paths)
    clips = SyncMNIST(tmp_path, train=False, paths=PATHS)
    check(data.test_dataloader(), (clips[i] for i in range(6)), [4, 2])


def test_the_authors_test_clips_have_five_mnist_digits(tmp_path):
    with pytest.raises(ValueError, match="'num_digits' to be 5 with 'paths', as in the authors' clips, got 3"):
        SyncMNISTData(tmp_path, RECIPE, digits="sklearn", test_paths="authors")
    five = dataclasses.replace(RECIPE, phases=(Phase(30, num_digits=5),))
    with pytest.raises(ValueError, match="'digits' to be 'mnist' or 'auto' with 'paths', got 'sklearn'"):
        SyncMNISTData(tmp_path, five, digits="sklearn", test_paths="authors")


# Workers


class Starved(Dataset):
    """Batches, made by a worker that gets no more than so many further files, or bytes of a file."""

    def __init__(self, kind, limit):
        self.kind, self.limit = kind, limit

    def __getitem__(self, clips):
        if clips.start == 0:
            next_file = os.dup(0)
            os.close(next_file)
            limit = self.limit + next_file * (self.kind == resource.RLIMIT_NOFILE)
            resource.setrlimit(self.kind, (limit, resource.getrlimit(self.kind)[1]))
        return Batch(video=torch.full((1000,), clips.start), y=torch.tensor(list(clips)))


def test_batches_arrive_from_a_worker_without_shared_memory():
    for kind, limit, failure in [
        (resource.RLIMIT_FSIZE, 0, "File too large"),
        (resource.RLIMIT_NOFILE, 0, "Too many open files"),
        (resource.RLIMIT_NOFILE, 4, "Too many open files"),
        (resource.RLIMIT_NOFILE, 12, "Too many open files"),
        (resource.RLIMIT_NOFILE, 100, None),
    ]:
        with case(kind, limit, failure):
            data = RunData(RECIPE, num_workers=1)
            data.training = partial(Starved, kind, limit)
            loader = data.train_dataloader()
            # Or it would wait for ever.
            loader.timeout = 10
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("default")
                batches = list(loader)
            assert [batch.y.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
            assert [batch.video.unique().tolist() for batch in batches] == [[0], [4], [8]]
            messages = [str(warning.message) for warning in told if "shared memory" in str(warning.message)]
            assert len(messages) == (failure is not None)
            assert all(f"got: {failure}" in message and "(docker run --shm-size)" in message for message in messages)
