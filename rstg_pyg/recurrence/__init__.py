"""The time stages, their alternation with the space stages, and memories of streams."""

from rstg_pyg.recurrence.memory import NodeMemory, detach_state
from rstg_pyg.recurrence.rnn import LinearRNN, chrono_init
from rstg_pyg.recurrence.rstg import RSTG
from rstg_pyg.recurrence.time_stage import TimeStage

__all__ = ["RSTG", "LinearRNN", "NodeMemory", "TimeStage", "chrono_init", "detach_state"]
