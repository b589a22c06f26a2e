"""Clips made in batches on a device: the bytes of the items of the dataset."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_fields import FIELDS, same
from rstg_pyg.datasets.device_render import ClipRenderer
from rstg_pyg.datasets.motion import draw_starts
from rstg_pyg.datasets.resize import resize_bilinear
from torch_geometric.loader import DataLoader
from torch_geometric.testing import onlyCUDA, withCUDA

from rstg_pyg.datasets import ClipGenerator, SyncMNIST, generator, render_clip, walk

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
@pytest.mark.parametrize(("num_digits", "num_frames", "size"), [(2, 1, 1), (3, 4, 32), (5, 10, 64), (10, 3, 100)])
def test_shapes_of_clips(make, num_digits, num_frames, size, device):
    check(make(num_digits=num_digits, num_frames=num_frames, size=size), range(9), device)


@withCUDA
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("seed", "size"), [(0, 64), (2**64 - 1, 17), (2**63, 150)])
def test_seeds_and_splits(tmp_path, train, seed, size, device):
    dataset = SyncMNIST(tmp_path, train=train, digits="sklearn", seed=seed, size=size, num_clips=2**40, num_frames=4)
    check(dataset, torch.tensor([5, 0, 600_000, 2**40 - 1, 2**32 + 7, 5]), device)


@withCUDA
@pytest.mark.parametrize("probability", [0, 1 / 92, 0.5, 1])
def test_share_of_clips_without_a_pair_in_step(make, probability, device):
    check(make(no_sync_probability=probability, size=4, num_digits=3), range(0, 400, 2), device)


@withCUDA
@pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
@pytest.mark.parametrize(("num_digits", "train", "size"), [(2, True, 64), (5, False, 64), (10, True, 32)])
def test_mnist(tmp_path, num_digits, train, size, device):
    dataset = SyncMNIST(tmp_path, num_digits, train, size=size, mnist_dir=MNIST, num_clips=700_000)
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


@pytest.mark.parametrize("at_once", [0, 2, 3])
def test_large_batches_are_drawn_in_rounds(make, monkeypatch, at_once):
    dataset = make(size=16, num_frames=2)
    size = ClipGenerator(dataset)._render.bytes_per_clip(dataset.num_digits, dataset.num_frames)
    monkeypatch.setattr(generator, "DRAWING_BYTES_CPU", size * at_once)
    check(dataset, range(7))


# Its parts against NumPy


@withCUDA
def test_walks_from_the_borders(make, device):
    random = np.random.default_rng(0)
    ends = np.array([0, 1 - 2**-53, 0.5])
    starts, steps = random.choice(ends, (200, 3, 2)), random.choice(ends, (200, 6, 3, 2))
    in_step = random.random(200) < 0.7
    starts[0, :2], in_step[0] = [[0, 0], [ends[1], 0.5]], True
    path = ClipGenerator(make(num_digits=3), device)._sample._walk(
        *(torch.from_numpy(array).to(device) for array in (starts, steps, in_step))
    )
    expected = walk(draw_starts(starts), steps, in_step)
    assert (expected[0, :2, :, 0] == [[0], [71]]).all()
    assert (path.cpu().numpy() == expected).all()


@withCUDA
@pytest.mark.parametrize("size", [64, 100])
def test_dim_digits_are_stretched_frame_by_frame(size, device):
    random = np.random.default_rng(0)
    brightest = np.arange(10, 256, dtype=np.uint8)
    images = random.integers(0, brightest[:, None, None], (246, 28, 28), dtype=np.uint8, endpoint=True)
    images[:, ::3] = 0
    images[:, 1, 1] = brightest
    chosen, path = torch.arange(246).view(123, 2), torch.from_numpy(random.integers(0, 73, (123, 2, 3, 2)))
    frames = ClipRenderer(images, size, torch.device(device))(chosen.to(device), path.to(device)).cpu().numpy()
    for place in range(123):
        assert (frames[place] == render_clip(images[chosen[place]], path[place].numpy(), size)).all()


@withCUDA
@pytest.mark.parametrize("size", [1, 17, 32, 64, 99, 100, 150])
@pytest.mark.parametrize("way", ["_resize_by_products", "_resize_by_taps"])
def test_both_ways_of_resizing(way, size, device):
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (6, 100, 100), dtype=np.uint8)
    frames[:3] = random.choice(np.array([0, 255], dtype=np.uint8), (3, 100, 100))
    renderer = ClipRenderer(np.full((1, 28, 28), 255, dtype=np.uint8), size, torch.device(device))
    columns = torch.from_numpy(frames).permute(2, 0, 1).contiguous().to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        resized = getattr(renderer, way)(columns)
    assert (resized.cpu().numpy() == resize_bilinear(frames, size)).all()


# Running ahead


@pytest.mark.parametrize("selected", [False, True])
def test_no_value_is_read_on_the_way(make, selected):
    # Tensors of the meta device have no values: reading one, as a wait for a device would, is an error.
    dataset = make(num_digits=3)
    make_clips = ClipGenerator(dataset[3:90] if selected else dataset, "meta")
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


@pytest.mark.parametrize("index", [range(8, 11), range(10, 7, -1), torch.tensor([3, 10, 2])])
def test_numbers_beyond_the_dataset(make, index):
    with pytest.raises(IndexError, match=r"^expected clip numbers within 0 to 9, got 10$"):
        ClipGenerator(make(num_clips=10))(index)


@pytest.mark.parametrize("index", [range(3, -2, -1), torch.tensor([3, -1])])
def test_negative_numbers(make, index):
    with pytest.raises(IndexError, match=r"^expected clip numbers within 0 to 9, got -1$"):
        ClipGenerator(make(num_clips=10))(index)


@pytest.mark.parametrize(
    ("index", "found"),
    [([1, 2], "list"), (3, "int"), (torch.ones(2), "a tensor of torch.float32"), (np.arange(2), "ndarray")],
)
def test_wrong_type_of_index(make, index, found):
    message = rf"^expected 'index' to be a range or a tensor of torch\.int64, got {found}$"
    with pytest.raises(TypeError, match=message):
        ClipGenerator(make())(index)


@pytest.mark.parametrize(
    ("index", "shape"), [(range(0), r"\[0\]"), (torch.tensor(1), r"\[\]"), (torch.ones(2, 1).long(), r"\[2, 1\]")]
)
def test_wrong_shape_of_index(make, index, shape):
    with pytest.raises(ValueError, match=rf"^expected 'index' to be of shape \[B\] with B > 0, got {shape}$"):
        ClipGenerator(make())(index)


def test_wrong_dataset(make):
    with pytest.raises(TypeError, match=r"^expected 'dataset' to be a SyncMNIST, got list$"):
        ClipGenerator([make()[0]])
    message = r"^expected 'dataset' to have no transform, which works on single clips and not on batches, got <"
    with pytest.raises(ValueError, match=message):
        ClipGenerator(make(transform=lambda data: data))


def test_image_without_opaque_pixels():
    images = np.full((3, 28, 28), 255, dtype=np.uint8)
    images[1] = 9
    message = r"^expected every digit image to have a pixel of 10 or brighter, got none in image 1$"
    with pytest.raises(ValueError, match=message):
        ClipRenderer(images, 64, CPU)
