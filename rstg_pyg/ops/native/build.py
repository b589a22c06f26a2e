"""Compiling the native kernels and loading them.

The library is kept in a cache folder: ``$RSTG_PYG_CACHE``, by default ``$XDG_CACHE_HOME/rstg_pyg`` or
``~/.cache/rstg_pyg``. Its name holds a hash of the sources, the compiler, the flags and the processor's instructions,
and a digest of its content. Only a library with this digest is loaded that nobody but the user can have written.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent
_SOURCE = _FOLDER / "exports.cpp"
_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = (
    "-std=c++17",
    "-O2",
    "-ftree-vectorize",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-fPIC",
    "-shared",
)
# Not every compiler knows the processor; without OpenMP one thread runs.
_CHOICES = (("-march=native", "-fopenmp"), ("-march=native",), ())
_SHOWN_LINES = 5
_SECONDS = 90
_seconds_left = _SECONDS  # until a compiler succeeds, in all attempts of this process


class _BuildError(Exception):
    pass


@functools.cache
def library(number: str, source: Path = _SOURCE) -> ctypes.CDLL | None:
    """The loaded library that computes in ``number``, "float" or "double"; compiled first where the cache has none.

    ``source`` may be another file than that of the graph's kernels; it may include the headers beside that one.

    None where ``RSTG_PYG_NATIVE=0`` is set, on Windows, and where there is no compiler; None with a warning where the
    compiler fails. Warnings also say where it is a slower build, where no cache keeps it, and where ``$CXX`` is wrong.
    """
    compiler = None if _is_off() else _find_compiler()
    if compiler is None:
        return None
    reason = ""
    for choice in _CHOICES:
        try:
            loaded = _load([*compiler, *_FLAGS, f"-DNUMBER={number}", *choice], source)
        except (_BuildError, OSError) as error:
            reason = reason or str(error)
            continue
        missing = " ".join(flag for flag in _CHOICES[0] if flag not in choice)
        if missing:
            _warn(f"are compiled without {missing}, which is slower: {shlex.join(compiler)} failed with it ({reason})")
        return loaded
    _warn(f"are off and its PyTorch ones run, which are slower: {shlex.join(compiler)} failed ({reason})")
    return None


@torch.compiler.assume_constant_result
@functools.cache
def why_no_library(number: str = "float") -> str | None:
    """Why :func:`library` has none, in a few words; None where it has one."""
    if library(number) is not None:
        return None
    return _is_off() or ("its compiler failed" if _find_compiler() else "there is no C++ compiler")


def why_not_native(dtype: torch.dtype, device: torch.device, dtypes: str, option: str = "") -> str:
    """What native kernels of so many types needed, and what there was instead; ``option`` asked for them."""
    missing = why_no_library()
    return (
        f"expected a CPU, a C++ compiler and {dtypes}{option and f' with {option}'}, "
        f"got {dtype} on {device}{'' if missing is None else f' and no native kernels: {missing}'}"
    )


def _is_off() -> str | None:
    if os.environ.get("RSTG_PYG_NATIVE", "1") == "0":
        return "RSTG_PYG_NATIVE=0 is set"
    return "there are none for Windows" if sys.platform == "win32" else None


def _warn(what: str) -> None:
    warnings.warn(f"rstg_pyg's native kernels {what}", stacklevel=4)


def _find_compiler() -> list[str] | None:
    chosen = os.environ.get("CXX", "").strip()
    candidates, fault = [[name] for name in _COMPILERS], ""
    if chosen:
        try:
            candidates.insert(0, shlex.split(chosen))
            fault = "" if shutil.which(candidates[0][0]) else "no such program"
        except ValueError as error:
            fault = str(error)
    found = [[path, *arguments] for program, *arguments in candidates if (path := shutil.which(program))]
    if fault:
        instead = f"are compiled by {found[0][0]}" if found else "are off"
        _warn(f"{instead}: expected a compiler in $CXX, got {chosen!r} ({fault})")
    return found[0] if found else None


def _load(command: list[str], source: Path) -> ctypes.CDLL:
    """The library of this command, from the cache or compiled, and then kept if the cache is the user's alone."""
    name = f"native-{_key(command, source)}"
    folder, fault = _cache_folder()
    for path in [] if fault else sorted(folder.glob(f"{name}-*{_SUFFIX}")):
        # One from another system with the same home does not load.
        with contextlib.suppress(OSError):
            if _is_intact(path):
                return ctypes.CDLL(str(path))
    if not fault and not os.access(folder, os.W_OK | os.X_OK):
        fault = f"{folder} cannot be written to"
    with tempfile.TemporaryDirectory(dir=None if fault else folder, prefix="rstg_pyg-") as room:
        path = Path(room, f"{name}{_SUFFIX}")
        _compile([*command, "-o", str(path), str(source)])
        loaded = ctypes.CDLL(str(path))
        try:
            if not fault:
                _keep(path, folder)
        except OSError as error:
            fault = str(error)
    if fault:
        _warn(f"are compiled in every process; $RSTG_PYG_CACHE chooses the folder to keep them in: {fault}")
    return loaded


def _compile(command: list[str]) -> None:
    global _seconds_left
    if _seconds_left <= 0:
        raise _BuildError(f"it did not end within {_SECONDS} s")
    start = time.monotonic()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_seconds_left)
        except BaseException as error:
            # The compiler is a driver: the programs that it started hold the pipe, and would keep running.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            _seconds_left = 0
            raise _BuildError(f"it did not end within {_SECONDS} s") from error
    if process.returncode != 0:
        _seconds_left -= time.monotonic() - start
        lines = output.strip().splitlines()[:_SHOWN_LINES]
        raise _BuildError("\n".join(lines) or f"exit status {process.returncode}")
    _seconds_left = _SECONDS


def _cache_folder() -> tuple[Path | None, str]:
    """The cache folder, made where there is none, and why it cannot be trusted: nothing, or a sentence."""
    chosen = os.environ.get("RSTG_PYG_CACHE")
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = (Path(chosen) if chosen else Path(base) / "rstg_pyg").absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not chosen:
            folder.chmod(0o700)  # one of an earlier version may let the user's group write
        status = folder.stat()
    except (OSError, RuntimeError) as error:
        return None, str(error)
    if _is_private(status):
        return folder, ""
    return folder, (
        f"expected {folder} to belong to user {os.getuid()} and nobody else to write there, "
        f"got user {status.st_uid} and mode {stat.filemode(status.st_mode)}"
    )


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_intact(path: Path) -> bool:
    """Whether a library is as it was written, and by the user."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and _is_private(status) and path.stem.endswith(_digest(path))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _keep(path: Path, folder: Path) -> None:
    """Move a library to the cache, where other processes see all of it or nothing."""
    path.chmod(0o700)
    _sync(path)
    path.replace(folder / f"{path.stem}-{_digest(path)}{_SUFFIX}")
    with contextlib.suppress(OSError):  # not every file system does so for folders
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _key(command: list[str], source: Path) -> str:
    key = hashlib.sha256()
    for path in [source, *sorted(_FOLDER.glob("*.h"))]:
        key.update(path.read_bytes())
    real = Path(command[0]).resolve()
    status = real.stat()
    key.update(repr((str(real), status.st_size, status.st_mtime_ns, command)).encode())
    key.update(repr((platform.machine(), _processor())).encode())
    return key.hexdigest()[:20]


def _processor() -> str:
    """What instructions the processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return f"{platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
    return "\n".join(sorted({line for line in lines if line.lower().startswith(("flags", "features"))}))
