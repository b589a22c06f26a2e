"""Files as they are found, where whatever is wrong with one becomes one sentence that names it; and files that hold the
old content or the new one, never a part."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor


class FileError(ValueError):
    """A file that is not what it should be. The message names the file."""


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Give the errors of the system a file's name where they come without one, as that of a full disk does.

    Args:
        path: The file that is read or written within.

    Example:
        >>> from rstg_pyg.files import naming
        >>> with naming("runs/mine/last.ckpt"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device: 'runs/mine/last.ckpt'
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def reading(path: str | os.PathLike, kind: type[FileError], what: str) -> Iterator[None]:
    """Turn whatever reading a file raises into one sentence: parsers raise more kinds of errors than anyone can list.

    Args:
        path: The file.
        kind: What is raised; one raised within passes, its message has the file's name.
        what: What the file should be, in words.

    Raises:
        FileError: Of that kind, for every error but these, an exhausted memory too.
        OSError: If the system cannot read the file, with its name.

    Example:
        >>> from rstg_pyg.files import FileError, reading
        >>> with reading("labels.json", FileError, "JSON"):
        ...     int("x")
        Traceback (most recent call last):
        rstg_pyg.files.FileError: expected labels.json to be JSON, got: invalid literal for int() with base 10: 'x'
    """
    try:
        with naming(path):
            yield
    except FileError:
        raise
    except Exception as error:
        # Errors of the system have a number; libraries raise OSError for damaged content, too.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"expected {path} to be {what}, got: {shown(reason, 300)}") from error


def open_file(path: str | os.PathLike) -> BufferedReader:
    """Open a file to read its bytes. Folders are refused, and pipes and devices, which need not end.

    Raises:
        FileError: If it is no regular file.
        OSError: If it cannot be opened.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise FileError(f"expected a file {path}, got {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}")
    return open(path, "rb")


def replace_file(path: str | os.PathLike, content: bytes | memoryview) -> None:
    """Write a file beside ``path``, wait until it is on the disk, and give it the name.

    Args:
        path: The file; its folder is made where there is none.
        content: All of it.

    Raises:
        OSError: If the folder cannot be made or the file not be written. What was there before is still there.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rstg_pyg.files import replace_file
        >>> path = Path(tempfile.mkdtemp(), "note.txt")
        >>> replace_file(path, b"all of it")
        >>> path.read_text()
        'all of it'
    """
    with replacing(path) as part, open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: str | os.PathLike, ending: str = ".part") -> Iterator[Path]:
    """Write a file whole or not at all: within, to a name of its own beside ``path``, which then gets the name.

    After an error, what was there before still is, and nothing else. The folder is made where there is none.

    Args:
        path: The file.
        ending: Of the name to write to, which some writers look at.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid4().hex}{ending}")
    try:
        with naming(path):
            part.touch()
            yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def shown(text: str, most: int = 100) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else f"{text[:most]}..."


def listed(names: Iterable[Any], most: int = 3) -> str:
    """The first names, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def weight_fault(value: Any, like: Tensor) -> str | None:
    """Say why what a file holds cannot take the place of a weight, its shape aside; None if it can.

    Example:
        >>> import torch
        >>> from rstg_pyg.files import weight_fault
        >>> weight_fault(torch.tensor([torch.nan]), torch.ones(1))
        'values that are not finite'
    """
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if (value.is_complex(), value.is_floating_point()) != (like.is_complex(), like.is_floating_point()):
        return f"{value.dtype} instead of {like.dtype}"
    # In the data type that the model has: a value that is finite in the file may be too large for it.
    if not value.to(like.dtype).isfinite().all():
        return "values that are not finite"
    return None
