"""The table of all networks: what the gates add, and what the paper says that they bring."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from .recipe import Recipe
from .registry import NETWORKS, get


@dataclass(frozen=True)
class Row:
    """One network: ``(plain, SE)`` parameters, and 1e9 multiply-adds of one image at the paper's size.

    There is no second number where the network has no sites.
    """

    recipe: Recipe
    parameters: tuple[int, ...]
    gflops: tuple[float, ...]


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
    parameters = [f"{count:,}" for count in row.parameters]
    gflops = [f"{count:.3f}" for count in row.gflops]
    return [
        row.recipe.name,
        str(row.recipe.size),
        *_beside(parameters, row.parameters),
        *_beside(gflops, row.gflops),
        *(_errors(row.recipe, rank) for rank in (0, 1)),
    ]


def _beside(texts: Sequence[str], values: Sequence[float]) -> list[str]:
    if len(values) == 1:
        return [texts[0], "no sites", ""]
    return [*texts, f"{100 * (values[1] / values[0] - 1):.2f} %"]


def _errors(recipe: Recipe, rank: int) -> str:
    """The paper's plain and SE error, of top 1 (rank 0) or top 5, or what it quotes of the plain network's authors."""
    paper, size = recipe.paper, recipe.size
    if paper is None:
        return ""
    ours = [errors[size][rank] for errors in (paper.plain, paper.se) if size in errors]
    printed = [f"{error:.2f}" for error in ours if error is not None]
    quoted = paper.original[size][rank] if size in paper.original else None
    return " -> ".join(printed) if ours or quoted is None else f"{quoted:.2f} (its authors)"


def multiply_adds(network: nn.Module, size: int) -> int:
    """Multiply-adds of one image of ``size`` pixels a side: half of what torch's own FLOP counter counts.

    The counter counts convolutions and matrix products; the network may be on the meta device.

    >>> multiply_adds(nn.Conv2d(3, 8, 1), 10)
    2400
    """
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, size, size, device=device))
    return int(counter.get_total_flops()) // 2


def _row(recipe: Recipe) -> Row:
    counts = []
    with torch.device("meta"):
        network = recipe.build(se=False)
        counts.append(_counts(network, recipe.size))
        if recipe.kinds:
            counts.append(_counts(recipe.add_gates(network), recipe.size))
    parameters, gflops = zip(*counts, strict=True)
    return Row(recipe, parameters, gflops)


def _counts(network: nn.Module, size: int) -> tuple[int, float]:
    return sum(p.numel() for p in network.parameters()), multiply_adds(network, size) / 1e9


def list_networks(*names: str) -> Networks:
    """What each network, or those named, costs with and without gates, measured on the meta device.

    A sequence of rows that prints as a table. GFLOPs are 1e9 multiply-adds, as in the paper; errors are the paper's, in
    per cent, of the plain network and of the one with gates, and where a network has a ``_caffe`` variant, of that one.
    Of networks that it only compares with, they are those of the plain network's own authors.

    Raises ``UnknownNameError``.

    >>> list_networks("se_resnet50")[0].parameters
    (25557032, 28088024)
    """
    chosen = [get(name) for name in names or NETWORKS]
    bar = tqdm(chosen, "measure networks", leave=False, disable=len(chosen) < 4)
    return Networks([_row(recipe) for recipe in bar])
