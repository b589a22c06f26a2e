"""Clips stay the same bytes from version to version: digests that were recorded once."""

import hashlib
import os

import pytest
import torch
from clip_fields import FIELDS

from rstg_pyg.datasets import ClipGenerator, SyncMNIST

MNIST = os.environ.get("RSTG_PYG_MNIST")
NUMBERS = torch.tensor([0, 1, 59, 60, 92, 1000, 2**20, 2**32 + 7, 2**40 - 1])
RECORDED = {
    (2, 1, 1, True, 0, 1 / 92): "fc8d47ac33946619",
    (3, 10, 64, True, 0, 1 / 92): "1158f1bff481847d",
    (3, 4, 32, False, 2**64 - 1, 0.5): "ce5afd177a2156be",
    (5, 10, 64, False, 7, 1 / 92): "b2c0fb37e2109a20",
    (5, 6, 17, True, 2**63, 0): "93b0f6be9172e041",
    (10, 3, 100, True, 1, 1): "d95fae0c971bdab8",
    (4, 2, 150, False, 3, 0.5): "5c25b1f7053fbb71",
}
RECORDED_OF_MNIST = {(3, True): "73ff55872b28e815", (5, True): "1b5981a31ccd7857", (5, False): "812048bd2bf58a90"}


def digest(dataset, numbers):
    items, content = [dataset[int(number)] for number in numbers], hashlib.sha256()
    for name in FIELDS:
        field = torch.cat([item[name] for item in items])
        assert torch.equal(ClipGenerator(dataset, "cpu")(numbers)[name], field), name
        content.update(field.numpy().tobytes())
    return content.hexdigest()[:16]


def test_recorded_clips(make):
    names = ("num_digits", "num_frames", "size", "train", "seed", "no_sync_probability")
    found = {case: digest(make(num_clips=2**40, **dict(zip(names, case, strict=True))), NUMBERS) for case in RECORDED}
    assert found == RECORDED


@pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
def test_recorded_clips_of_mnist(tmp_path):
    found = {
        (num_digits, train): digest(
            SyncMNIST(tmp_path, num_digits, train, mnist_dir=MNIST, num_clips=600_000), torch.arange(0, 600_000, 13_331)
        )
        for num_digits, train in RECORDED_OF_MNIST
    }
    assert found == RECORDED_OF_MNIST
