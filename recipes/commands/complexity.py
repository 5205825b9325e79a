"""What gates cost, measured beside what the authors say: ``python -m recipes complexity NETWORK [NETWORK ...]``.

Parameters, multiply-adds of one image, and the time of a forward pass, on the CPU and on a GPU where there is one: of
the plain network and of the same with gates, in turns.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import nn

import se_inject

from ..files import check_writable, replacing
from ..networks.any_model import Model, check_input
from ..networks.base import own_outputs
from ..networks.paper import CPU_TIME, GPU_TIME, MULTIPLY_ADDS, PARAMETERS, Claim
from ..networks.skeleton import skeleton
from ..training.settings import at_least
from .flags import make_parser


class Width(NamedTuple):
    """All gates of so many ``channels``: their parameters, and those of their blocks without them."""

    channels: int
    gates: int
    in_gates: int
    in_blocks: int


@dataclass(frozen=True)
class Complexity:
    """What the gates of a network add, as ``se_inject.report`` has it, and where; without a GPU there is no ``gpu``."""

    name: str
    cpu: se_inject.Report
    gpu: se_inject.Report | None
    widths: tuple[Width, ...]

    @property
    def reports(self) -> list[se_inject.Report]:
        """Those that there are."""
        return [report for report in (self.cpu, self.gpu) if report]


def measure(model: Model, size: int, batch: int | None = None, rounds: int = 20) -> Complexity:
    """Measure the randomly initialized network that ``model`` describes, and the same without its gates.

    ``batch`` images ``(N, 3, size, size)`` at once, or else one on the CPU and 32 on a GPU. Raises as ``Model.build``.

    >>> found = measure(Model("se_resnet20", "standard", 10), size=8, rounds=2)
    >>> found.cpu.gated.parameters - found.cpu.plain.parameters, found.widths[0]
    (5784, Width(channels=16, gates=3, in_gates=840, in_blocks=14016))
    """
    network = model.build().eval()
    cpu = se_inject.report(network, torch.randn(batch or 1, 3, size, size), rounds=rounds)
    widths = _widths(network, cpu.sites)
    gpu = None
    if torch.cuda.is_available():
        images = torch.randn(batch or 32, 3, size, size, device="cuda")
        gpu = se_inject.report(network.cuda(), images, rounds=rounds)
    return Complexity(model.name, cpu, gpu, widths)


def _widths(network: nn.Module, sites: se_inject.Sites) -> tuple[Width, ...]:
    gates = dict(se_inject.gates(network))
    counted = {parameter for gate in gates.values() for parameter in gate.parameters()}
    widths: dict[int, Width] = {}
    for site in sorted(sites, key=lambda site: -site.path.count(".")):  # a parameter counts in its innermost block
        block = {*network.get_submodule(site.path).parameters()} - counted
        counted |= block
        before = widths.get(site.channels, Width(site.channels, 0, 0, 0))
        added = (1, _count(gates[site.gate_path].parameters()), _count(block))
        widths[site.channels] = Width(site.channels, *(a + b for a, b in zip(before[1:], added, strict=True)))
    return tuple(widths[channels] for channels in sorted(widths))


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def page(measured: Sequence[Complexity]) -> str:
    """Markdown: a row a network, what the authors say, and where gates add more parameters than that, why."""
    ways = {
        f"{r.device}, {r.threads} thread{'s' * (r.threads != 1)}, inputs {r.inputs[0]}, {r.rounds} pairs"
        for m in measured
        for r in m.reports
    }
    parts = [
        _table(measured),
        "Bold: more than the authors say. Times are medians of pairs, with quartiles: " + "; ".join(sorted(ways)) + ".",
    ]
    for one in measured:
        if 100 * (_ratio(one.cpu, "parameters") - 1) > PARAMETERS.at_most:
            parts += [
                f"{one.name}: a gate has 2 C² / r weights for C channels, whatever its block has:",
                _where(one),
            ]
    return "\n\n".join(parts) + "\n"


def _table(measured: Sequence[Complexity]) -> str:
    rows = []
    for one in measured:
        plain = one.cpu.plain
        parameters = [f"{plain.parameters:,}", _added(_ratio(one.cpu, "parameters"), PARAMETERS)]
        multiply_adds = [f"{plain.multiply_adds / 1e9:.3f} G", _added(_ratio(one.cpu, "multiply_adds"), MULTIPLY_ADDS)]
        times = [*_time(one.cpu, CPU_TIME), *_time(one.gpu, GPU_TIME)]
        rows.append([one.name, *parameters, *multiply_adds, *times])
    said = [text for claim in (PARAMETERS, MULTIPLY_ADDS, CPU_TIME, GPU_TIME) for text in ("", claim.text)]
    headers = ["", "parameters", "added", "multiply-adds", "added", "on a CPU", "added", "on a GPU", "added"]
    return _markdown([*rows, ["the authors say", *said]], headers)


def _ratio(report: se_inject.Report, what: str) -> float:
    ratio: float = getattr(report.gated, what) / getattr(report.plain, what)
    return ratio


def _added(ratio: float, claim: Claim, spread: str = "") -> str:
    more = 100 * (ratio - 1)
    text = f"{more:+.2f} %{spread}"
    return f"**{text}**" if more > claim.at_most else text


def _time(report: se_inject.Report | None, claim: Claim) -> list[str]:
    if report is None or report.ratio is None or report.plain.latency is None:
        return ["-", "-"]
    low, middle, high = report.ratio
    spread = f" ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f})"
    return [f"{1e3 * report.plain.latency.median:.1f} ms", _added(middle, claim, spread)]


def _where(one: Complexity) -> str:
    rows = []
    for channels, gates, in_gates, in_blocks in one.widths:
        added = f"{100 * in_gates / in_blocks:.1f} %" if in_blocks else "-"
        rows.append([f"{channels}", f"{gates}", f"{in_gates:,}", f"{in_blocks:,}", added])
    outside = one.cpu.plain.parameters - sum(width.in_blocks for width in one.widths)
    headers = ["channels", "gates", "parameters in gates", "in their blocks", "added"]
    return _markdown([*rows, ["outside of blocks", "0", "0", f"{outside:,}", ""]], headers)


def _markdown(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    text: str = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return text


def main(arguments: Sequence[str] | None = None) -> list[Complexity]:
    """Run the command with these arguments, or the program's; returns what was measured.

    Raises the errors of ``recipes.errors``.
    """
    parser = make_parser("complexity", __doc__)
    parser.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="a name of recipes.list_networks(), or LIBRARY/NAME"
    )
    parser.add_argument("--reduction", type=int, default=16, help="of the gates (default: %(default)s)")
    parser.add_argument("--size", type=at_least(1), help="side of an input in pixels (default: the network's own)")
    parser.add_argument("--batch", type=at_least(1), help="images at once (default: one on the CPU, 32 on a GPU)")
    parser.add_argument("--rounds", type=at_least(2), default=20, help="pairs to time (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("complexity.md"), help="page (default: %(default)s)")
    flags = parser.parse_args(arguments)

    check_writable(flags.out)
    models = [Model(name, "standard", own_outputs(name), flags.reduction) for name in flags.networks]
    sizes = [flags.size or model.preprocess(None).size for model in models]
    for model, size in zip(models, sizes, strict=True):
        check_input(skeleton(model.build), model, size, flags.batch or 1, training=False)
    measured = [measure(model, size, flags.batch, flags.rounds) for model, size in zip(models, sizes, strict=True)]
    print(page(measured))
    with replacing(flags.out) as temporary:
        temporary.write_text(page(measured))
    return measured
