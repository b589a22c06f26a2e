import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is loaded: threads of several processes would wait for each other, and in loops.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch


@pytest.fixture
def one_thread(monkeypatch):
    """Of torch's threads, and of commands that choose how many there are."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collectstart():
    """What a module of tests draws while it is loaded is the same, whichever modules are loaded before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, whichever tests run before it."""
    torch.manual_seed(0)
