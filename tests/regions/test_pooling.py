from fractions import Fraction

import pytest
import torch

from rstg_pyg import RegionPool, RegionProject

SIZES = [(6, 6), (14, 14), (7, 5), (3, 10), (2, 2), (1, 1)]
SCALES = [(3, 2, 1), ((2, 4), 3), (1, 5)]


def overlap_areas(scales, height, width):
    """Common area of every region with every pixel of a map, in pixels: ``[N, H, W]``."""
    areas = []
    for scale in scales:
        rows, columns = (scale, scale) if isinstance(scale, int) else scale
        for row in range(rows):
            for column in range(columns):
                along_y = [common(row, rows, y, height) for y in range(height)]
                along_x = [common(column, columns, x, width) for x in range(width)]
                areas.append([[float(a * b) for b in along_x] for a in along_y])
    return torch.tensor(areas, dtype=torch.float64)


def common(cell, cells, pixel, pixels):
    """Common length of a cell and a pixel of one axis, in pixels, as a fraction."""
    low = max(Fraction(cell * pixels, cells), Fraction(pixel))
    high = min(Fraction((cell + 1) * pixels, cells), Fraction(pixel + 1))
    return max(Fraction(0), high - low)


@pytest.mark.parametrize("size", SIZES)
def test_pooling_is_the_area_weighted_mean(size):
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    for scales in SCALES:
        area = overlap_areas(scales, *size)
        expected = torch.einsum("bcyx,nyx->bnc", features, area) / area.sum((-1, -2))[:, None]
        torch.testing.assert_close(RegionPool(scales)(features), expected, msg=lambda m, s=scales: f"{s}: {m}")


@pytest.mark.parametrize("size", SIZES)
def test_projection_is_the_area_weighted_sum(size):
    for scales in SCALES:
        area = overlap_areas(scales, *size)
        regions = torch.randn(2, len(area), 3, dtype=torch.float64)
        expected = torch.einsum("bnc,nyx->bcyx", regions, area)
        torch.testing.assert_close(RegionProject(scales)(regions, size), expected, msg=lambda m, s=scales: f"{s}: {m}")


def test_constants_stay_constant():
    scales = (3, 2, 1)
    for size in SIZES:
        pooled = RegionPool(scales)(torch.full((1, 1, *size), 5.0, dtype=torch.float64))
        torch.testing.assert_close(pooled, torch.full_like(pooled, 5.0))
        projected = RegionProject(scales)(pooled, size)
        torch.testing.assert_close(projected, torch.full_like(projected, 5.0 * len(scales)))


def test_what_is_kept_follows_its_buffer_and_the_map():
    volume, small = torch.randn(2, 3, 6, 6), torch.randn(2, 3, 5, 4)
    for make, run in (
        (RegionPool, lambda layer, maps: layer(maps)),
        (RegionProject, lambda layer, maps: layer(maps.flatten(1)[:, :10].unflatten(1, (5, 2)), maps.shape[-2:])),
    ):
        layer = make((2, 1))
        with torch.inference_mode():
            expected = [run(make((2, 1)), maps) for maps in (volume.double(), small, volume)]
            found = [run(layer, maps) for maps in (volume.double(), small, volume)]
        torch.testing.assert_close(found, expected)
        run(layer, volume.requires_grad_()).sum().backward()  # what inference made would not be kept for it
        changed = make((2, 1))
        changed.cells.copy_(changed.cells.flip(0))
        layer.cells.copy_(layer.cells.flip(0))
        torch.testing.assert_close(run(layer, volume), run(changed, volume))
        assert not torch.equal(run(layer, volume), expected[-1])
        layer.cells.data = make((2, 1)).cells
        torch.testing.assert_close(run(layer, volume), expected[-1])


def test_a_grid_of_the_size_of_the_map_loses_nothing():
    features = torch.randn(2, 3, 4, 5)
    regions = RegionPool([(4, 5)])(features)
    torch.testing.assert_close(regions, features.flatten(-2).transpose(-1, -2))
    torch.testing.assert_close(RegionProject([(4, 5)])(regions, (4, 5)), features)


def test_projection_is_not_the_transpose_of_pooling():
    weight = RegionProject([1])(torch.ones(1, 1), (2, 2))
    assert weight.tolist() == [[[1, 1], [1, 1]]]
    assert RegionPool([1])(torch.ones(1, 2, 2)).tolist() == [[1]]


def test_gradients():
    features = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(RegionPool((3, 2)), (features,), fast_mode=True)
    regions = torch.randn(13, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: RegionProject((3, 2))(r, (5, 4)), (regions,), fast_mode=True)


def test_one_module_takes_any_size_and_any_leading_dimensions():
    pool = RegionPool((3, 2, 1))
    assert pool(torch.randn(2, 7, 9)).shape == (14, 2)
    assert pool(torch.randn(4, 3, 2, 12, 16)).shape == (4, 3, 14, 2)
    assert pool.num_regions == 14
    assert repr(pool) == "RegionPool(scales=((3, 3), (2, 2), (1, 1)))"


def test_nothing_is_stored_in_the_state_dict():
    assert not RegionPool().state_dict()
    assert not RegionProject().state_dict()


def test_pool_refuses():
    for features in (torch.randn(6, 6), torch.ones(1, 6, 6, dtype=torch.uint8), torch.randn(1, 0, 6), None):
        with pytest.raises(ValueError, match=r"floating point features of shape \[\*, C, H, W\] with H and W of at"):
            RegionPool()(features)


def test_project_refuses_another_number_of_regions():
    with pytest.raises(ValueError, match=r"\[\*, 14, C\].*got \[2, 13, 4\]"):
        RegionProject((3, 2, 1))(torch.randn(2, 13, 4), (6, 6))


def test_project_refuses_a_size_that_is_no_pair():
    for size in (6, (6,), (6, 0), (6, 2.0), (True, 6), (6, 6, 6), "66", None, torch.tensor([6, 6])):
        with pytest.raises(ValueError, match=r"^expected 'size' to be a pair \(H, W\) of positive ints, got "):
            RegionProject((2, 1))(torch.randn(5, 4), size)
