"""Compiling the native kernels, and where they cannot be compiled."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from small_graphs import GRAPHS

from rstg_pyg.kernels.native import attend, build, calls, is_available
from rstg_pyg.kernels.neighborhoods import Neighborhoods

can_build = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Forget the library that is loaded, and where it is kept."""
    monkeypatch.setenv("RSTG_PYG_CACHE", str(tmp_path))
    monkeypatch.setattr(calls, "library", build.library.__wrapped__)
    return monkeypatch


@can_build
def test_two_processes_build_at_once(tmp_path):
    command = [sys.executable, "-c", "from rstg_pyg.kernels.native import is_available; assert is_available()"]
    processes = [subprocess.Popen(command, env={**os.environ, "RSTG_PYG_CACHE": str(tmp_path)}) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".so" if sys.platform != "darwin" else ".dylib"]


def test_a_failing_compiler_is_named_in_a_warning(fresh):
    fresh.setenv("CXX", "false")
    with pytest.warns(UserWarning, match=r"native kernels are off.*false failed"):
        assert not is_available()


def test_no_compiler_is_no_reason_to_warn(fresh):
    fresh.setenv("CXX", "no-such-compiler")
    fresh.setenv("PATH", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not is_available()


def test_switched_off(fresh, tmp_path):
    fresh.setenv("RSTG_PYG_NATIVE", "0")
    assert not is_available()
    assert not list(tmp_path.iterdir())


def test_a_type_that_the_kernels_do_not_take():
    assert not is_available(torch.float16)


@can_build
def test_a_cache_that_cannot_be_written(fresh):
    fresh.setenv("RSTG_PYG_CACHE", os.path.join(os.devnull, "cache"))
    graph = Neighborhoods(*GRAPHS["grid"][0], GRAPHS["grid"][1])
    rows = torch.ones(5, 1, 4)
    out, alpha = attend(rows, rows, rows.unsqueeze(2), rows.unsqueeze(2), None, graph)
    torch.testing.assert_close(out, torch.full((5, 1, 1, 4), 2.0))
    torch.testing.assert_close(alpha.sum(), torch.tensor(5.0))
