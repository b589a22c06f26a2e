"""From digit images and paths to frames."""

import importlib.util

import numpy as np
import pytest
import torch
from cases import case
from torch_geometric.testing import withCUDA

from rstg_pyg.datasets import drawing, render_clip, resize_bilinear, stretch_contrast
from rstg_pyg.datasets.drawing import ClipRenderer, opaque_pixels, resize_taps


def still(*corners):
    return np.array(corners).reshape(-1, 1, 2)


def sprite(value):
    return np.full((28, 28), value, dtype=np.uint8)


def test_black_where_nothing_is():
    frame = render_clip(sprite(255)[None], still((10, 40)), size=100)[0]
    expected = np.zeros((100, 100), dtype=np.uint8)
    expected[10:38, 40:68] = 255
    assert (frame == expected).all()


def test_pixels_are_bytes():
    """Others went into native code, which read beyond them."""
    image = np.full((1, 8, 8), 0.5, dtype=np.float32)
    with pytest.raises(ValueError, match=r"expected images \[N, H, W\], uint8, got float32 of shape \[1, 8, 8\]"):
        resize_bilinear(image, 4)
    with pytest.raises(ValueError, match=r"expected a frame .* got int64"):
        stretch_contrast(np.arange(4))
    with pytest.raises(ValueError, match=r"expected sprites .* got float32"):
        render_clip(image, still((0, 0)))


def test_later_digit_hides_earlier_one_from_10_on():
    later = sprite(9)
    later[0, 0], later[0, 1] = 10, 128
    frame = render_clip(np.stack([sprite(255), later]), still((0, 0), (5, 5)), size=100)[0]
    assert frame[5, 5] == 10
    assert frame[5, 6] == 128
    # Pixels under 10 are transparent, over a digit and over the background alike.
    assert frame[6, 6] == 255
    assert frame[30, 30] == 0


def test_frames_are_stretched_one_by_one():
    path = np.array([[[0, 0], [0, 0]], [[0, 0], [50, 50]]])
    frames = render_clip(np.stack([sprite(100), sprite(250)]), path, size=100)
    assert np.unique(frames[0]).tolist() == [0, 255]
    assert np.unique(frames[1]).tolist() == [0, 102, 255]


def test_stretch():
    frame = np.array([[3, 4], [5, 13]], dtype=np.uint8)
    assert stretch_contrast(frame).tolist() == [[0, 26], [51, 255]]
    assert stretch_contrast(np.full((2, 2), 7, dtype=np.uint8)).tolist() == [[0, 0], [0, 0]]
    full = np.array([0, 17, 255], dtype=np.uint8)
    assert (stretch_contrast(full) == full).all()


def test_corners_of_the_canvas_are_reached():
    frame = render_clip(np.stack([sprite(255)] * 2), still((0, 72), (72, 0)), size=100)[0]
    assert frame[0, 99] == frame[99, 0] == 255
    assert frame[0, 0] == frame[99, 99] == 0


def test_large_sprites_may_leave_no_pixel_black():
    sprite = np.full((100, 100), 90, dtype=np.uint8)
    sprite[3, 4], sprite[5, 6] = 40, 140
    frame = render_clip(sprite[None], still((0, 0)), size=100)[0]
    assert (frame == stretch_contrast(sprite)).all()
    assert (frame[3, 4], frame[5, 6], frame[0, 0]) == (0, 255, 127)


def test_what_is_not_there_is_not_drawn():
    frame = render_clip(np.stack([sprite(255), sprite(9)]), still((3, 3), (5, 5)))
    assert (frame == render_clip(sprite(255)[None], still((3, 3)))).all()
    assert not render_clip(sprite(9)[None], still((3, 3))).any()
    assert render_clip(sprite(255)[None], np.zeros((1, 0, 2), dtype=int), size=7).shape == (0, 7, 7)


def test_wrong_arguments():
    for corner in [(-1, 0), (0, 73)]:
        with pytest.raises(ValueError, match=r"top-left corners within 0 to \[72, 72\], got"):
            render_clip(sprite(255)[None], still(corner))
    with pytest.raises(ValueError, match=r"expected sprites \[D, h, w\] and path \[D, T, 2\], got \[1, 28, 28\]"):
        render_clip(sprite(255)[None], still((0, 0), (1, 1)))
    images = np.stack([sprite(255), sprite(9), sprite(255)])
    message = r"^expected every digit image to have a pixel of 10 or brighter, got none in image 1$"
    with pytest.raises(ValueError, match=message):
        opaque_pixels(images)


def test_weights_of_a_small_case():
    index, weight = resize_taps(4, 2)
    # Halving: triangle of half-width 2 around 1 and 3; weights 3/4, 3/4, 1/4 of 7/4.
    dense = np.zeros((2, 4))
    for row in range(2):
        np.add.at(dense[row], index[:, row], weight[:, row] / 2**22)
    expected = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    assert np.abs(dense - expected).max() < 1e-6


def test_constant_images_stay_constant():
    values = np.array([0, 1, 128, 254, 255], dtype=np.uint8)[:, None, None]
    for size in (1, 32, 64, 99, 100, 101, 250):
        with case(size):
            assert (resize_bilinear(np.broadcast_to(values, (5, 100, 100)), size) == values).all()


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="Pillow, the yardstick, is not installed")
def test_equals_pillow():
    from PIL import Image

    random = np.random.default_rng(0)
    shapes = [(100, 100, size) for size in (64, 32, 37, 1, 100, 224)]
    for height, width, size in [*shapes, (8, 8, 20), (7, 7, 3), (3, 3, 7), (30, 50, 20)]:
        images = random.integers(0, 256, (4, height, width), dtype=np.uint8)
        images[2:] = np.where(images[2:] > 127, 255, 0)
        expected = [Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR) for image in images]
        with case(height, width, size):
            assert (resize_bilinear(images, size) == np.stack([np.asarray(image) for image in expected])).all()


def test_native_code_resizes_as_pytorch_does(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (5, 37, 100), dtype=np.uint8)
    found = [resize_bilinear(images, size) for size in (32, 64, 1)]
    monkeypatch.setattr(drawing, "library", lambda *source: None)
    for size, frames in zip((32, 64, 1), found, strict=True):
        assert (resize_bilinear(images, size) == frames).all()


@withCUDA
def test_products_resize_as_sums_do(device):
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (6, 100, 100), dtype=np.uint8)
    frames[:3] = random.choice(np.array([0, 255], dtype=np.uint8), (3, 100, 100))
    columns = torch.from_numpy(frames).permute(2, 0, 1).contiguous().to(device)
    for size in (1, 17, 32, 64, 99, 100, 150):
        renderer = ClipRenderer(opaque_pixels(sprite(255)[None]), size, torch.device(device))
        with case(size), torch.autocast(torch.device(device).type, torch.bfloat16):
            assert (renderer._resize_by_products(columns).cpu().numpy() == resize_bilinear(frames, size)).all()


@withCUDA
def test_dim_digits_are_stretched_frame_by_frame(device):
    random = np.random.default_rng(0)
    brightest = np.arange(10, 256, dtype=np.uint8)
    images = random.integers(0, brightest[:, None, None], (246, 28, 28), dtype=np.uint8, endpoint=True)
    images[:, ::3] = 0
    images[:, 1, 1] = brightest
    chosen, path = torch.arange(246).view(123, 2), torch.from_numpy(random.integers(0, 73, (123, 2, 3, 2)))
    render = ClipRenderer(opaque_pixels(images), 100, torch.device(device))
    frames = render(chosen.to(device), path.to(device)).cpu().numpy()
    for place in range(123):
        for time in range(3):
            canvas = np.zeros((100, 100), dtype=np.uint8)
            for image, (row, column) in zip(images[chosen[place]], path[place, :, time].tolist(), strict=True):
                window = canvas[row : row + 28, column : column + 28]
                window[image >= 10] = image[image >= 10]
            assert (frames[place, time] == stretch_contrast(canvas)).all()


def test_large_batches_are_drawn_in_rounds(monkeypatch):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (9, 28, 28), dtype=np.uint8)
    render = ClipRenderer(opaque_pixels(images), 16, torch.device("cpu"))
    chosen, path = torch.arange(9)[:, None], torch.from_numpy(random.integers(0, 73, (9, 1, 2, 2)))
    expected = render(chosen, path)
    for at_once in (0, 2, 3):
        monkeypatch.setattr(drawing, "ROUND_BYTES_CPU", at_once * render.bytes_per_clip(1, 2))
        with case(at_once):
            assert torch.equal(render(chosen, path), expected)
