"""Your own block class: no base class, no registration, no change to its code."""

import torch
from torch import Tensor, nn

import se_inject


class WaveBlock(nn.Module):
    """A residual block on audio, (N, C, T), with dropout before the add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, channels, 9, padding=4),
            nn.BatchNorm1d(channels),
            nn.GELU(),
            nn.Conv1d(channels, channels, 9, padding=4),
            nn.BatchNorm1d(channels),
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        branch: Tensor = self.dropout(self.body(x))
        return x + branch * scale


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 32, 9), WaveBlock(32), WaveBlock(32)).eval()
    audio = torch.randn(2, 1, 400)
    before = model(audio)

    print(se_inject.find_sites(model))  # the gate goes after the last norm, before dropout and scale
    se_inject.apply(model, reduction=4)
    print(model[1])
    print("same output to the bit:", torch.equal(model(audio), before))

    se_inject.remove(model)
    print("gates after remove:", len(list(se_inject.gates(model))))


if __name__ == "__main__":
    main()
