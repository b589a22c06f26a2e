"""Files as they are found: whatever is wrong with one becomes one sentence that names it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

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


def shown(text: str, most: int = 100) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else f"{text[:most]}..."


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
