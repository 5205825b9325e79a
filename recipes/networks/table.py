"""The table of all networks: what the gates add, and what the paper says that they bring."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from .recipe import Recipe
from .registry import NETWORKS, get


@dataclass(frozen=True)
class Row:
    """One network: ``(plain, SE)`` parameters, and 1e9 multiply-adds of one image at the paper's size."""

    recipe: Recipe
    parameters: tuple[int, int]
    gflops: tuple[float, float]


class Networks(Sequence[Row]):
    """The rows of ``list_networks``; prints as a table."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._rows[index]

    def __str__(self) -> str:
        return self.table("simple")

    def table(self, style: str) -> str:
        """The table in one of tabulate's styles, such as ``"github"``.

        >>> "| 269,722 " in list_networks("se_resnet20").table("github")
        True
        """
        headers = [
            "network",
            "input",
            "parameters, plain",
            "with gates",
            "added",
            "GFLOPs, plain",
            "with gates",
            "added",
            "paper: top-1 error",
            "top-5 error",
        ]
        text: str = tabulate([_cells(row) for row in self], headers, tablefmt=style, disable_numparse=True)
        return text


def _cells(row: Row) -> list[str]:
    (p0, p1), (f0, f1), paper = row.parameters, row.gflops, row.recipe.paper

    def errors(pair: tuple[float | None, float] | None) -> str:
        return "" if pair is None else f"{'' if pair[0] is None else f'{pair[0]:.2f} -> '}{pair[1]:.2f}"

    return [
        row.recipe.name,
        str(row.recipe.size),
        f"{p0:,}",
        f"{p1:,}",
        f"{100 * (p1 / p0 - 1):.2f} %",
        f"{f0:.3f}",
        f"{f1:.3f}",
        f"{100 * (f1 / f0 - 1):.2f} %",
        errors(paper.top1 if paper else None),
        errors(paper.top5 if paper else None),
    ]


def multiply_adds(network: torch.nn.Module, size: int) -> int:
    """Multiply-adds of one image of ``size`` pixels a side: half of what torch's own FLOP counter counts.

    The counter counts convolutions and matrix products; the network may be on the meta device.

    >>> multiply_adds(torch.nn.Conv2d(3, 8, 1), 10)
    2400
    """
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, size, size, device=device))
    return int(counter.get_total_flops()) // 2


def _row(recipe: Recipe) -> Row:
    with torch.device("meta"):
        networks = recipe.build(se=False), recipe.build()
    plain, gated = (sum(p.numel() for p in network.parameters()) for network in networks)
    flops = [multiply_adds(network, recipe.size) / 1e9 for network in networks]
    return Row(recipe, (plain, gated), (flops[0], flops[1]))


def list_networks(*names: str) -> Networks:
    """What each network, or those named, costs with and without gates, measured on the meta device.

    A sequence of rows that prints as a table. GFLOPs are 1e9 multiply-adds, as in the paper; errors are the paper's, in
    per cent, of the plain network and of the one with gates, and where a network has a ``_caffe`` variant, of that one.

    Raises ``UnknownNameError``.

    >>> list_networks("se_resnet50")[0].parameters
    (25557032, 28088024)
    """
    chosen = [get(name) for name in names or NETWORKS]
    bar = tqdm(chosen, "measure networks", leave=False, disable=len(chosen) < 4)
    return Networks([_row(recipe) for recipe in bar])
