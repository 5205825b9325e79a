"""A gate whose squeeze is taken over the labelled images of a few-shot task, instead of over each image.

Patacchiola et al., "Contextual Squeeze-and-Excitation for Efficient Few-Shot Image Classification", NeurIPS 2022,
section 3.
"""

import torch
from torch import Tensor, nn

from .tasks import SHOTS, WAYS


class ContextualGate(nn.Module):
    """Scale the channels of all images of a task alike, by what its context, the first ``WAYS * SHOTS`` images, is.

    Input and output are ``(N, C, H, W)``. The last layer starts at zero, so the scale is exactly 1 before training.

    >>> x = torch.randn(50, 8, 3, 3)
    >>> torch.equal(ContextualGate(8, 8)(x), x)
    True
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """The gated features."""
        means = x[: WAYS * SHOTS].mean((0, 2, 3))
        standardized = nn.functional.layer_norm(means, means.shape)
        return x * (2 * torch.sigmoid(self.layers(standardized)))[:, None, None]
