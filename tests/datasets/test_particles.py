"""Particles in a box: physics, numbers that depend on seed and number alone, the protocol's naive errors."""

import numpy as np
import pytest
import torch

from rstg_pyg.datasets import Particles
from rstg_pyg.datasets.particle_motion import BOX, COULOMB, KINDS, SPEED, STIFFNESS, draw_start, simulate
from rstg_pyg.files import FileError
from rstg_pyg.temporal import Series

NAIVE = {"springs": (1.06e-4, 1.02e-2, 3.76e-2), "charges": (7.2e-3, 2.7e-2, 6.0e-2)}
"""Mean squared errors after 1, 10 and 20 frames of a guess that nothing moves."""

SCALES = {
    "springs": torch.tensor([[-3.77, 3.54], [-1.29, 1.29]]),
    "charges": torch.tensor([[-5.0, 5.0], [-6.11, 5.62]]),
}
"""The extremes of 2,000 training simulations."""


def draw(kind, numbers, num_particles=5, series=0):
    drawn = [draw_start(kind, 3, series, number, num_particles) for number in numbers]
    return tuple(np.stack(part) for part in zip(*drawn, strict=True))


def energy(kind, frames, interaction):
    apart = np.linalg.norm(frames[:, :, None, :, :2] - frames[:, None, :, :, :2], axis=-1)
    acts = interaction[..., None]
    if kind == "springs":
        potential = STIFFNESS / 2 * acts * apart**2
    else:
        potential = COULOMB * acts / np.where(acts == 0, 1, apart)
    return (frames[..., 2:] ** 2).sum((1, 3)) / 2 + potential.sum((1, 2)) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_energy_is_conserved_also_by_the_walls(kind):
    start, interaction = draw(kind, range(40))
    if kind == "charges":
        # Unlike charges that all but meet gain or lose energy: the step is too long for them, and forces are bounded.
        interaction = np.abs(interaction)
    start[:, :2] += [[4.0], [0.0]]
    start[:, 0] = BOX - abs(BOX - start[:, 0])
    frames = simulate(kind, start, interaction, 30)
    assert np.abs(frames[..., :2]).max() <= BOX
    turned = (frames[:, :, 1:, 2] < 0) & (frames[:, :, :-1, 2] > 0) & (frames[:, :, 1:, 0] > BOX - 0.2)
    assert turned.sum() > 20
    total = energy(kind, frames, interaction)
    drift = np.abs(total - total[:, :1]).max(1)
    assert np.median(drift) < (1e-6 if kind == "springs" else 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_bits_of_a_sine_change_nothing(kind, monkeypatch):
    start, _ = draw(kind, range(50))
    for name in ("sin", "cos", "log1p"):
        function = getattr(np, name)
        monkeypatch.setattr(np, name, lambda x, function=function: np.nextafter(function(x), 9))
    np.testing.assert_array_equal(draw(kind, range(50))[0], start)


def test_two_joined_particles_swing_as_a_formula_says():
    start = np.array([[[-0.3, 0.3], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    frames = simulate("springs", start, np.array([[[0.0, 1.0], [1.0, 0.0]]]), 40)
    time = 0.1 * np.arange(40)
    np.testing.assert_allclose(frames[0, 1, :, 0], 0.3 * np.cos(np.sqrt(2 * STIFFNESS) * time), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_like_charges_part_and_springs_pull(kind):
    start = np.array([[[-0.5, 0.5], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    frames = simulate(kind, start, 1 - np.eye(2)[None], 5)
    apart = np.diff(frames[0, 1, :, 0] - frames[0, 0, :, 0])
    assert (apart > 0).all() if kind == "charges" else (apart < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulation_does_not_depend_on_those_beside_it_nor_on_its_length(kind):
    start, interaction = draw(kind, range(300))
    many, one = simulate(kind, start, interaction, 4), simulate(kind, start[290:291], interaction[290:291], 9)
    np.testing.assert_array_equal(many[290], one[0, :, :4])
    order = np.array([3, 0, 2, 4, 1])
    other = simulate(kind, start[:9, :, order], interaction[:9][:, order][:, :, order], 4)
    np.testing.assert_allclose(other, many[:9, order], atol=1e-9)


def test_starts_are_as_published():
    start, interaction = draw("springs", range(400))
    np.testing.assert_allclose(np.hypot(start[:, 2], start[:, 3]), SPEED)
    assert start[:, :2].std() == pytest.approx(0.5, abs=0.02)
    assert start[:, 2:].mean() == pytest.approx(0, abs=0.02)
    pairs = interaction[:, *np.triu_indices(5, 1)]
    assert pairs.mean() == pytest.approx(0.5, abs=0.03)
    start, interaction = draw("charges", range(400))
    assert start[:, :2].std() == pytest.approx(1, abs=0.04)
    # Of three particles, one pair or three have like charges.
    assert (interaction[:, 0, 1] * interaction[:, 1, 2] * interaction[:, 0, 2] == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_graphs_in_time(tmp_path, kind):
    train = Particles(tmp_path, kind, num_simulations=30, history=9, horizon=4, log=False)
    data, (low, high) = train[7], train.scale.unbind(1)
    assert data.x.shape == (5, 9, 4) and data.y.shape == (5, 4, 4) and data.edge_label.shape == (20,)
    assert Series(data).num_frames == 9
    frames = torch.stack([torch.cat([item.x, item.y], 1) for item in train])
    for part in frames.split(2, -1):
        assert part.min().item() == pytest.approx(-1, abs=1e-5) and part.max().item() == pytest.approx(1, abs=1e-5)
    start, interaction = draw_start(kind, 0, KINDS.index(kind), 7, 5)
    expected = torch.from_numpy(start.T) - low.repeat_interleave(2)
    expected = 2 * expected / (high - low).repeat_interleave(2) - 1
    torch.testing.assert_close(data.x[:, 0].double(), expected, atol=1e-6, rtol=0)
    pulls = torch.from_numpy(interaction)[*data.edge_index] * (1 if kind == "springs" else -1) > 0
    assert torch.equal(data.edge_label, pulls.long())


def test_splits_are_other_simulations_in_the_scale_of_the_training_set(tmp_path, capsys):
    options = {"num_simulations": 6, "history": 3, "horizon": 2}
    train = Particles(tmp_path, **options)
    assert "Simulating 6 times" in capsys.readouterr().err
    test = Particles(tmp_path, split="test", scale=train.scale, **options, log=False)
    assert not torch.equal(test[0].x, train[0].x)
    assert torch.equal(test.scale, train.scale)
    assert torch.equal(Particles(tmp_path, **options)[5].x, train[5].x)
    assert capsys.readouterr().err == ""
    more = Particles(tmp_path, num_simulations=8, history=3, horizon=2, scale=train.scale, log=False)
    assert torch.equal(more[5].x, train[5].x) and torch.equal(more[5].edge_label, train[5].edge_label)
    assert not torch.equal(Particles(tmp_path, **options, seed=1, scale=train.scale, log=False)[0].x, train[0].x)


@pytest.mark.parametrize("kind", KINDS)
def test_without_motion_the_error_is_that_of_the_protocol(tmp_path, kind):
    test = Particles(tmp_path, kind, "test", num_simulations=150, scale=SCALES[kind], log=False)
    errors = torch.stack([(item.y - item.x[:, -1:]).square().mean((0, 2)) for item in test]).mean(0)
    for frame, naive in zip((1, 10, 20), NAIVE[kind], strict=True):
        assert errors[frame - 1].item() == pytest.approx(naive, rel=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "magnets"}, "expected 'kind' to be one of 'springs', 'charges', got 'magnets'"),
        ({"split": "dev"}, "expected 'split' to be one of"),
        ({"horizon": 49}, "expected a 'horizon' below 49"),
        ({"history": 0}, "expected 'history' to be a positive int, got 0"),
        ({"num_particles": 1}, "expected 'num_particles' to be 2 or more, got 1"),
        ({"seed": -1}, "expected 'seed'"),
        ({"scale": torch.ones(2)}, r"expected 'scale' of shape \[2, 2\], got \[2\]"),
    ],
)
def test_bad_arguments_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Particles(tmp_path, **options)


def test_a_damaged_file_is_named(tmp_path):
    options = {"num_simulations": 3, "history": 2, "horizon": 1, "log": False}
    path = Particles(tmp_path, **options).processed_paths[0]
    with open(path, "rb") as file:
        content = bytearray(file.read())
    for damaged in (content[:-40], b"", content[:400] + bytes([content[400] ^ 1]) + content[401:]):
        with open(path, "wb") as file:
            file.write(damaged)
        with pytest.raises(FileError, match=r"springs_train.*to be a file of simulations \(delete it"):
            Particles(tmp_path, **options)
