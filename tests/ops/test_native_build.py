"""Compiling the native kernels, and where they cannot be compiled."""

import multiprocessing
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from small_graphs import GRAPHS

from rstg_pyg.ops import GraphIndex
from rstg_pyg.ops.native import attend as calls
from rstg_pyg.ops.native import build
from rstg_pyg.ops.native.attend import attend, is_available

can_build = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Forget the library that is loaded, and where it is kept."""
    monkeypatch.setenv("RSTG_PYG_CACHE", str(tmp_path))
    library = build.library.__wrapped__
    for module in (build, calls):
        monkeypatch.setattr(module, "library", library)
    build.why_no_library.cache_clear()
    monkeypatch.setattr(build, "_seconds_left", build._SECONDS)
    return monkeypatch


class Compiler:
    """A script in place of the compiler, which counts its runs. Its libraries load, but are empty."""

    def __init__(self, path: Path, before: str) -> None:
        self.path, self.log, self.cache = path, path.with_suffix(".log"), path.with_suffix(".cache")
        path.write_text(
            f'#!/bin/sh\necho >> {self.log}\n{before}\nwhile [ "$1" != -o ]; do shift; done\n'
            f'exec {shutil.which("c++")} -shared -fPIC -o "$2" -x c++ /dev/null\n'
        )
        path.chmod(0o700)
        self.cache.mkdir(mode=0o700)

    @property
    def runs(self) -> int:
        return len(self.log.read_text())

    @property
    def library(self) -> Path:
        (path,) = self.cache.iterdir()
        return path


@pytest.fixture
def compiler(fresh, tmp_path):
    def make(before: str = "") -> Compiler:
        made = Compiler(tmp_path / "compiler", before)
        fresh.setenv("CXX", str(made.path))
        fresh.setenv("RSTG_PYG_CACHE", str(made.cache))
        return made

    return make


def build_alone():
    sys.exit(not is_available())


@can_build
def test_two_processes_build_at_once(compiler):
    # Either compiler waits until the other one has begun.
    made = compiler('for turn in $(seq 100); do [ $(wc -l < "${0}.log") -ge 2 ] && break; sleep 0.1; done')
    processes = [multiprocessing.get_context("fork").Process(target=build_alone) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert made.library.suffix == (".so" if sys.platform != "darwin" else ".dylib")


def test_a_failing_compiler_is_named_in_a_warning(fresh):
    fresh.setenv("CXX", "false")
    with pytest.warns(UserWarning, match=r"native kernels are off.*false failed"):
        assert not is_available()


@can_build
@pytest.mark.parametrize(("chosen", "fault"), [("no-such-compiler -O2", "no such program"), ('c++ "-O2', "quotation")])
def test_a_wrong_choice_of_the_compiler_is_said(fresh, chosen, fault):
    fresh.setenv("CXX", chosen)
    with pytest.warns(UserWarning, match=f"are compiled by /.*expected a compiler in .CXX, got .*{fault}"):
        assert build._find_compiler() is not None
    fresh.setenv("PATH", "")
    with pytest.warns(UserWarning, match=f"are off: expected a compiler in .CXX, got .*{fault}"):
        assert not is_available()


def test_no_compiler_is_no_reason_to_warn(fresh):
    fresh.delenv("CXX", raising=False)
    fresh.setenv("PATH", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not is_available()
        assert build.why_no_library() == "there is no C++ compiler"
    # Every call of a layer asks: nothing is looked for twice.
    fresh.setattr(build, "_find_compiler", lambda: pytest.fail("looked for again"))
    assert build.why_no_library() == "there is no C++ compiler"


@can_build
@pytest.mark.parametrize("others", [(), ("-march=native",)])
def test_a_slower_build_is_said(compiler, others):
    compiler(f'case "$*" in {"|".join(f"*{flag}*" for flag in ("-fopenmp", *others))}) echo unknown; exit 1;; esac')
    missing = " ".join([*others, "-fopenmp"])
    for _ in range(2):
        with pytest.warns(UserWarning, match=rf"compiled without {missing}, which is slower: .* \(unknown\)"):
            assert is_available()


@can_build
def test_a_compiler_that_hangs_is_given_up(compiler, monkeypatch):
    """It is a driver: what it started would hold its output open after its end."""
    made = compiler("sleep 60")
    monkeypatch.setattr(build, "_SECONDS", 1)
    monkeypatch.setattr(build, "_seconds_left", 1)
    start = time.monotonic()
    for dtype in (torch.float32, torch.float64):
        with pytest.warns(UserWarning, match="are off .* did not end within 1 s"):
            assert not is_available(dtype)
    assert time.monotonic() - start < 30
    assert made.runs == 1


@can_build
@pytest.mark.parametrize("damage", ["cut", "zeros", "foreign", "link", "writable"])
def test_only_an_intact_library_of_the_user_is_loaded(compiler, damage, tmp_path):
    made = compiler()
    assert is_available() and is_available()
    assert made.runs == 1
    path = made.library
    content = path.read_bytes()
    path.rename(tmp_path / "loaded")  # its content stays in use until the process ends
    damaged = {"cut": content[:1000], "zeros": bytes(len(content)), "foreign": content + b"more", "writable": content}
    if damage == "link":
        path.symlink_to(tmp_path / "loaded")
    else:
        path.write_bytes(damaged[damage])
        path.chmod(0o770 if damage == "writable" else 0o700)
    assert is_available()
    assert made.runs == 2
    assert made.library == path and path.read_bytes() == content and path.stat().st_mode & 0o777 == 0o700
    assert not path.is_symlink()


@can_build
@pytest.mark.parametrize("mode", [0o770, 0o707, None])
def test_a_folder_that_others_may_write_to_is_not_used(compiler, mode, monkeypatch):
    made = compiler()
    assert is_available()
    if mode is None:
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
    else:
        made.cache.chmod(mode)
    with pytest.warns(UserWarning, match=r"compiled in every process.*expected .* to belong to user .* got user"):
        assert is_available()
    assert made.runs == 2
    assert made.library.exists()


@can_build
def test_the_default_folder_is_made_private(compiler, monkeypatch):
    made = compiler()
    monkeypatch.delenv("RSTG_PYG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(made.cache))
    folder = made.cache / "rstg_pyg"
    folder.mkdir()
    folder.chmod(0o775)
    assert is_available() and is_available()
    assert made.runs == 1 and folder.stat().st_mode & 0o777 == 0o700


@can_build
def test_a_relative_cache(compiler, monkeypatch):
    made = compiler()
    monkeypatch.chdir(made.cache)
    monkeypatch.setenv("RSTG_PYG_CACHE", ".")
    assert is_available() and is_available()
    assert made.runs == 1 and made.library.exists()


def test_switched_off(fresh, tmp_path):
    fresh.setenv("RSTG_PYG_NATIVE", "0")
    assert not is_available()
    assert build.why_no_library() == "RSTG_PYG_NATIVE=0 is set"
    assert not list(tmp_path.iterdir())


def test_a_type_that_the_kernels_do_not_take():
    assert not is_available(torch.float16)


@can_build
def test_a_cache_that_cannot_be_written(fresh):
    fresh.setenv("RSTG_PYG_CACHE", os.path.join(os.devnull, "cache"))
    graph = GraphIndex(*GRAPHS["grid"])
    rows = torch.ones(5, 1, 4)
    with pytest.warns(UserWarning, match="compiled in every process"):
        out, alpha = attend(rows, rows, rows.unsqueeze(2), rows.unsqueeze(2), None, graph)
    torch.testing.assert_close(out, torch.full((5, 1, 1, 4), 2.0))
    torch.testing.assert_close(alpha.sum(), torch.tensor(5.0))
