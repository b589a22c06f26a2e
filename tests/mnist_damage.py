"""Files of MNIST for the tests that read or download them."""

import gzip
import warnings

from rstg_pyg.datasets import SyncMNIST

IMAGES = "train-images-idx3-ubyte"


def make(root, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return SyncMNIST(root, num_clips=5, log=False, **kwargs)


def everything_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def damage(content, how):
    if how == "gzip cut":
        return gzip.compress(content)[:-20]
    if how == "gzip flipped":
        compressed = bytearray(gzip.compress(content))
        compressed[len(compressed) // 2] ^= 0xFF
        return bytes(compressed)
    if how == "empty":
        return b""
    if how == "cut":
        return content[:-1]
    if how == "too long":
        return content + b"\0"
    if how == "magic":
        return content[:3] + b"\1" + content[4:]
    if how == "page":
        return b"<!DOCTYPE html><html></html>"
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGES = {
    "gzip cut": "to be an IDX file, got: Compressed file ended before",
    "gzip flipped": "to be an IDX file, got: (Error -3|CRC check failed)",
    "empty": "is truncated: 0 bytes cannot hold an IDX header",
    "cut": "is truncated: .* found",
    "too long": "has trailing bytes: .* found",
    "magic": "has a wrong magic number: expected 0x00000803, found 0x00000801",
    "page": "is not an IDX file: .* found 0x3c21444f",
    "other content": f"is not the {IMAGES} of MNIST: expected SHA-256 [0-9a-f]{{64}} .* found [0-9a-f]{{64}}",
}
