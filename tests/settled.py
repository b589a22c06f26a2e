"""Networks as they are after some training, for tests of which a new one would pass too many."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm


def settle(net):
    """Give every batch normalisation scales and statistics that do something, and return the network for inference."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()
