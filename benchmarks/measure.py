"""Ratios of times whose arms alternate in one run, and the page that they are written to."""

import platform
import statistics
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tabulate import tabulate
from tqdm import tqdm

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
Arms = Mapping[str, Callable[[], object]]


def processor_and_wall_time(run: Callable[[], object]) -> tuple[float, ...]:
    """In seconds; of processor time first, as others may use the machine."""
    start = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def time_on_gpu(run: Callable[[], object]) -> tuple[float, ...]:
    """Wall time in seconds, until the GPU is done."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start,)


def ratios(
    arms: Arms, rounds: int, what: str, timer: Callable[..., tuple[float, ...]] = processor_and_wall_time
) -> dict[str, str]:
    """Each arm's time as a ratio to the first one's: the median of pairs, with quartiles, and those of further times.

    The order turns from round to round.
    """
    for run in arms.values():
        run()
        run()
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in arms}
    for index in tqdm(range(rounds), desc=what, leave=False):
        for name in list(arms)[:: 1 if index % 2 else -1]:
            times[name].append(timer(arms[name]))
    first, *others = arms
    base = statistics.median(time[-1] for time in times[first]) * 1e3
    found = {first: f"{base:.0f} ms" if base >= 10 else f"{base:.2f} ms"}
    for name in others:
        pairs = zip(times[name], times[first], strict=True)
        paired = [[own / of_first for own, of_first in zip(*pair, strict=True)] for pair in pairs]
        ratio, *further = zip(*paired, strict=True)
        low, middle, high = statistics.quantiles(ratio, n=4)
        medians = (f"{statistics.median(each):.3f}" for each in further)
        found[name] = ", ".join([f"{middle:.3f} ({low:.3f}-{high:.3f})", *medians])
    return found


def write(section: str, text: str, rows: list[dict[str, str]], machine: str | None = None) -> None:
    """Put a table into its section of the page, and print it; the machine is named by its processor if not given."""
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    machine = f"torch {torch.__version__.partition('+')[0]}, {machine or _processor()}."
    text, machine = (textwrap.fill(line, 120, break_on_hyphens=False) for line in (text, machine))
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
