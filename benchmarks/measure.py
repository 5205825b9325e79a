"""Ratios of processor times whose arms alternate in one run, and the page that they are written to."""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate
from tqdm import tqdm

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
Arms = dict[str, Callable[[], object]]


def ratios(arms: Arms, rounds: int, what: str) -> dict[str, str]:
    """Each arm's time as a ratio to the first one's: the median of pairs, with quartiles, and that of wall times.

    Of processor time first, as others may use the machine. The order turns from round to round.
    """
    for run in arms.values():
        run()
        run()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for index in tqdm(range(rounds), desc=what, leave=False):
        for name in list(arms)[:: 1 if index % 2 else -1]:
            start = time.process_time(), time.perf_counter()
            arms[name]()
            times[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    first, *others = arms
    found = {first: f"{statistics.median(wall for _, wall in times[first]) * 1e3:.0f} ms"}
    for name in others:
        pairs = list(zip(times[name], times[first], strict=True))
        low, middle, high = statistics.quantiles((own[0] / base[0] for own, base in pairs), n=4)
        wall = statistics.median(own[1] / base[1] for own, base in pairs)
        found[name] = f"{middle:.3f} ({low:.3f}-{high:.3f}), {wall:.3f}"
    return found


def write(section: str, text: str, rows: list[dict[str, str]]) -> None:
    """Put a table into its section of the page, and print it."""
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    machine = f"torch {torch.__version__.partition('+')[0]}, {_processor()}."
    body = f"\n{text}\n\n{machine}\n\n{table}\n\n"
    before, marker, rest = PAGE.read_text().partition(f"## {section}\n")
    if not marker:
        raise ValueError(f"{PAGE} has no section {section!r}")
    _, next_marker, after = rest.partition("## ")
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text((before + marker + body + next_marker + after).rstrip() + "\n")
    temporary.replace(PAGE)
    print(table)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
