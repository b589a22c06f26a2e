import pytest
import torch

from rstg_pyg.datasets.video import change_colours
from rstg_pyg.datasets.video.augment import GREY


@pytest.mark.parametrize(
    "factors", [(1.3, 1, 1), (0.6, 1, 1), (1, 1.5, 1), (1, 0, 1), (1, 1, 1.7), (1, 1, 0), (0.8, 1.2, 0.9)]
)
def test_formula(factors):
    video = torch.randint(256, (3, 4, 10, 12), dtype=torch.uint8)
    brightness, contrast, saturation = factors
    x = video.double()
    grey = sum(weight * channel for weight, channel in zip(GREY, x, strict=True))
    x = saturation * x + (1 - saturation) * grey
    x = brightness * (contrast * x + (1 - contrast) * grey.mean())
    out = change_colours(video, *factors)
    assert out.dtype == torch.uint8
    assert (out.double() - x.clamp(0, 255)).abs().max() <= 0.6


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
