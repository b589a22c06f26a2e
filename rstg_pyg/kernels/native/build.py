"""Compiling the native kernels with the user's C++ compiler, once per machine, and loading them.

The library is kept in a cache folder: ``$RSTG_PYG_CACHE``, by default ``$XDG_CACHE_HOME/rstg_pyg`` or
``~/.cache/rstg_pyg``. Its name holds a hash of the sources, the compiler, the flags and the processor's instructions.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import torch

_FOLDER = Path(__file__).parent
_SOURCE = "exports.cpp"
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
_SECONDS = 300


class _BuildError(Exception):
    pass


@functools.cache
def library(number: str) -> Optional[ctypes.CDLL]:
    """The loaded library that computes in ``number``, "float" or "double"; compiled first where the cache has none.

    None where ``RSTG_PYG_NATIVE=0`` is set, on Windows, and where there is no compiler; None with a warning where the
    compiler fails.
    """
    if os.environ.get("RSTG_PYG_NATIVE", "1") == "0" or sys.platform == "win32":
        return None
    compiler = _find_compiler()
    if compiler is None:
        return None
    reason = ""
    for choice in _CHOICES:
        try:
            return _load([*compiler, *_FLAGS, f"-DNUMBER={number}", *choice])
        except (_BuildError, OSError, subprocess.SubprocessError) as error:
            reason = reason or str(error)
    warnings.warn(
        "rstg_pyg's native kernels are off and its PyTorch ones run, which are slower: "
        f"{shlex.join(compiler)} failed ({reason})",
        stacklevel=2,
    )
    return None


def _find_compiler() -> Optional[list[str]]:
    for candidate in (os.environ.get("CXX", ""), *_COMPILERS):
        program, *arguments = shlex.split(candidate) or [""]
        path = shutil.which(program)
        if path is not None:
            return [path, *arguments]
    return None


def _load(command: list[str]) -> ctypes.CDLL:
    name = f"native-{_key(command)}{'.dylib' if sys.platform == 'darwin' else '.so'}"
    folder = _cache_folder()
    if folder is not None:
        path = folder / name
        if not path.exists():
            _compile(command, path)
        return ctypes.CDLL(str(path))
    with tempfile.TemporaryDirectory(prefix="rstg_pyg-") as temporary:
        path = Path(temporary) / name
        _compile(command, path)
        return ctypes.CDLL(str(path))


def _compile(command: list[str], path: Path) -> None:
    with _replacing(path) as temporary:
        done = subprocess.run(
            [*command, "-o", str(temporary), str(_FOLDER / _SOURCE)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()[:_SHOWN_LINES]
            raise _BuildError("\n".join(lines) or f"exit status {done.returncode}")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which then takes the place of ``path``: other processes see all of the file or nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o755)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _cache_folder() -> Optional[Path]:
    """The cache folder, made where it does not exist; None where it cannot be written to."""
    chosen = os.environ.get("RSTG_PYG_CACHE")
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(chosen) if chosen else Path(base) / "rstg_pyg"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _key(command: list[str]) -> str:
    key = hashlib.sha256()
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in (".cpp", ".h"):
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
