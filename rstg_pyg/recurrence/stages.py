"""Which stages a recurrent space-time graph runs, in which order."""

from collections.abc import Sequence

TIME = "time"
SPACE = "space"
SPACE_TIME = "space-time"

FORMS = ("all-temp", "1-temp", "space-only", "time-only", "homogeneous")
"""Named forms, after the rows of the paper's ablation."""


def stage_sequence(stages: str | Sequence[str], num_stages: int) -> tuple[str, ...]:
    """Return the sequence of stages that a form with K = ``num_stages`` runs.

    - ``"all-temp"``: time and space stages alternate K times, then one last time stage.
    - ``"1-temp"``: K space stages, then one time stage.
    - ``"space-only"``: K space stages.
    - ``"time-only"``: K + 1 time stages.
    - ``"homogeneous"``: K stages of message passing on the space-time graph.

    A sequence of ``"time"``, ``"space"`` and ``"space-time"`` is returned as it is.

    Raises:
        ValueError: If the form or a stage is unknown, or there is no stage.
    """
    if isinstance(stages, str):
        if stages not in FORMS:
            raise ValueError(
                f"expected 'stages' to be one of {', '.join(map(repr, FORMS))} or a sequence of stages, got {stages!r}"
            )
        stages = {
            "all-temp": (TIME, SPACE) * num_stages + (TIME,),
            "1-temp": (SPACE,) * num_stages + (TIME,),
            "space-only": (SPACE,) * num_stages,
            "time-only": (TIME,) * (num_stages + 1),
            "homogeneous": (SPACE_TIME,) * num_stages,
        }[stages]
    if (
        not isinstance(stages, Sequence)
        or len(stages) == 0
        or not all(isinstance(stage, str) and stage in (TIME, SPACE, SPACE_TIME) for stage in stages)
    ):
        raise ValueError(
            f"expected 'stages' to hold one or more of {TIME!r}, {SPACE!r} and {SPACE_TIME!r}, got {stages!r}"
        )
    return tuple(stages)
