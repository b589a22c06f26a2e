"""Small hosts of inserted blocks, and clips for them."""

import torch
from torch import nn

from rstg_pyg.blocks import insert_rstg

OPTIONS = {"channels": 4, "scales": (2, 1), "num_stages": 1}


class Net(nn.Module):
    """A host of 3D convolutions, or of 2D ones on frames in the batch."""

    def __init__(self, dims=3):
        super().__init__()
        conv, norm = (nn.Conv3d, nn.BatchNorm3d) if dims == 3 else (nn.Conv2d, nn.BatchNorm2d)
        self.layer1 = nn.Sequential(conv(3, 6, 3, padding=1), norm(6), nn.ReLU(inplace=True))
        self.layer2 = nn.Sequential(conv(6, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.head = nn.Linear(5, 7)

    def forward(self, x):
        return self.head(self.layer2(self.layer1(x)).flatten(2).mean(2))


def clips(batch=2, num_frames=4):
    return torch.randn(batch, 3, num_frames, 8, 8)


def frames(batch=2, num_frames=4):
    return clips(batch, num_frames).transpose(1, 2).flatten(0, 1)


def example(dims):
    return clips() if dims == 3 else frames()


def wake(net):
    """Make the blocks change what they get."""
    for block in net.rstg_blocks.values():
        nn.init.normal_(block.lin_out.weight)
    return net


def host(dims=3):
    """A host in evaluation mode with statistics of its own."""
    net = Net(dims)
    for _ in range(3):
        net(example(dims))
    return net.eval()


def inserted(dims=3, **blocks):
    blocks = blocks or {"layer1": OPTIONS, "layer2": OPTIONS}
    return insert_rstg(host(dims), blocks, example=example(dims), num_frames=None if dims == 3 else 4)
