"""The items of SyncMNIST: what they hold, and that they depend on the seed and their number alone."""

import hashlib
import importlib.util
import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from cases import case
from clip_fields import FIELDS, same
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from rstg_pyg.datasets import ClipGenerator, SyncMNIST

MNIST = os.environ.get("RSTG_PYG_MNIST")


def test_item(make):
    for num_digits, num_frames, size in [(2, 1, 1), (3, 4, 32), (5, 10, 64), (10, 2, 100)]:
        data = make(num_digits=num_digits, num_frames=num_frames, size=size)[0]
        with case(num_digits, num_frames, size):
            assert data.video.shape == (1, 1, num_frames, size, size)
            assert data.video.dtype == torch.uint8
            assert data.y.shape == (1,)
            assert data.digits.shape == (1, num_digits)
            assert data.sync.shape == (1, 2)
            assert data.path.shape == (1, num_digits, num_frames, 2)
            assert {data[name].dtype for name in FIELDS[1:]} == {torch.long}
            assert set(data.keys()) == set(FIELDS)


def test_lengths_and_classes(make):
    assert len(make()) == 600_000
    assert len(make(train=False)) == 10_000
    assert len(make(num_clips=7)) == 7
    assert make().num_classes == 46
    assert make(num_clips=100).num_features == 0
    assert repr(make()) == "SyncMNIST(600000)"


def test_batches_of_the_stock_loader(make):
    dataset = make(num_clips=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = list(DataLoader(dataset, batch_size=4))
        whole = Batch.from_data_list(list(dataset))
    assert [batch.video.shape for batch in batches] == [(4, 1, 10, 64, 64), (2, 1, 10, 64, 64)]
    assert batches[0].y.shape == (4,)
    assert batches[0].path.shape == (4, 5, 10, 2)
    assert batches[0].num_graphs == 4
    assert same(batches[1][1], dataset[5])
    assert same(whole.to_data_list()[3], dataset[3])


def test_transform(make):
    def to_float(data):
        data.video = data.video.float() / 255
        return data

    dataset = make(transform=to_float)
    assert dataset[0].video.dtype == torch.float
    assert dataset.get(0).video.dtype == torch.uint8


# Determinism


NUMBERS = torch.tensor([0, 1, 59, 60, 92, 1000, 2**20, 2**32 + 7, 2**40 - 1])
RECORDED = {
    (2, 1, 1, True, 0, 1 / 92): "fc8d47ac33946619",
    (3, 10, 64, True, 0, 1 / 92): "1158f1bff481847d",
    (3, 4, 32, False, 2**64 - 1, 0.5): "ce5afd177a2156be",
    (5, 10, 64, False, 7, 1 / 92): "b2c0fb37e2109a20",
    (5, 6, 17, True, 2**63, 0): "93b0f6be9172e041",
    (10, 3, 100, True, 1, 1): "d95fae0c971bdab8",
    (4, 2, 150, False, 3, 0.5): "5c25b1f7053fbb71",
}
RECORDED_OF_MNIST = {(3, True): "73ff55872b28e815", (5, True): "1b5981a31ccd7857", (5, False): "812048bd2bf58a90"}


def digest(dataset, numbers):
    items, content = [dataset[int(number)] for number in numbers], hashlib.sha256()
    for name in FIELDS:
        field = torch.cat([item[name] for item in items])
        assert torch.equal(ClipGenerator(dataset, "cpu")(numbers)[name], field), name
        content.update(field.numpy().tobytes())
    return content.hexdigest()[:16]


def test_recorded_clips(make):
    """They were recorded before clips had a ``delay``: without one they are still the same bytes."""
    names = ("num_digits", "num_frames", "size", "train", "seed", "no_sync_probability")
    found = {case: digest(make(num_clips=2**40, **dict(zip(names, case, strict=True))), NUMBERS) for case in RECORDED}
    assert found == RECORDED


@pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
def test_recorded_clips_of_mnist(tmp_path):
    found = {
        (num_digits, train): digest(
            SyncMNIST(tmp_path, num_digits, train, mnist_dir=MNIST, num_clips=600_000), torch.arange(0, 600_000, 13_331)
        )
        for num_digits, train in RECORDED_OF_MNIST
    }
    assert found == RECORDED_OF_MNIST


def test_clips_are_the_same_in_whatever_order_and_number_they_are_asked_for(make):
    dataset, again = make(num_clips=40, size=16), make(num_clips=40, size=16)
    expected = [ClipGenerator(dataset, "cpu")(torch.tensor([number])) for number in range(40)]
    order = [0, 1, 2, 3, 4, 5, 3, 20, 21, 22, 23, 22, 21, *range(40), 39, 0, *range(39, -1, -1)]
    for number in order:
        item = dataset[number]
        assert same(item, expected[number]), number
        # Items are the caller's own.
        for name in FIELDS:
            item[name].zero_()
    for item, number in zip(again.__getitems__(order), order, strict=True):
        assert same(item, expected[number]), number
    assert same(again[5:].__getitems__([-1, 3])[0], expected[39])
    with pytest.raises(IndexError, match="got 40"):
        again.__getitems__([0, 40])


def test_large_clips_are_made_one_by_one(make, monkeypatch):
    made, clips = [], SyncMNIST._clips

    def counted(self, numbers):
        made.append(len(numbers))
        return clips(self, numbers)

    monkeypatch.setattr(SyncMNIST, "_clips", counted)
    for size, expected in [(16, [1, 2, 4, 8, 5]), (800, [1] * 4)]:
        dataset = make(num_clips=20, size=size)
        for number in range(17 if size == 16 else 4):
            dataset[number]
        assert made == expected
        made.clear()


def test_loaders_do_not_pass_a_subclass_by(make):
    class Darker(SyncMNIST):
        def get(self, idx):
            data = super().get(idx)
            data.video //= 2
            return data

    plain = make(num_clips=4)
    darker = make(num_clips=4)
    darker.__class__ = Darker
    batch = next(iter(DataLoader(darker, batch_size=4)))
    assert torch.equal(batch.video[3], plain[3].video[0] // 2)


def test_clip_depends_on_seed_and_number_alone(make):
    dataset = make()
    backwards = {i: dataset[i] for i in reversed(range(20))}
    again = make(num_clips=20)
    for i in range(20):
        assert same(again[i], backwards[i])
    assert same(dataset[3:9][2], backwards[5])
    assert same(dataset[torch.tensor([7, 2])][1], backwards[2])
    assert not same(make(seed=1)[0], backwards[0])
    assert not torch.equal(make(seed=1)[0].path, backwards[0].path)
    assert same(make(seed=2**64 - 1)[0], make(seed=2**64 - 1)[0])


def test_the_share_of_clips_without_a_pair_in_step(make):
    always, never, half = (make(no_sync_probability=p, num_digits=2) for p in (0, 1, 0.5))
    labels = torch.cat([half[i].y for i in range(400)])
    assert 140 < int((labels == 45).sum()) < 260
    for i in range(20):
        assert always[i].y != 45
        assert never[i].y == 45
        # What is not about the pair stays the same.
        assert torch.equal(always[i].digits, never[i].digits)


def test_common_frames_of_clips_of_different_lengths_agree(make):
    long, short = make(num_frames=12)[4], make(num_frames=5)[4]
    assert torch.equal(long.video[:, :, :5], short.video)
    assert torch.equal(long.path[:, :, :5], short.path)
    assert torch.equal(make(size=32, num_frames=5)[4].path, short.path)


def test_with_a_delay_the_second_digit_repeats_the_moves_of_the_first(make):
    for delay in (1, 7):
        dataset = make(num_clips=100, size=8, delay=delay, no_sync_probability=0.5)
        for clip in dataset:
            first, second = clip.path[0, :2].diff(dim=1)
            follows = torch.equal(first[:9], second[delay:])
            assert (clip.path.size(2), follows) == (10 + delay, bool(clip.y != 45))
            assert 0 <= clip.path.min() <= clip.path.max() <= 71


def test_a_delay_leaves_the_rest_of_a_clip_as_it_is(make):
    at_once, later, short = make(), make(delay=6), make(delay=6, num_frames=7)
    assert later.num_frames == 16
    for number in range(10):
        clip, same_digits = later[number], at_once[number]
        assert torch.equal(clip.digits, same_digits.digits)
        assert torch.equal(clip.y, same_digits.y)
        assert torch.equal(clip.path[:, 2:, :10], same_digits.path[:, 2:])
        assert torch.equal(clip.video[:, :, :7], short[number].video)
    alone, delayed = make(no_sync_probability=1.0, num_frames=16), make(no_sync_probability=1.0, delay=6)
    assert same(delayed[3], alone[3])


def test_clips_with_a_delay_have_a_file_of_their_own(make):
    files = [make(num_frames=9, num_clips=2, size=4, pregenerate=True, delay=delay).processed_paths for delay in (0, 3)]
    assert files[0] != files[1]


def test_workers_and_batch_sizes_make_no_difference(make):
    dataset = make(num_clips=12, size=32)
    expected = Batch.from_data_list(list(dataset))
    for batch_size, workers in [(5, 0), (5, 2), (3, 1)]:
        batches = list(DataLoader(dataset, batch_size=batch_size, num_workers=workers))
        for name in FIELDS:
            assert torch.equal(torch.cat([batch[name] for batch in batches]), expected[name])


@pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn, whose digits a worker reads, is not installed"
)
def test_spawned_worker(tmp_path):
    dataset = SyncMNIST(tmp_path, digits="sklearn", num_clips=4, size=32)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    batch = next(iter(loader))
    for name in FIELDS:
        assert torch.equal(batch[name], torch.cat([data[name] for data in dataset]))


def test_pickles_are_small(make):
    for dataset in (make(num_clips=50), make(num_clips=50, pregenerate=True)):
        dataset[0]
        content = pickle.dumps(dataset)
        assert len(content) < 2000
        assert same(pickle.loads(content)[4], dataset[4])


def test_global_generators_are_neither_used_nor_touched(make):
    dataset = make()
    torch.manual_seed(0)
    np.random.seed(0)
    before = dataset[0]
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    assert same(dataset[0], before)
    assert (torch.rand(1), np.random.rand()) == expected
    assert same(dataset[0], before)


def test_training_and_test_split_share_nothing(make):
    train, test = make(), make(train=False)
    images = {image.tobytes() for image in train._digits.images}
    assert not images & {image.tobytes() for image in test._digits.images}
    paths = [{tuple(split[i].path.flatten().tolist()) for i in range(20)} for split in (train, test)]
    assert not paths[0] & paths[1]


# Arguments


def test_bad_arguments(make):
    for kwargs, message in [
        ({"num_digits": 1}, "'num_digits' to be an integer within 2 to 10, got 1"),
        ({"num_digits": 11}, "'num_digits' to be an integer within 2 to 10, got 11"),
        ({"num_digits": 5.0}, r"'num_digits' to be an integer within 2 to 10, got 5\.0"),
        ({"num_digits": True}, "'num_digits' to be an integer .* got True"),
        ({"train": "test"}, "'train' to be True or False, got str"),
        ({"num_frames": 0}, "'num_frames' to be an integer of at least 1, got 0"),
        ({"delay": -1}, "'delay' to be an integer of at least 0, got -1"),
        ({"delay": 5, "num_frames": 5}, "'num_frames' to be more than delay=5, got 5"),
        ({"size": 0}, "'size' to be an integer of at least 1, got 0"),
        ({"size": (64, 64)}, r"'size' to be an integer of at least 1, got \(64, 64\)"),
        ({"num_clips": 0}, "'num_clips' to be an integer of at least 1, got 0"),
        ({"seed": -1}, "'seed' to be an integer within 0 to .* got -1"),
        ({"seed": None}, "'seed' to be an integer .* got None"),
        ({"no_sync_probability": 1.5}, r"'no_sync_probability' to be a number within 0 to 1, got 1\.5"),
        ({"no_sync_probability": "half"}, "'no_sync_probability' to be a number .* got 'half'"),
        ({"pregenerate": "yes"}, "'pregenerate' to be True or False, got str"),
        ({"transform": 3}, "'transform' to be callable or None, got 3"),
        ({"log": 2}, "'log' to be True or False, got 2"),
    ]:
        with case(kwargs), pytest.raises(ValueError, match=f"expected {message}"):
            make(**kwargs)


def test_bad_paths(tmp_path):
    with pytest.raises(ValueError, match="expected 'root' to be a path, got None"):
        SyncMNIST(None)
    with pytest.raises(ValueError, match="expected 'mnist_dir' to be a path or None, got 3"):
        SyncMNIST(tmp_path, mnist_dir=3)


def test_bad_clip_number(make):
    dataset = make(num_clips=3)
    assert same(dataset[-1], dataset[2])
    for number in (-1, 3):
        with pytest.raises(IndexError, match=f"clip number within 0 to 2, got {number}"):
            dataset.get(number)
    for number in (3, -4, torch.tensor(3), [0, 3], torch.tensor([0, 3]), np.array([3])):
        with pytest.raises(IndexError, match=r"^expected the number of a clip within 0 to 2, got (3|-4)$"):
            dataset[number]
    assert len(dataset[np.array([True, False, True])][torch.tensor([0, -1])]) == 2
