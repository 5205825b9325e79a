"""A short run of the fuzz in ``tests/fuzz``; ``python -m tests.fuzz 10000`` is the long one."""

from .chunk import run_chunk

CASES = 80


def test_fuzz():
    counts, broken = run_chunk(seed=0, size=CASES)
    assert not broken, "\n".join(map(str, broken))
    number = {kind: sum(n for name, n in counts.items() if name.startswith(kind)) for kind in ("invalid", "refused")}
    assert counts["identity"] > CASES / 4 and number["refused"] > CASES / 10, counts
    assert counts["gates that learn"] > 5 * counts["gates without influence on the output"], counts
    assert number["invalid"] < CASES / 10 and len([name for name in counts if name.startswith("skipped")]) > 5, counts
