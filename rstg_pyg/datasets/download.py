"""Fetching files from the network: verified, then moved into place in one step."""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch_geometric.data import download_url

from rstg_pyg.datasets.mnist import ALL_FILE_NAMES, find_mnist_file, read_mnist_file
from rstg_pyg.files import naming

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SECONDS_TO_ANSWER = 5.0
SECONDS_BETWEEN_PACKETS = 10.0
# Errors of the disk, which the network has no part in: another address or other digits do not help.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class DownloadError(ConnectionError):
    r"""A file could not be fetched. The message names every address that was tried."""


def _fetch(url: str, folder: Path, log: bool) -> Path:
    """Downloads one file, but gives up on a server that does not answer.

    A host name may stand for many addresses, each of which may wait for its own timeout, so the
    limit on the whole wait is kept by watching from outside: the file appears with the answer.
    """
    target = folder / url.rpartition("/")[2]
    failure: list[Exception] = []

    def work() -> None:
        try:
            download_url(url, str(folder), log=log)
        except (OSError, http.client.HTTPException) as error:
            failure.append(error)

    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_BETWEEN_PACKETS)
    try:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(SECONDS_TO_ANSWER)
        if thread.is_alive() and not target.exists():
            raise DownloadError(f"no answer within {SECONDS_TO_ANSWER:g} seconds")
        thread.join()
    finally:
        socket.setdefaulttimeout(previous)
    if failure:
        if isinstance(failure[0], OSError) and failure[0].errno in _DISK:
            with naming(target):
                raise failure[0]
        raise DownloadError(str(failure[0]) or type(failure[0]).__name__) from failure[0]
    return target


def download_files(
    folder: str | os.PathLike,
    addresses: Mapping[str, Sequence[str]],
    verify: Callable[[Path, str], object],
    what: str,
    log: bool = True,
) -> None:
    r"""Puts files from the network into a folder.

    Every file is fetched into a temporary folder, verified, and only then moved to its place, so
    that what has its name is whole at any time, also where several processes download at once.

    Args:
        folder (str or PathLike): The folder. Where nothing could be fetched it is left as it was.
        addresses (Mapping): For the name of every file, the addresses that are tried in turn. They
            end in a slash and that name.
        verify (callable): Called with the path of what was fetched and with the name of the file. It
            raises a :class:`ValueError`, or a subclass made from a message alone, if that is not the
            file.
        what (str): The files in words, for messages.
        log (bool): Whether to print a line per download. (default: :obj:`True`)

    Raises:
        DownloadError: If no address of a file can be reached.
        OSError: If the disk is full.
        ValueError: If something was fetched, but from no address the file; of the type that
            :obj:`verify` raises.
    """
    folder = Path(folder)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    try:
        for name, urls in addresses.items():
            _download_one(name, urls, verify, what, temporary, folder, log)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in created:
            try:
                path.rmdir()
            except OSError:
                break


def _download_one(
    name: str,
    urls: Sequence[str],
    verify: Callable[[Path, str], object],
    what: str,
    temporary: Path,
    folder: Path,
    log: bool,
) -> None:
    """Fetches one file from the first address that has it."""
    reasons: list[str] = []
    wrong: ValueError | None = None
    for url in urls:
        try:
            fetched = _fetch(url, Path(tempfile.mkdtemp(dir=temporary)), log)
            verify(fetched, name)
        except DownloadError as error:
            reasons.append(f"{url}: {error}")
        except ValueError as error:
            wrong = error
            reasons.append(f"{url}: {str(error).rstrip(' .')}")
        else:
            os.replace(fetched, folder / name)
            return
    message = f"{name} could not be downloaded ({'; '.join(reasons)})"
    if wrong is not None:
        raise type(wrong)(
            f"{message}. What arrives is not the file, or not all of it: look for a proxy or a login "
            f"page in between and try again, or put {what} into {folder}"
        )
    raise DownloadError(message)


def download_mnist(folder: str | os.PathLike, log: bool = True) -> None:
    r"""Puts the MNIST files that a folder lacks into it, from the first of :obj:`MIRRORS` that has them.

    Args:
        folder (str or PathLike): The folder. Where nothing could be fetched it is left as it was.
        log (bool): Whether to print a line per download. (default: :obj:`True`)

    Raises:
        DownloadError: If no mirror can be reached.
        IDXError: If something was fetched, but from no mirror the file of MNIST.
    """
    missing = [f"{name}.gz" for name in ALL_FILE_NAMES if find_mnist_file(folder, name) is None]
    download_files(
        folder,
        {name: [mirror + name for mirror in MIRRORS] for name in missing},
        lambda path, name: read_mnist_file(path, name.removesuffix(".gz"), ""),
        "the four MNIST files",
        log,
    )
