"""Reading IDX files strictly, and MNIST itself."""

import gzip
import hashlib
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from cases import case

from rstg_pyg.datasets import IDXError, read_idx
from rstg_pyg.datasets.mnist import read_content, read_mnist

MNIST = os.environ.get("RSTG_PYG_MNIST")


def write(tmp_path, content):
    path = tmp_path / "file-idx"
    path.write_bytes(content)
    return path


def header(item_type, *shape):
    return bytes([0, 0, item_type, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def test_reads_raw_and_compressed_files(tmp_path):
    for compress in (bytes, gzip.compress):
        array = read_idx(write(tmp_path, compress(header(8, 2, 3) + bytes(range(6)))))
        assert array.dtype == np.uint8
        assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
        wide = read_idx(write(tmp_path, compress(header(0x0C, 2) + bytes([0, 0, 1, 0, 255, 255, 255, 255]))))
        assert wide.tolist() == [256, -1]


def test_malformed_files(tmp_path):
    for content, message in [
        (b"", "is truncated: 0 bytes"),
        (b"<html>not found</html>", "is not an IDX file.*found 0x3c68746d"),
        (bytes([0, 0, 7, 1, 0, 0, 0, 0]), "is not an IDX file"),
        (bytes([0, 0, 8, 0]), "is not an IDX file"),
        (bytes([0, 0, 8, 3, 0, 0]), "is truncated: 3 dimensions need a header of 16 bytes"),
        (header(8, 5) + b"1234", "is truncated: .* asks for 13 bytes, found 12"),
        (header(8, 3) + b"1234", "has trailing bytes: .* asks for 11 bytes, found 12 or more"),
        (header(8, 0, *[2**32 - 1] * 3) + b"1", ""),
        (header(8, *[1] * 255) + b"12", ""),
        (header(8, *[2**32 - 1] * 255) + b"1", ""),
    ]:
        for compress in (bytes, gzip.compress):
            with case(content, compress), pytest.raises(IDXError, match=f"file-idx {message}"):
                read_idx(write(tmp_path, compress(content)))


def test_damaged_gzip(tmp_path):
    compressed = gzip.compress(header(8, 1000) + bytes(1000), mtime=0)
    for place, found in ((-6, "CRC check failed"), (10, "Error -3 while decompressing")):
        flipped = bytearray(compressed)
        flipped[place] = 0xFF
        with pytest.raises(IDXError, match=f"^expected {tmp_path}/file-idx to be an IDX file, got: {found}"):
            read_idx(write(tmp_path, bytes(flipped)))
    with pytest.raises(IDXError, match="file-idx to be an IDX file, got: Compressed file ended before"):
        read_idx(write(tmp_path, compressed[:-12]))


def test_no_more_is_decompressed_than_the_header_says(tmp_path):
    bomb, big = (gzip.compress(header(8, n) + bytes(2**24)) for n in (5, 2**24))
    tracemalloc.start()
    with pytest.raises(IDXError, match=r"asks for 13 bytes, found 14 or more$"):
        read_idx(write(tmp_path, bomb))
    # A header that promises more than its file can hold.
    with pytest.raises(IDXError, match=r"is truncated: its header, of shape \[1073741824\]"):
        read_idx(write(tmp_path, gzip.compress(header(8, 2**30) + bytes(100))))
    with pytest.raises(IDXError, match=r"is too large: expected at most 1000 items, found shape \[16777216\]$"):
        read_content(write(tmp_path, big), most=1000)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    kept_open = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(kept_open, b"text")
    with pytest.raises(ValueError, match=r"expected a file .*pipe, got a pipe or a device"):
        read_idx(tmp_path / "pipe")
    os.close(kept_open)
    with pytest.raises(FileNotFoundError, match="absent"):
        read_idx(tmp_path / "absent")


@pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST names no folder with the files of MNIST")
def test_mnist_is_the_known_one():
    content = gzip.decompress(Path(MNIST, "train-images-idx3-ubyte.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    for train, count in ((True, 60_000), (False, 10_000)):
        images, labels = read_mnist(MNIST, train, "")
        assert images.shape == (count, 28, 28)
        assert labels.shape == (count,)
