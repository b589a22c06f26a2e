"""Other people's data: from a folder that the user names, or downloaded; held against checksums either way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rstg_pyg.datasets.download import download_files
from rstg_pyg.files import FileError, naming, open_file

DATA = "RSTG_PYG_DATA"
"""Environment variable: a folder with a folder for every data set, as ``traffic`` and ``pedestrians``."""


def read_data_files(
    name: str,
    checksums: Mapping[str, str],
    address: str | Sequence[str],
    root: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    log: bool = True,
) -> dict[str, bytes]:
    """Read the files of a data set: from ``data_dir``, else from the folder ``name`` in the one that the environment
    variable ``RSTG_PYG_DATA`` names, else from ``root``, to which those that are not there are downloaded.

    Args:
        name: What the data set is called in ``RSTG_PYG_DATA``.
        checksums: The SHA-256 of every file, by its name.
        address: What stands before a file's name on the network; of several, each is tried in turn.
        root: Where downloaded files are kept.
        data_dir: A folder that has the files.
        log: Print a line per download.

    Returns:
        What every file holds.

    Raises:
        FileNotFoundError: If a folder that was named lacks a file.
        FileError: If a file is damaged or another one; it is a ValueError.
        DownloadError: If a file is to be downloaded and cannot be.
    """
    if data_dir is None and os.environ.get(DATA):
        data_dir = Path(os.environ[DATA], name)
    folder = Path(root if data_dir is None else data_dir).expanduser()
    missing = [file for file in checksums if not (folder / file).exists()]
    if missing and data_dir is not None:
        raise FileNotFoundError(f"expected {folder} to hold {', '.join(checksums)}, got no {', '.join(missing)}")
    if missing:
        places = [address] if isinstance(address, str) else address
        addresses = {file: [f"{place}{file}" for place in places] for file in missing}
        what = f"the files {', '.join(checksums)}"
        download_files(folder, addresses, lambda path, file: _read(path, checksums[file]), what, log)
    return {file: _read(folder / file, checksum) for file, checksum in checksums.items()}


def _read(path: Path, checksum: str) -> bytes:
    with naming(path), open_file(path) as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise FileError(
            f"expected {path} to have the SHA-256 {checksum}, got {found} of {len(content):,} bytes: it is damaged or "
            "another file"
        )
    return content
