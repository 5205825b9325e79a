"""Sites of a whole model with what surgery needs, and the candidates that are none."""

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from ..graphs.channels import Feature
from ..source.locations import where
from .findings import Finding
from .reasons import Refusal
from .site import Site, Skipped


@dataclass(frozen=True)
class Target:
    """A site with what surgery needs to gate it."""

    site: Site
    block_path: str  # of the module that was analysed
    block: nn.Module  # the module that changes: that one, or its child that makes the value
    finding: Finding

    @property
    def place(self) -> str:
        """The file and the line where its value is made, as far as they are known; the node, in a traced model."""
        place = where(self.site.file, self.site.line) if self.site.file else ""
        node = f"node {self.site.node}" if self.finding.in_graph else ""
        return ", ".join(filter(None, (node, place)))

    def with_channels(self, feature: Feature) -> "Target":
        """The same with channels that were measured."""
        site = self.site.with_channels(feature.channels)
        return replace(self, site=site, finding=self.finding.with_channels(feature))


class Skip(NamedTuple):
    """A candidate that is no site, and why; ``place`` is the file and the line."""

    path: str
    refusal: Refusal
    place: str = ""

    @property
    def told(self) -> Skipped:
        """What users get to see."""
        text = str(self.refusal)
        names_place = not self.place or re.search(r":\d+\)$", text)
        return Skipped(self.path, text if names_place else f"{text} ({self.place})")
