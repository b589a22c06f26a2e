"""Fetching files from the network: verified, then moved into place in one step."""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

from rstg_pyg.files import naming

SECONDS_TO_ANSWER = 5.0
SECONDS_BETWEEN_PACKETS = 10.0
# Errors of the disk, which the network has no part in: another address or other digits do not help.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class DownloadError(ConnectionError):
    """A file could not be fetched. The message names every address that was tried."""


def download_files(
    folder: str | os.PathLike,
    addresses: Mapping[str, Sequence[str]],
    verify: Callable[[Path, str], object],
    what: str,
    log: bool = True,
) -> None:
    """Put files from the network into a folder.

    Every file is fetched into a temporary folder, verified, and only then moved to its place, so that what has its
    name is whole at any time, also where several processes download at once.

    Args:
        folder: The folder. Where nothing could be fetched it is left as it was.
        addresses: For the name of every file, the addresses that are tried in turn.
        verify: Called with the path of what was fetched and with the name of the file. It raises a
            :class:`ValueError`, or a subclass made from a message alone, if that is not the file.
        what: The files in words, for messages.
        log: Print a line per download.

    Raises:
        DownloadError: If no address of a file can be reached.
        OSError: If the disk is full.
        ValueError: If something was fetched, but from no address the file; of the type that ``verify`` raises.
    """
    folder = Path(folder)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    try:
        for name, urls in addresses.items():
            reasons: list[str] = []
            kind: type[Exception] = DownloadError
            for url in urls:
                fetched = Path(tempfile.mkdtemp(dir=temporary), name)
                try:
                    _fetch(url, fetched, log)
                    verify(fetched, name)
                except DownloadError as error:
                    reasons.append(f"{url}: {error}")
                except ValueError as error:
                    kind = type(error)
                    reasons.append(f"{url}: {str(error).rstrip(' .')}")
                else:
                    os.replace(fetched, folder / name)
                    break
            else:
                message = f"{name} could not be downloaded ({'; '.join(reasons)})"
                if kind is not DownloadError:
                    message += (
                        ". What arrives is not the file, or not all of it: look for a proxy or a login page in between "
                        f"and try again, or put {what} into {folder}"
                    )
                raise kind(message)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in created:
            try:
                path.rmdir()
            except OSError:
                break


def _fetch(url: str, target: Path, log: bool) -> None:
    """Download one file, but give up on a server that does not answer.

    A host name may stand for many addresses, each of which may wait for its own timeout, so the limit on the whole
    wait is kept by watching from outside: the file appears with the answer.
    """
    failure: list[Exception] = []

    def work() -> None:
        try:
            _save(url, target)
        except (OSError, http.client.HTTPException) as error:
            failure.append(error)

    if log:
        print(f"Downloading {url}", file=sys.stderr)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    if thread.is_alive() and not target.exists():
        raise DownloadError(f"no answer within {SECONDS_TO_ANSWER:g} seconds")
    thread.join()
    if failure:
        if isinstance(failure[0], OSError) and failure[0].errno in _DISK:
            with naming(target):
                raise failure[0]
        raise DownloadError(str(failure[0]) or type(failure[0]).__name__) from failure[0]


def _save(url: str, target: Path) -> None:
    # Files are held against their checksums, so that a machine without certificates can have them, too.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urlopen(url, timeout=SECONDS_BETWEEN_PACKETS, context=context) as answer, open(target, "wb") as file:
        shutil.copyfileobj(answer, file, 2**20)
