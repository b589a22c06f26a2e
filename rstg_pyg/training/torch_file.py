"""Dicts of tensors in a file that is as it was written, to the last bit.

It is the zip file that ``torch.save`` writes, so that other programs read it too. The comment at its end has the
SHA-256 of everything before the digest: the checksums that a zip file has of its own say nothing of the names, sizes
and places in its directory, and torch does not look at them.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from rstg_pyg.files import FileError, naming, open_file, reading
from rstg_pyg.training.replace_file import replace_file

MARK = b"rstg_pyg sha256 "
SHOWN = 3
"""How many names an error lists."""

_DIGEST = 64
_END, _END_SIZE = b"PK\5\6", 22
"""Of a zip file without a comment: how its last record begins, and that record's size."""


class CheckpointError(FileError):
    """A file that is no checkpoint, a damaged one, or one of another model or run."""


def write_file(path: str | os.PathLike, held: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values, with a digest.

    Raises:
        OSError: If the file cannot be written. What was there before is still there.

    Example:
        >>> import tempfile, torch
        >>> from rstg_pyg.training.torch_file import read_file, write_file
        >>> path = tempfile.mkdtemp() + "/weights.pt"
        >>> write_file(path, {"state_dict": {"weight": torch.ones(2)}})
        >>> read_file(path)["state_dict"]["weight"], torch.load(path)["state_dict"]["weight"]
        (tensor([1., 1.]), tensor([1., 1.]))
    """
    content = io.BytesIO()
    torch.save(held, content)
    # The last two bytes are the length of the comment.
    content.seek(-2, os.SEEK_END)
    content.write(struct.pack("<H", len(MARK) + _DIGEST) + MARK)
    content.write(hashlib.sha256(content.getbuffer()).hexdigest().encode())
    replace_file(path, content.getbuffer())


def read_file(path: str | os.PathLike) -> dict[str, Any]:
    """Read what :func:`write_file` wrote, onto the CPU, if every bit is as it was written and all values are plain.

    Files without a digest, of ``torch.save`` alone, are held against the checksums of their records. A file with a
    digest that is damaged does not pass for one of them: these end without a comment.

    Raises:
        CheckpointError: If the file is damaged or of another kind.
        OSError: If it cannot be read at all.
    """
    with naming(path), open_file(path) as file:
        content = file.read()
    if not content.startswith(b"PK"):
        found = "a file of another kind" if content else "an empty file"
        raise CheckpointError(f"expected {path} to be a checkpoint, got {found}")
    sealed = content[-_DIGEST - len(MARK) :].startswith(MARK)
    if sealed:
        whole = hashlib.sha256(memoryview(content)[:-_DIGEST]).hexdigest().encode() == content[-_DIGEST:]
    else:
        whole = content[-_END_SIZE:].startswith(_END) and content.endswith(b"\0\0")
    if not whole:
        raise CheckpointError(
            f"expected {path} to be a whole checkpoint, got {len(content):,} bytes of a damaged or cut-off one"
        )
    with reading(path, CheckpointError, "a checkpoint of tensors and plain values"):
        archive = zipfile.ZipFile(io.BytesIO(content))
        # torch compresses nothing: a file holds no more than its size.
        if sum(record.file_size for record in archive.infolist()) > len(content):
            raise CheckpointError(f"expected {path} to be a checkpoint as torch writes it, got a compressed one")
        held = torch.load(io.BytesIO(content) if sealed else _copy(archive), map_location="cpu", weights_only=True)
    if not isinstance(held, dict) or not isinstance(held.get("state_dict"), Mapping):
        raise CheckpointError(f"expected {path} to be a checkpoint with a 'state_dict', got {describe(held)}")
    if not isinstance(held.get("config", {}), Mapping):
        raise CheckpointError(f"expected {path} to hold a dict as 'config', got a {type(held['config']).__name__}")
    return held


def _copy(archive: zipfile.ZipFile) -> io.BytesIO:
    """A zip file anew from its records, each held against its checksum. In the directory as it was, a flipped bit can
    make a record pass for a folder, and torch then takes memory that nothing was written to for a weight."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as anew:
        for record in archive.infolist():
            anew.writestr(record.filename, archive.read(record))
    copy.seek(0)
    return copy


def describe(held: Any) -> str:
    """Name what a file holds instead."""
    return f"a dict of {listed(held) or 'nothing'}" if isinstance(held, dict) else f"a {type(held).__name__}"


def listed(names: Any) -> str:
    """The first few names and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
