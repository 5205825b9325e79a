"""A few cases under one seed."""

import traceback
from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from .check import check
from .grammar import cases

CHUNK = 50  # cases under one seed of hypothesis; a chunk ends at its first broken promise, which is then shrunk
SHRINKS = 200  # attempts at shrinking; hypothesis would go on for minutes


def run_chunk(seed, size=CHUNK):
    """Counts, and the smallest broken case with its traceback, if there is one."""
    counts, broken, attempts = Counter(), {}, 0

    @seeded(seed)
    @settings(
        max_examples=size,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def every_case(source):
        nonlocal attempts
        attempts += bool(broken)
        if attempts > SHRINKS and source not in broken:
            return
        try:
            result = check(source)
        except Exception:
            broken[source] = traceback.format_exc(limit=-4)
            raise
        if not broken:  # not while shrinking
            counts.update(result)

    try:
        every_case()
    except Exception:
        counts["BROKEN"] += 1
        return counts, (seed, *min(broken.items(), key=lambda case: len(case[0])))
    return counts, None
