"""The blocks of a report as a tree, as a page folds them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..sites.qualified_names import with_parents
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
    """The blocks below a path, and the stages among them, in the model's order."""

    path: str
    items: list["Block | Stage"] = field(default_factory=list)

    @property
    def blocks(self) -> list[Block]:
        """The blocks at any depth."""
        return [b for item in self.items for b in (item.blocks if isinstance(item, Stage) else [item])]

    @property
    def gated(self) -> int:
        """How many of them are gated."""
        return sum(not block.reason for block in self.blocks)


def tree(report: Report) -> Stage:
    """All blocks of a report, in stages: the modules that they are in."""
    root = Stage("")
    stages = {"": root}
    order = {path: number for number, path in enumerate(report.classes)}
    for block in sorted(_blocks(report), key=lambda block: order.get(block.path, len(order))):
        stage = root
        for path in reversed(list(with_parents(block.path.rpartition(".")[0]))):
            if path not in stages:
                stages[path] = Stage(path)
                stage.items.append(stages[path])
            stage = stages[path]
        stage.items.append(block)
    return _compressed(root)


def _compressed(stage: Stage) -> Stage:
    """The same without stages that hold nothing but one other stage."""
    items = [_compressed(item) if isinstance(item, Stage) else item for item in stage.items]
    return Stage(stage.path, [_only_stage(item) or item for item in items])


def _only_stage(item: Block | Stage) -> Stage | None:
    if isinstance(item, Stage) and len(item.items) == 1 and isinstance(item.items[0], Stage):
        return item.items[0]
    return None


def _blocks(report: Report) -> Iterator[Block]:
    for site in report.sites:
        place = where(site.file, site.line) if site.file else ""
        cls, gate = report.classes.get(site.path, ""), report.gates.get(site.gate_path, "")
        yield Block(site.path, cls, site.kind, site.channels, site.gate_path, gate, place)
    for path, reason in report.sites.skipped:
        yield Block(path, report.classes.get(path, ""), reason=reason)
