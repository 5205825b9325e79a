"""The blocks of a report as a tree, as a page folds them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..source.locations import where
from .table import Report


class Block(NamedTuple):
    """A site, or a candidate that is none, with the ``reason``."""

    path: str
    cls: str
    kind: str = ""
    channels: int = 0
    gate_path: str = ""
    gate: str = ""
    place: str = ""
    reason: str = ""


@dataclass
class Stage:
    """The blocks at and below a path."""

    path: str
    blocks: list[Block] = field(default_factory=list)
    stages: dict[str, "Stage"] = field(default_factory=dict)

    @property
    def all_blocks(self) -> list[Block]:
        """The blocks at and below the path."""
        return self.blocks + [block for stage in self.stages.values() for block in stage.all_blocks]

    @property
    def gated(self) -> int:
        """How many of them are gated."""
        return sum(not block.reason for block in self.all_blocks)


def tree(report: Report) -> Stage:
    """All blocks of a report, in stages; a stage holds the blocks of one parent."""
    root = Stage("")
    for block in _blocks(report):
        stage, names = root, block.path.split(".")
        for depth in range(1, len(names)):
            path = ".".join(names[:depth])
            stage = stage.stages.setdefault(path, Stage(path))
        stage.blocks.append(block)
    return _compressed(root)


def _compressed(stage: Stage) -> Stage:
    """The same without stages that hold nothing but one other stage."""
    stages = [_compressed(below) for below in stage.stages.values()]
    stages = [next(iter(s.stages.values())) if len(s.stages) == 1 and not s.blocks else s for s in stages]
    return Stage(stage.path, stage.blocks, {below.path: below for below in stages})


def _blocks(report: Report) -> Iterator[Block]:
    for site in report.sites:
        place = where(site.file, site.line) if site.file else ""
        cls, gate = report.classes.get(site.path, ""), report.gates.get(site.gate_path, "")
        yield Block(site.path, cls, site.kind, site.channels, site.gate_path, gate, place)
    for path, reason in report.sites.skipped:
        yield Block(path, report.classes.get(path, ""), reason=reason)
