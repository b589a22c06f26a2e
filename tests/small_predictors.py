"""Small networks of Something-Something and their files."""

import dataclasses

import torch
from settled import settle
from torch import nn

from rstg_pyg.models import VIDEO_SMALL, build_video_row
from rstg_pyg.training import save_weights

NETWORK = dataclasses.replace(VIDEO_SMALL, width=8, channels=5, num_classes=6, res5_stride=1)
CLASSES = ["down", "up", "left", "right", "nearer", "farther"]


def network(row):
    """A network whose graphs and classes are not those of a new one."""
    torch.manual_seed(0)
    net = settle(build_video_row(row, NETWORK))
    for name, parameter in net.named_parameters():
        if "lin_out" in name or name.startswith("pool.norm"):
            nn.init.normal_(parameter)
    nn.init.normal_(net.classifier.weight)
    return net


def config_of(row, **changes):
    config = {
        "task": "something-something",
        "model": row,
        "network": dataclasses.asdict(NETWORK),
        "classes": CLASSES,
        "num_frames": 8,
        "size": 32,
        "seed": 0,
    }
    return {**config, **changes}


def write_weights(path, row, **changes):
    save_weights(network(row), path, config_of(row, **changes))
    return path
