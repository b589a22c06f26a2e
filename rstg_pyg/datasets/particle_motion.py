"""Particles in a box, joined by springs or carrying charges: their motion, from the physics.

Shape legend: S simulations, N particles, T frames kept.
"""

import numpy as np

from rstg_pyg.datasets.random_numbers import uniforms

KINDS = ("springs", "charges")

BOX = 5.0
"""Half the side of the box, whose walls are elastic."""

STEP, STEPS_PER_FRAME = 0.001, 100
LARGEST_FORCE = 0.1 / STEP
"""Each component of the force on a particle is cut to it: charges that meet would leave the step behind."""

STIFFNESS, COULOMB = 0.1, 1.0
SPEED = 0.5
"""Of every particle at the start."""

SPREAD = {"springs": 0.5, "charges": 1.0}
"""Standard deviation of the places at the start, by kind."""

_AT_ONCE = 3200
"""Numbers per array, about what a core's fastest cache holds."""


def draw_start(kind: str, seed: int, series: int, index: int, num_particles: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Draw one simulation's places, velocities and interactions.

    Places are normal, velocities of length :data:`SPEED` into all directions. Each pair is joined by a spring with
    probability 1/2, or each particle has the charge 1 or -1. The last bits of sines and logarithms depend on the
    processor, and charges that meet would make other ways of them: places and velocities are rounded to 2^-26.

    Args:
        kind: ``"springs"`` or ``"charges"``.
        seed, series, index: See :func:`~rstg_pyg.datasets.random_numbers.uniforms`.
        num_particles: Number N of particles.

    Shapes:
        - **output:** ``([4, N], [N, N])``: places and velocities; 1 where a spring is, or the products of charges, and
          0 on the diagonal.
    """
    pairs = num_particles * (num_particles - 1) // 2
    numbers = uniforms(seed, series, index, 3 * num_particles + max(pairs, num_particles))
    radius, angle, heading = numbers[: 3 * num_particles].reshape(3, num_particles)
    radius = SPREAD[kind] * np.sqrt(-2 * np.log1p(-radius))
    angle, heading = 2 * np.pi * angle, 2 * np.pi * heading
    start = [radius * np.cos(angle), radius * np.sin(angle), SPEED * np.cos(heading), SPEED * np.sin(heading)]
    start = np.round(np.stack(start) * 2**26) / 2**26
    heads = numbers[3 * num_particles :] < 0.5
    if kind == "springs":
        joined = np.zeros((num_particles, num_particles))
        joined[np.triu_indices(num_particles, 1)] = heads[:pairs]
        return start, joined + joined.T
    charge = np.where(heads[:num_particles], 1.0, -1.0)
    return start, np.outer(charge, charge) * (1 - np.eye(num_particles))


def simulate(
    kind: str,
    start: np.ndarray,
    interaction: np.ndarray,
    num_frames: int,
    steps_per_frame: int = STEPS_PER_FRAME,
) -> np.ndarray:
    r"""Follow particles by the leapfrog rule, in steps of 0.001, of which every hundredth is kept, the start first.

    .. math::
        \mathbf{f}_{ij} = -0.1 \, a_{ij} (\mathbf{x}_i - \mathbf{x}_j) \quad \text{(springs)}, \qquad
        \mathbf{f}_{ij} = a_{ij} \frac{\mathbf{x}_i - \mathbf{x}_j}{|\mathbf{x}_i - \mathbf{x}_j|^3} \quad
        \text{(charges)}

    A simulation's numbers do not depend on which others run beside it.

    Args:
        kind: ``"springs"`` or ``"charges"``.
        start: Places and velocities.
        interaction: See :func:`draw_start`.
        num_frames: Number T of frames.
        steps_per_frame: Fewer steps are longer ones, and less exact.

    Shapes:
        - **start:** ``[S, 4, N]``. **interaction:** ``[S, N, N]``. **output:** ``[S, N, T, 4]``, float64.

    Source: the physics and its constants are those of "Neural Relational Inference for Interacting Systems", ICML 2018,
    arXiv:1802.04687.
    """
    count, _, num_particles = start.shape
    out = np.empty((count, num_particles, num_frames, 4))
    size = max(1, _AT_ONCE // num_particles**2)
    for first in range(0, count, size):
        part = slice(first, first + size)
        _simulate(
            kind, start[part].transpose(1, 2, 0), interaction[part].transpose(1, 2, 0), out[part], steps_per_frame
        )
    return out


def _simulate(kind: str, start: np.ndarray, interaction: np.ndarray, out: np.ndarray, steps: int) -> None:
    """The same with simulations last, ``[4, N, S]`` and ``[N, N, S]``, into ``out [S, N, T, 4]``."""
    length = STEP * STEPS_PER_FRAME / steps
    place, velocity = start[:2].copy(), start[2:].copy()
    apart = np.empty((interaction.shape[0], *place.shape))
    weight = np.ascontiguousarray(-STIFFNESS * interaction if kind == "springs" else COULOMB * interaction)
    itself = np.eye(interaction.shape[0])[:, :, None]
    force = np.empty_like(place)

    def feel() -> None:
        np.subtract(place, place.transpose(1, 0, 2)[:, :, None], out=apart)
        factor = weight
        if kind == "charges":
            square = np.square(apart[:, 0])
            square += np.square(apart[:, 1])
            square += itself
            factor = np.sqrt(square)
            factor *= square
            np.divide(weight, factor, out=factor)
        np.multiply(apart, factor[:, None], out=apart)
        np.add.reduce(apart, axis=0, out=force)
        np.clip(force, -LARGEST_FORCE, LARGEST_FORCE, out=force)

    feel()
    for frame in range(out.shape[2]):
        out[:, :, frame, :2], out[:, :, frame, 2:] = place.transpose(2, 1, 0), velocity.transpose(2, 1, 0)
        if frame + 1 == out.shape[2]:
            return
        velocity += length / 2 * force
        for step in range(steps):
            place += length * velocity
            if np.abs(place).max() > BOX:
                beyond = np.abs(place) > BOX
                velocity[beyond] = -np.copysign(velocity[beyond], place[beyond])
                place[beyond] = np.copysign(2 * BOX, place[beyond]) - place[beyond]
            feel()
            velocity += (length if step + 1 < steps else length / 2) * force
