"""The library's answers as JSON."""

from typing import Any

from ..reports.costs import Cost, Spread
from ..reports.gate_values import Activations
from ..reports.table import Report
from ..sites.site import Sites


def of_sites(sites: Sites) -> dict[str, Any]:
    """Sites and the other candidates.

    >>> of_sites(Sites([], []))
    {'sites': [], 'skipped': []}
    """
    return {
        "sites": [site._asdict() | {"file": site.file, "line": site.line} for site in sites],
        "skipped": [skipped._asdict() for skipped in sites.skipped],
    }


def of_report(report: Report) -> dict[str, Any]:
    """What was measured; times in seconds, memory in bytes."""
    return {
        "class": report.model,
        "inputs": list(report.inputs),
        "device": report.device,
        "threads": report.threads,
        "rounds": report.rounds,
        "plain": _cost(report.plain),
        "gated": _cost(report.gated),
        "latency_ratio": _spread(report.ratio),
        "gates": report.gates,
        **of_sites(report.sites),
    }


def of_activations(found: Activations) -> dict[str, Any]:
    """Means over the channels of each gate, in the order of the classes."""
    return {
        "classes": list(found.classes),
        "images": list(found.images),
        "gates": {
            gate: {
                "measured": found.measured[gate],
                "means": found.means(gate),
                "difference": found.difference(gate),
            }
            for gate in found.values
        },
        "unreached": list(found.unreached),
    }


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "latency": _spread(cost.latency),
        "peak_memory": cost.peak_memory,
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else spread._asdict()
