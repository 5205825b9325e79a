"""What a part of a gate's work costs in its place: ``python -m benchmarks.floor``, ten minutes.

Each arm is the network with something that does less where its gates are. Writes its section of docs/speed.md.
"""

import argparse
import copy
import itertools
from functools import partial

import torch
from torch import Tensor, nn

import se_inject
from se_inject import SqueezeExcitation

from .inference import LAYOUTS, NETWORKS, run
from .measure import ratios, write


class Part(nn.Module):
    def __init__(self, gate: SqueezeExcitation) -> None:
        super().__init__()
        self.fc1, self.fc2 = gate.fc1, gate.fc2
        self.one = torch.ones(1, 1)


class Calls(Part):
    """As many operations as a gate has, of one value."""

    def forward(self, x: Tensor) -> Tensor:
        one = self.one
        value = torch.relu(torch.addmm(one, one.sum(1, keepdim=True), one))
        _scale = one * (2 * torch.sigmoid(torch.addmm(one, value, one)))
        return x


class Weights(Part):
    """The gate's weights are read, and nothing is computed of them but their sums."""

    def forward(self, x: Tensor) -> Tensor:
        self.fc1.weight.sum()
        self.fc2.weight.sum()
        return x


class Sum(Part):
    def forward(self, x: Tensor) -> Tensor:
        x.sum((2, 3))
        return x


class Product(Part):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2.0


class ProductInPlace(Part):
    """As a gate may not do, whose input others may still have."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2.0)


PARTS: dict[str, type[Part]] = {
    "calls of one value": Calls,
    "reading the weights": Weights,
    "sum": Sum,
    "product": Product,
    "product in place": ProductInPlace,
}


def row(name: str, threads: int, batch: int, layout: str, rounds: int) -> dict[str, str]:
    make, size = NETWORKS[name]
    plain = make().eval()
    gated = se_inject.apply(copy.deepcopy(plain))
    models = {"plain": plain, "gated": gated, "optimized": se_inject.optimize(gated)}
    for key, part in PARTS.items():
        models[key] = copy.deepcopy(gated)
        for path, gate in se_inject.gates(models[key]):
            models[key].set_submodule(path, part(gate))  # type: ignore[arg-type]  # no subclass
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=LAYOUTS[layout])
    for model in models.values():
        model.to(memory_format=LAYOUTS[layout])
    found = ratios({key: partial(run, model, x) for key, model in models.items()}, rounds, f"{name}, {batch}")
    return {"network": name, "threads": str(threads), "batch": str(batch), "layout": layout, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=33)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    cases = itertools.product(flags.networks, flags.batches, LAYOUTS)
    rows = [row(name, flags.threads, batch, layout, flags.rounds) for name, batch, layout in cases]
    text = (
        "`python -m benchmarks.floor`: forward in eval mode with a part of a gate's work where the gates are; processor"
        " time, with quartiles, and wall time as ratios to the plain network's."
    )
    write("Parts of a gate", text, rows)


if __name__ == "__main__":
    main()
