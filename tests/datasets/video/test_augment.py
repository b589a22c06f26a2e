"""Sizes, crops, colours and flips of clips."""

import pytest
import torch

from rstg_pyg.datasets.video import (
    change_colours,
    crop_offsets,
    mirror_classes,
    resize,
    short_side_to,
    spread_crops,
)
from rstg_pyg.datasets.video.augment import GREY, random_crop


def grid(height, width, frames=2):
    """Frames whose pixels say where they are: row, column, frame."""
    video = torch.empty(frames, height, width, 3, dtype=torch.uint8)
    video[..., 0] = torch.arange(height)[:, None]
    video[..., 1] = torch.arange(width)
    video[..., 2] = torch.arange(frames)[:, None, None]
    return video


def test_sizes_after_the_resize():
    assert short_side_to(100, 176, 256) == (256, 451)
    assert short_side_to(176, 100, 256) == (451, 256)
    assert short_side_to(240, 427, 256) == (256, 455)
    assert short_side_to(240, 240, 256) == (256, 256)
    assert short_side_to(3, 4, 6) == (6, 8)


def test_places_of_the_crops():
    for length, size, count, expected in (
        (451, 256, 11, [0, 20, 39, 59, 78, 98, 117, 137, 156, 176, 195]),
        (456, 256, 3, [0, 100, 200]),
        (256, 256, 11, [0] * 11),
        (261, 256, 11, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (9, 4, 1, [3]),
        (8, 4, 1, [2]),
    ):
        assert crop_offsets(length, size, count) == expected


def test_crops_lie_along_the_longer_side():
    video = grid(10, 25).permute(3, 0, 1, 2)
    crops = spread_crops(video, 8, 11)
    assert crops.shape == (11, 3, 2, 8, 8)
    for crop, offset in zip(crops, crop_offsets(25, 8, 11), strict=True):
        assert torch.equal(crop, video[:, :, 1:9, offset : offset + 8])
    assert torch.equal(spread_crops(video.transpose(2, 3), 8, 11), crops.transpose(3, 4))


def test_crops_larger_than_the_video():
    with pytest.raises(ValueError, match="expected a video of at least 8 x 8, got 7 x 20"):
        spread_crops(torch.zeros(3, 2, 7, 20), 8, 11)


def test_resize():
    video = grid(8, 12)
    assert torch.equal(resize(video, 8, 12), video.permute(0, 3, 1, 2))
    even = torch.full((1, 9, 7, 3), 77, dtype=torch.uint8)
    for size in ((3, 2), (18, 20)):
        assert resize(even, *size).shape == (1, 3, *size)
        assert (resize(even, *size) == 77).all()
    # A ramp stays a ramp, and its middle stays in the middle.
    ramp = (torch.arange(16) * 10).to(torch.uint8).expand(1, 4, 16)[..., None].expand(1, 4, 16, 3)
    half = resize(ramp, 2, 8)[0, 0, 0].double()
    torch.testing.assert_close(half[1:-1], 5 + 20.0 * torch.arange(1, 7).double(), atol=1, rtol=0)


def test_random_crops_cover_the_video_and_no_more():
    video = grid(20, 30)
    seen = set()
    for top in torch.linspace(0, 0.999, 40).tolist():
        for left in torch.linspace(0, 0.999, 40).tolist():
            crop = random_crop(video, size=10, short=20, positions=(top, left))
            assert crop.shape == (2, 3, 10, 10)
            row, column = crop[0, 0, 0, 0].item(), crop[0, 1, 0, 0].item()
            assert torch.equal(crop[1], video[1, row : row + 10, column : column + 10].permute(2, 0, 1))
            seen.add((row, column))
    assert seen == {(row, column) for row in range(11) for column in range(21)}


def test_random_crop_is_a_crop_of_the_resized_video():
    smooth = torch.nn.functional.interpolate(torch.rand(3, 3, 5, 8), (40, 64), mode="bicubic").clamp(0, 1)
    video = (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1)
    crop = random_crop(video, size=60, short=80, positions=(0.5, 0.5))
    whole = resize(video, 80, 128)
    # 30 of 40 rows and of 64 columns: from row 5 of 0..10, column 17 of 0..34.
    expected = whole[:, :, 10:70, 34:94]
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    assert (crop[inner].int() - expected[inner].int()).abs().max() <= 2


# Colours


def test_colours_change_by_the_formula():
    video = torch.randint(256, (3, 4, 10, 12), dtype=torch.uint8)
    for factors in ((1.3, 1, 1), (0.6, 1, 1), (1, 1.5, 1), (1, 0, 1), (1, 1, 1.7), (1, 1, 0), (0.8, 1.2, 0.9)):
        brightness, contrast, saturation = factors
        x = video.double()
        grey = sum(weight * channel for weight, channel in zip(GREY, x, strict=True))
        x = saturation * x + (1 - saturation) * grey
        x = brightness * (contrast * x + (1 - contrast) * grey.mean())
        out = change_colours(video, *factors)
        assert out.dtype == torch.uint8
        assert (out.double() - x.clamp(0, 255)).abs().max() <= 0.6, factors


def test_nothing_changes_without_a_change():
    video = torch.randint(256, (3, 2, 50, 60), dtype=torch.uint8)
    assert torch.equal(change_colours(video, 1, 1, 1), video)


def test_the_largest_factors_do_not_overflow():
    video = torch.full((3, 1, 4, 4), 255, dtype=torch.uint8)
    assert (change_colours(video, 2, 2, 2) == 255).all()
    assert (change_colours(video, 0, 2, 2) == 0).all()


def test_all_frames_change_alike():
    still = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8).expand(3, 5, 8, 8)
    out = change_colours(still, 1.2, 0.7, 1.3)
    assert (out == out[:, :1]).all()


def test_threads_make_no_difference():
    video = torch.randint(256, (3, 8, 100, 100), dtype=torch.uint8)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = change_colours(video, 1.1, 0.8, 1.3)
        torch.set_num_threads(3)
        assert torch.equal(change_colours(video, 1.1, 0.8, 1.3), one)
    finally:
        torch.set_num_threads(threads)


# Flips

CLASSES = [
    "Pulling something from left to right",
    "Pulling something from right to left",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
    "Putting something that can't actually stand upright upright on the table, so it falls on its side",
    "Moving something up",
    "Right something",
    "Lifting leftovers",
]


def test_which_classes_change_in_a_mirror():
    assert mirror_classes(CLASSES) == [1, 0, 3, 2, 4, 5, None, 7]
    assert mirror_classes(CLASSES[3::-1]) == [1, 0, 3, 2]


def flipped(make, flip, **kwargs):
    """For every video and some epochs: its class, the label, and whether the clip is the mirror image."""
    options = {"version": "v1", "views": "train", "colour_jitter": 0.0, "scale": (1.0, 1.0), **kwargs}
    plain, dataset = make(flip="never", **options), make(flip=flip, **options)
    results = []
    for epoch in range(12):
        for i in range(len(plain)):
            one, other = plain.clip(i, epoch), dataset.clip(i, epoch)
            is_mirrored = torch.equal(one.video.flip(-1), other.video)
            assert is_mirrored or torch.equal(one.video, other.video)
            results.append((plain.classes[one.y], plain.classes[other.y], is_mirrored))
    return results


def test_clips_of_classes_with_a_direction_are_never_flipped(make):
    results = flipped(make, "undirected")
    assert all(before == after for before, after, _ in results)
    assert not any(mirrored for name, _, mirrored in results if "left" in name)
    others = [mirrored for name, _, mirrored in results if "left" not in name]
    assert 0.3 < sum(others) / len(others) < 0.7


def test_swapping_changes_the_label_with_the_flip(make):
    results = flipped(make, "swap")
    assert 0.3 < sum(mirrored for _, _, mirrored in results) / len(results) < 0.7
    left, right = "Pushing something from right to left", "Pushing something from left to right"
    for before, after, mirrored in results:
        assert after == ({left: right, right: left}.get(before, before) if mirrored else before)
    assert {mirrored for before, _, mirrored in results if before == left} == {True, False}


def test_no_flip_at_evaluation(make):
    for views in ("centre", "22"):
        assert torch.equal(make(views=views, flip="swap")[0].video, make(views=views, flip="never")[0].video)
