import pytest
import torch

from rstg_pyg.datasets.video import crop_offsets, resize, short_side_to, spread_crops
from rstg_pyg.datasets.video.augment import random_crop


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


@pytest.mark.parametrize(
    ("length", "size", "count", "expected"),
    [
        (451, 256, 11, [0, 20, 39, 59, 78, 98, 117, 137, 156, 176, 195]),
        (456, 256, 11, list(range(0, 201, 20))),
        (456, 256, 3, [0, 100, 200]),
        (256, 256, 11, [0] * 11),
        (261, 256, 11, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (9, 4, 1, [3]),
        (8, 4, 1, [2]),
    ],
)
def test_places_of_the_crops(length, size, count, expected):
    assert crop_offsets(length, size, count) == expected


@pytest.mark.parametrize("upright", [False, True])
def test_crops_lie_along_the_longer_side(upright):
    video = grid(10, 25).permute(3, 0, 1, 2)
    crops = spread_crops(video.transpose(2, 3) if upright else video, 8, 11)
    assert crops.shape == (11, 3, 2, 8, 8)
    offsets = crop_offsets(25, 8, 11)
    for crop, offset in zip(crops, offsets, strict=True):
        crop = crop.transpose(2, 3) if upright else crop
        assert torch.equal(crop, video[:, :, 1:9, offset : offset + 8])


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
