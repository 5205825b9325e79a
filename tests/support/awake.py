"""Gated networks in which nothing is as it was initialized."""

import torch
from torch import nn

from se_inject import SqueezeExcitation


def awake(model):
    """With gates, norms and statistics that tell channels and samples apart."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            nn.init.normal_(module.fc2.weight, std=0.3)
            nn.init.normal_(module.fc2.bias, std=0.3)
        if getattr(module, "weight", None) is not None and "Norm" in type(module).__name__:
            nn.init.normal_(module.weight, 1, 0.3)
            if getattr(module, "bias", None) is not None:
                nn.init.normal_(module.bias, std=0.3)
        if getattr(module, "running_mean", None) is not None:
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()
