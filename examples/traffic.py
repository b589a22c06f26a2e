"""Foretell the speeds of road detectors: in 15, 30 and 60 minutes, from those of the last hour.

Los-loop: 207 detectors on the highways of Los Angeles, every 5 minutes for a week. Every row of the table is a --model.
Training ends with the errors on the test data, beside those of forecasts that nothing was trained for, and pictures. A
run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import sys

from forecast_command import forecast  # before torch
from run_command import run_command

# isort: split
from rstg_pyg.training.traffic import tasks


def main(argv: list[str] | None = None) -> dict[str, float]:
    return forecast("traffic", __doc__, tasks, lambda task, module, folder: [], argv)


def run(argv: list[str] | None = None) -> int:
    """Run :func:`main`; return 2 after bad input, with one sentence of what was wrong."""
    return run_command("traffic.py", main, argv)


if __name__ == "__main__":
    sys.exit(run())
