"""Clips made in batches on a device: the bytes of the items of the dataset."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import case
from clip_fields import FIELDS, same
from torch_geometric.loader import DataLoader
from torch_geometric.testing import onlyCUDA, withCUDA

from rstg_pyg.datasets import ClipGenerator, SyncMNIST

MNIST = os.environ.get("RSTG_PYG_MNIST")
PATHS = Path(os.environ.get("RSTG_PYG_REFERENCE", ""), "predefined_path_test.pickle")
CPU = torch.device("cpu")


def check(dataset, index, device=CPU):
    """Holds a batch against the items one by one."""
    batch = ClipGenerator(dataset, device)(index)
    assert {batch[name].device.type for name in FIELDS} == {torch.device(device).type}
    batch = batch.cpu()
    items = next(iter(DataLoader([dataset[int(i)] for i in index], batch_size=len(index))))
    assert set(batch.keys()) == set(FIELDS)
    assert {name: batch[name].dtype for name in FIELDS} == {name: items[name].dtype for name in FIELDS}
    assert same(batch, items)
    assert batch.num_graphs == items.num_graphs


# The bytes of the items


@withCUDA
def test_shapes_of_clips(make, device):
    for num_digits, num_frames, size in [(2, 1, 1), (3, 4, 32), (5, 10, 64), (10, 3, 100)]:
        with case(num_digits, num_frames, size):
            check(make(num_digits=num_digits, num_frames=num_frames, size=size), range(9), device)


@withCUDA
def test_seeds_splits_and_large_numbers(make, device):
    index = torch.tensor([5, 0, 600_000, 2**40 - 1, 2**32 + 7, 5])
    for train, seed, size in [(True, 0, 64), (False, 2**64 - 1, 17), (True, 2**63, 150)]:
        with case(train, seed, size):
            check(make(train=train, seed=seed, size=size, num_clips=2**40, num_frames=4), index, device)


@withCUDA
def test_share_of_clips_without_a_pair_in_step(make, device):
    for probability in (0, 1 / 92, 1):
        with case(probability):
            check(make(no_sync_probability=probability, size=4, num_digits=3), range(0, 400, 4), device)


@withCUDA
def test_clips_with_a_delay(make, device):
    check(make(delay=3, no_sync_probability=0.3, size=8), range(40), device)


@withCUDA
@pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
def test_mnist(tmp_path, device):
    dataset = SyncMNIST(tmp_path, 3, mnist_dir=MNIST, num_clips=700_000)
    check(dataset, torch.arange(0, 700_000, 17_500), device)


@withCUDA
@pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
@pytest.mark.skipif(not PATHS.is_file(), reason="RSTG_PYG_REFERENCE does not name the folder with the authors' paths")
def test_paths_of_the_authors(tmp_path, device):
    dataset = SyncMNIST(tmp_path, train=False, mnist_dir=MNIST, paths=PATHS)
    check(dataset, range(9_999, 0, -200), device)


def test_clips_generated_ahead_of_time(make):
    check(make(num_clips=6, pregenerate=True), range(6))


def test_selections_count_by_their_own_numbers(make):
    dataset = make(size=8)[torch.tensor([70, 3, 500_000, 8])]
    check(dataset, range(4))
    check(dataset, torch.tensor([2, 0]))
    with pytest.raises(IndexError, match=r"^expected clip numbers within 0 to 3, got 4$"):
        ClipGenerator(dataset)(range(5))


def test_a_batch_is_its_clips_one_by_one(make):
    make_clips = ClipGenerator(make(num_digits=3, size=16))
    batch = make_clips(range(20, 4, -3))
    for place, number in enumerate(range(20, 4, -3)):
        single = make_clips(torch.tensor([number]))
        assert all(torch.equal(batch[name][place], single[name][0]) for name in FIELDS)


# Running ahead


def test_no_value_is_read_on_the_way(make):
    # Tensors of the meta device have no values: reading one, as a wait for a device would, is an error.
    dataset = make(num_digits=3)
    for selected in (dataset, dataset[3:90]):
        make_clips = ClipGenerator(selected, "meta")
        for index in (range(7), torch.arange(7), torch.arange(7, device="meta")):
            assert make_clips(index).video.shape == (7, 1, 10, 64, 64)


def test_compiled(make):
    make_clips = ClipGenerator(make(num_digits=2, num_frames=2, size=8))
    compiled = torch.compile(lambda index: make_clips(index).video / 255, backend="eager")
    assert torch.equal(compiled(range(5)), make_clips(range(5)).video / 255)


@onlyCUDA
def test_queued_and_captured_on_cuda(make):
    dataset = make(num_digits=3)
    make_clips, index = ClipGenerator(dataset, "cuda"), torch.arange(8, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        make_clips(index)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for numbers in (range(8), torch.arange(8), index):
            make_clips(numbers)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batch = make_clips(index)
    index.add_(100)
    graph.replay()
    assert same(batch, ClipGenerator(dataset, "cuda")(range(100, 108)))


# Errors


def test_numbers_beyond_the_dataset(make):
    make_clips = ClipGenerator(make(num_clips=10))
    for index in (range(8, 11), range(10, 7, -1), torch.tensor([3, 10, 2])):
        with case(index), pytest.raises(IndexError, match=r"^expected clip numbers within 0 to 9, got 10$"):
            make_clips(index)
    for index in (range(3, -2, -1), torch.tensor([3, -1])):
        with case(index), pytest.raises(IndexError, match=r"^expected clip numbers within 0 to 9, got -1$"):
            make_clips(index)


def test_wrong_index(make):
    make_clips = ClipGenerator(make())
    kinds = [([1, 2], "list"), (3, "int"), (torch.ones(2), r"a tensor of torch\.float32"), (np.arange(2), "ndarray")]
    for index, found in kinds:
        message = rf"^expected 'index' to be a range or a tensor of torch\.int64, got {found}$"
        with case(index), pytest.raises(ValueError, match=message):
            make_clips(index)
    for index, shape in [(range(0), r"\[0\]"), (torch.tensor(1), r"\[\]"), (torch.ones(2, 1).long(), r"\[2, 1\]")]:
        message = rf"^expected 'index' to be of shape \[B\] with B > 0, got {shape}$"
        with case(index), pytest.raises(ValueError, match=message):
            make_clips(index)


def test_wrong_dataset(make):
    with pytest.raises(ValueError, match=r"^expected 'dataset' to be a SyncMNIST, got list$"):
        ClipGenerator([make()[0]])
    message = r"^expected 'dataset' to have no transform, which works on single clips and not on batches, got <"
    with pytest.raises(ValueError, match=message):
        ClipGenerator(make(transform=lambda data: data))
