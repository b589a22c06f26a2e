import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is loaded: threads of several processes would wait for each other, and in loops.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, whichever tests run before it."""
    torch.manual_seed(0)
