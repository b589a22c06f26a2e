"""The time stages, their alternation with the space stages, and memories of streams."""

from rstg_pyg.recurrence.memory import NodeMemory, detach_state
from rstg_pyg.recurrence.rstg import RSTG
from rstg_pyg.recurrence.time_stage import TimeStage

__all__ = ["RSTG", "NodeMemory", "TimeStage", "detach_state"]
