"""Strict reading of IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
import math
import os

import numpy as np

from rstg_pyg.files import FileError, open_file, reading

_ITEM_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class IDXError(FileError):
    r"""A file is not the IDX file that it should be. The message names the file."""


def read_content(
    path: str | os.PathLike, magic: int | None = None, most: int | None = None
) -> tuple[bytes, np.ndarray]:
    r"""The header and the array in an IDX file, gzip-compressed or not.

    An IDX file starts with two zero bytes, a byte for the item type and a byte for the number of
    dimensions :math:`n`; then follow :math:`n` sizes of four bytes, high byte first, and the
    items, high byte first. Nothing may be missing and nothing may follow. No more is decompressed
    than the header says.

    Args:
        path (str or PathLike): The file. Its first two bytes decide whether it is compressed.
        magic (int, optional): The magic number, i.e., the first four bytes, that the file must
            have. (default: any that IDX knows)
        most (int, optional): How many items it may have. (default: any number)

    Shapes:
        - **output:** as the file says, read-only

    Raises:
        FileNotFoundError: If there is no such file.
        IDXError: If the content breaks the format.
    """
    with reading(path, IDXError, "an IDX file"), open_file(path) as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        file = gzip.GzipFile(fileobj=raw) if packed else raw
        header = file.read(4)
        if len(header) < 4:
            raise IDXError(f"{path} is truncated: {len(header)} bytes cannot hold an IDX header")
        if header[:2] != b"\0\0" or header[2] not in _ITEM_TYPES or header[3] == 0:
            raise IDXError(
                f"{path} is not an IDX file: expected a magic number 0x0000TTNN with a known item "
                f"type TT and NN > 0 dimensions, found 0x{header.hex()}"
            )
        if magic is not None and int.from_bytes(header, "big") != magic:
            raise IDXError(f"{path} has a wrong magic number: expected 0x{magic:08x}, found 0x{header.hex()}")
        dtype = np.dtype(_ITEM_TYPES[header[2]])
        begin = 4 + 4 * header[3]
        header += file.read(begin - 4)
        if len(header) < begin:
            raise IDXError(
                f"{path} is truncated: {header[3]} dimensions need a header of {begin} bytes, found {len(header)}"
            )
        shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
        items = math.prod(shape)
        if most is not None and items > most:
            raise IDXError(f"{path} is too large: expected at most {most} items, found shape {list(shape)}")
        size = items * dtype.itemsize
        # A byte of gzip stands for at most 1,032: what a header asks for beyond that is not there.
        content = file.read(min(size + 1, (1032 if packed else 1) * os.fstat(raw.fileno()).st_size))
        if len(content) != size:
            state = "is truncated" if len(content) < size else "has trailing bytes"
            raise IDXError(
                f"{path} {state}: its header, of shape {list(shape)}, asks for {begin + size} bytes, found "
                f"{begin + len(content)}{' or more' if len(content) > size else ''}"
            )
        array = np.frombuffer(content, dtype).reshape(shape)
        return header, array.astype(dtype.newbyteorder("="), copy=False)


def read_idx(path: str | os.PathLike) -> np.ndarray:
    r"""The array in an IDX file, gzip-compressed or not.

    Args:
        path (str or PathLike): The file.

    Shapes:
        - **output:** as the file says

    Raises:
        FileNotFoundError: If there is no such file.
        IDXError: If the file is damaged, truncated, too long or no IDX file at all.

    Source: the IDX format of MNIST, Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of
    handwritten digits".

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "labels")
        >>> _ = open(path, "wb").write(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]))
        >>> read_idx(path).tolist()
        [5, 6]
    """
    return read_content(path)[1]
