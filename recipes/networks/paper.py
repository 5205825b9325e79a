"""Every figure of others that the recipes show, and where it was printed; errors are in per cent.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", https://arxiv.org/abs/1709.01507: v1 (September 2017), the CVPR 2018
paper, and the journal version (v4). All three print the same figures where they print a network; the comments name the
tables by their numbers in the CVPR paper, "journal" those in the journal version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Errors(NamedTuple):
    """Top-1 and top-5 error in per cent; ``None`` where none was printed.

    >>> str(Errors(22.2, None))
    '22.20 / -'
    """

    top1: float | None
    top5: float | None

    def __str__(self) -> str:
        if self.top1 is None and self.top5 is None:
            return "-"
        return " / ".join("-" if value is None else f"{value:.2f}" for value in self)

    def __sub__(self, other: "Errors") -> "Errors":
        """The differences; negative where this one is better.

        >>> str(Errors(23.29, 6.62) - Errors(24.80, None))
        '-1.51 / -'
        """
        pairs = zip(self, other, strict=True)
        return Errors(*(None if a is None or b is None else a - b for a, b in pairs))


@dataclass(frozen=True, eq=False)
class Published:
    """Single-crop errors of a network on ImageNet-1k's validation images, or CIFAR-10's, by the crop's size in pixels.

    ``original``: as its own authors report it; ``plain`` and ``se``: trained by the SE paper's authors, without gates
    and with them. ``gflops`` are 1e9 multiply-adds of these two.
    """

    original: Mapping[int, Errors] = field(default_factory=dict)
    plain: Mapping[int, Errors] = field(default_factory=dict)
    se: Mapping[int, Errors] = field(default_factory=dict)
    gflops: tuple[float, float] | None = None


def _table2(
    original: tuple[float | None, float | None],
    plain: tuple[float, float],
    se: tuple[float, float],
    gflops: tuple[float, float],
    size: int = 224,
    larger: Mapping[int, Errors] | None = None,
) -> Published:
    """A row of Table 2, which has one size, and what Table 4 has of the same network at a larger one."""
    return Published({size: Errors(*original), **(larger or {})}, {size: Errors(*plain)}, {size: Errors(*se)}, gflops)


# Table 2
RESNET50 = _table2((24.7, 7.8), (24.80, 7.48), (23.29, 6.62), (3.86, 3.87))
RESNET101 = _table2((23.6, 7.1), (23.17, 6.52), (22.38, 6.07), (7.58, 7.60))
RESNET152 = _table2((23.0, 6.7), (22.42, 6.34), (21.57, 5.73), (11.30, 11.32), larger={320: Errors(21.3, 5.5)})
RESNEXT50 = _table2((22.2, None), (22.11, 5.90), (21.10, 5.49), (4.24, 4.25))
RESNEXT101 = _table2((21.2, 5.6), (21.18, 5.57), (20.70, 5.01), (7.99, 8.00))
VGG16 = _table2((None, None), (27.02, 8.81), (25.22, 7.70), (15.47, 15.48))
BN_INCEPTION = _table2((25.2, 7.82), (25.38, 7.89), (24.23, 7.14), (2.03, 2.04))
# its original figures are of the validation images that are not blacklisted
INCEPTION_RESNET_V2 = _table2((19.9, 4.9), (20.37, 5.21), (19.80, 4.79), (11.75, 11.76), size=299)

# Table 4, and DenseNet-161 from the same table of v1
RESNET200 = Published({224: Errors(21.7, 5.8), 320: Errors(20.1, 4.8)})
INCEPTION_V3 = Published({299: Errors(21.2, 5.6)})
INCEPTION_V4 = Published({299: Errors(20.0, 5.0)})
RESNEXT101_64X4D = Published({224: Errors(20.4, 5.3), 320: Errors(19.1, 4.4)})
DENSENET161 = Published({224: Errors(22.2, None)})
POLYNET = Published({331: Errors(18.71, 4.25)})
DPN131 = Published({224: Errors(19.93, 5.12), 320: Errors(18.55, 4.16)})
SENET154 = Published(se={224: Errors(18.68, 4.47), 320: Errors(17.28, 3.79)})

# CIFAR-10, journal: Table 4
RESNET110 = Published(plain={32: Errors(6.37, None)}, se={32: Errors(5.21, None)})


class Team(NamedTuple):
    """A challenge's entry: top-5 error in per cent on ImageNet's test images, with the provided training data alone."""

    name: str
    year: int
    top5: float


# The organizers' results, https://image-net.org/challenges/LSVRC/2017/results and 2016/results; 2.251 also in the paper
TEAMS = (
    Team("WMW (SENets)", 2017, 2.251),
    Team("Trimps-Soushen", 2017, 2.481),
    Team("NUS-Qihoo_DPNs", 2017, 2.74),
    Team("Trimps-Soushen", 2016, 2.991),
    Team("ResNeXt", 2016, 3.031),
)


class Claim(NamedTuple):
    """What the gates cost by the authors' account: at most so many per cent more."""

    what: str
    at_most: float
    text: str


# Their talk at the workshop Beyond ILSVRC, 2017. Section 4 of the paper measures ResNet-50: 164 -> 167 ms on a CPU, and
# a training step on 8 GPUs, 190 -> 209 ms.
PARAMETERS = Claim("parameters", 10, "2 to 10 %")
MULTIPLY_ADDS = Claim("multiply-adds", 1, "< 1 %")
CPU_TIME = Claim("time on a CPU", 2, "< 2 %")
GPU_TIME = Claim("time on a GPU", 10, "10 %")
