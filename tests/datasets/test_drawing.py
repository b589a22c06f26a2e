import importlib.util

import numpy as np
import pytest
from rstg_pyg.datasets.resize import resize_taps

from rstg_pyg.datasets import render_clip, resize_bilinear, stretch_contrast


def still(*corners):
    return np.array(corners).reshape(-1, 1, 2)


def sprite(value):
    return np.full((28, 28), value, dtype=np.uint8)


def test_black_where_nothing_is():
    frame = render_clip(sprite(255)[None], still((10, 40)), size=100)[0]
    expected = np.zeros((100, 100), dtype=np.uint8)
    expected[10:38, 40:68] = 255
    assert (frame == expected).all()


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


@pytest.mark.parametrize("corner", [(-1, 0), (0, 73)])
def test_sprite_outside_the_canvas(corner):
    with pytest.raises(ValueError, match=r"top-left corners within 0 to \[72, 72\], got"):
        render_clip(sprite(255)[None], still(corner))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected sprites \[D, h, w\] and path \[D, T, 2\], got \[1, 28, 28\]"):
        render_clip(sprite(255)[None], still((0, 0), (1, 1)))


def test_weights_of_a_small_case():
    index, weight = resize_taps(4, 2)
    # Halving: triangle of half-width 2 around 1 and 3; weights 3/4, 3/4, 1/4 of 7/4.
    dense = np.zeros((2, 4))
    for row in range(2):
        np.add.at(dense[row], index[:, row], weight[:, row] / 2**22)
    expected = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    assert np.abs(dense - expected).max() < 1e-6


@pytest.mark.parametrize("size", [1, 32, 64, 99, 100, 101, 250])
def test_constant_images_stay_constant(size):
    for value in (0, 1, 128, 254, 255):
        assert (resize_bilinear(np.full((1, 100, 100), value, dtype=np.uint8), size) == value).all()


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="Pillow, the yardstick, is not installed")
@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [(100, 64), (100, 32), (100, 37), (100, 1), (100, 100), (100, 224), (8, 20), (7, 3), (3, 7)],
)
def test_equals_pillow(size_in, size_out):
    from PIL import Image

    random = np.random.default_rng(size_out)
    images = random.integers(0, 256, (4, size_in, size_in), dtype=np.uint8)
    images[2:] = np.where(images[2:] > 127, 255, 0)
    expected = [Image.fromarray(image).resize((size_out, size_out), Image.Resampling.BILINEAR) for image in images]
    assert (resize_bilinear(images, size_out) == np.stack([np.asarray(image) for image in expected])).all()
