"""Simulated pedestrians, for machines without the recordings: people with a goal who keep out of each other's way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rstg_pyg.arguments import check_positive

SECONDS, STEPS = 0.4, 4
"""From one frame to the next, and the steps that a frame is computed in."""
SPEED, SPREAD, RELAXATION = 1.34, 0.26, 0.5
"""Metres a second that people want to walk, its standard deviation, and the seconds in which they come to it."""
STRENGTH, REACH, SIZE, BEHIND = 2.1, 0.6, 0.4, 0.5
"""Of the force between two people: metres a second squared, metres, the distance of their centres when they touch, and
what is left of it from someone behind."""


def simulate_walkers(num_frames: int, num_walkers: int = 12, side: float = 14.0, seed: int = 0) -> Tensor:
    r"""Let people cross a square, each from one of its sides to another one; who arrives makes room for somebody new.

    .. math::
        \dot{\mathbf{v}}_i = \frac{s_i \mathbf{e}_i - \mathbf{v}_i}{\tau}
            + \sum_{j \ne i} w_{ij} A \exp\frac{b - d_{ij}}{B} \, \frac{\mathbf{p}_i - \mathbf{p}_j}{d_{ij}}

    with the direction :math:`\mathbf{e}_i` to the goal, the speed :math:`s_i` that i wants, and less weight
    :math:`w_{ij}` of those behind.

    Args:
        num_frames: Number of frames, 0.4 s each.
        num_walkers: How many people are there at a time.
        side: Metres of the square's sides.
        seed: Of everything.

    Shapes:
        - **output:** ``[R, 4]`` float64, rows of frame, person, x and y in metres; sorted by frame and person.

    Raises:
        ValueError: If a number is not positive.

    Source: the social force model of D. Helbing and P. Molnár, Physical Review E 51 (1995).

    Example:
        >>> from rstg_pyg.datasets.walkers import simulate_walkers
        >>> rows = simulate_walkers(num_frames=20, num_walkers=5)
        >>> rows.shape, rows[:, 0].max()
        (torch.Size([100, 4]), tensor(19., dtype=torch.float64))
    """
    check_positive(num_frames=num_frames, num_walkers=num_walkers)
    if not side > 0:
        raise ValueError(f"expected 'side' to be positive, got {side}")
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    def newcomers() -> tuple[Tensor, Tensor, Tensor]:
        """For every place a person at the edge, where they go, and how fast; all drawn, whoever comes in."""
        angle = 2 * math.pi * uniform(num_walkers)
        # Across, give or take a quarter of a turn.
        ends = torch.stack([angle, angle + math.pi * (0.75 + 0.5 * uniform(num_walkers))])
        start, goal = torch.stack([ends.cos(), ends.sin()], -1) * side / 2
        speed = SPEED + SPREAD * torch.randn(num_walkers, generator=random, dtype=torch.float64)
        return start, goal, speed.clamp(min=0.3)

    position, goal, speed = newcomers()
    # Begin with people on their way.
    position = position + (goal - position) * 0.9 * uniform(num_walkers, 1)
    velocity = speed[:, None] * _direction(goal - position)
    person, known = torch.arange(num_walkers), num_walkers
    rows = []
    for frame in range(num_frames):
        ids = torch.stack([torch.full_like(person, frame), person], 1)
        rows.append(torch.cat([ids, position], 1)[person.argsort()])
        for _ in range(STEPS):
            time = SECONDS / STEPS
            velocity = velocity + time * _acceleration(position, velocity, speed[:, None] * _direction(goal - position))
            position = position + time * velocity
        arrived = (goal - position).norm(dim=1) < 1.0
        start, next_goal, next_speed = newcomers()
        position = torch.where(arrived[:, None], start, position)
        goal = torch.where(arrived[:, None], next_goal, goal)
        speed = torch.where(arrived, next_speed, speed)
        velocity = torch.where(arrived[:, None], speed[:, None] * _direction(goal - position), velocity)
        person = torch.where(arrived, known + arrived.cumsum(0) - 1, person)
        known += int(arrived.sum())
    return torch.cat(rows)


def _direction(way: Tensor) -> Tensor:
    return way / way.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def _acceleration(position: Tensor, velocity: Tensor, wanted: Tensor) -> Tensor:
    away = position[:, None] - position
    distance = away.norm(dim=-1).clamp(min=1e-9)
    ahead = (_direction(velocity)[:, None] * -away).sum(-1) / distance
    force = (BEHIND + (1 - BEHIND) * (1 + ahead) / 2) * STRENGTH * ((SIZE - distance) / REACH).exp()
    return (wanted - velocity) / RELAXATION + (force / distance).fill_diagonal_(0)[..., None].mul(away).sum(1)
