"""What finding tells: the sites of a model, and the candidates that are none."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args, overload

from ..errors import InvalidArgumentError
from .tables import html_table, text_table

Kind = Literal["residual", "inception", "plain", "dense", "noskip"]
PAPERS_KINDS: tuple[Kind, ...] = ("residual", "inception")
Position = Literal["standard", "pre", "post", "identity"]


def check_position(position: object) -> None:
    """Raise unless ``position`` names one of the paper's places.

    >>> check_position("standard")
    """
    if position not in get_args(Position):
        names = ", ".join(map(repr, get_args(Position)))
        raise InvalidArgumentError(f"position must be one of {names}, got {position!r}")


class _Names(NamedTuple):
    path: str
    kind: Kind
    node: str
    channels: int
    gate_path: str


class Site(_Names):
    """One value in a block's forward that gets a gate.

    ``path`` is the block's qualified name ("" for the model itself), ``node`` the value's name in the block's graph,
    ``channels`` its C in ``(N, C, *)``, ``gate_path`` the qualified name that the gate has or will have. ``file`` and
    ``line`` tell where the value is made (empty and 0 in a traced model, which has no text); they are no items of the
    tuple, as they do not tell sites apart.

    >>> Site("layer1.0", "residual", "bn3", 256, "layer1.0.se").channels
    256
    """

    file: str
    line: int

    def __new__(
        cls, path: str, kind: Kind, node: str, channels: int, gate_path: str, file: str = "", line: int = 0
    ) -> "Site":
        """The place is told by name."""
        site = super().__new__(cls, path, kind, node, channels, gate_path)
        site.file, site.line = file, line
        return site

    def with_channels(self, channels: int) -> "Site":
        """The same site with channels that became known.

        >>> Site("", "residual", "conv", 0, "se").with_channels(16).channels
        16
        """
        return Site(self.path, self.kind, self.node, channels, self.gate_path, self.file, self.line)


class Skipped(NamedTuple):
    """A candidate that is not a site, and why, with the file and the line.

    >>> Skipped("layer1.0", "already gated").reason
    'already gated'
    """

    path: str
    reason: str


class Sites(Sequence[Site]):
    """The sites of a model in the order of its modules, read-only; ``skipped`` holds the other candidates.

    Prints as a table, in a notebook too.

    >>> len(Sites([], []))
    0
    """

    def __init__(self, sites: Iterable[Site], skipped: Iterable[Skipped]) -> None:
        self._sites = tuple(sites)
        self.skipped = tuple(skipped)

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Site, ...]: ...
    def __getitem__(self, index: int | slice) -> Site | tuple[Site, ...]:
        return self._sites[index]

    def __len__(self) -> int:
        return len(self._sites)

    def __repr__(self) -> str:
        lines = [*text_table(_HEAD, self._rows()), self._total()]
        if self.skipped:
            lines += ["", *text_table(_HEAD_OF_SKIPPED, self._skipped_rows())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [html_table(_HEAD, self._rows()), f"<p>{self._total()}</p>"]
        if self.skipped:
            parts.append(html_table(_HEAD_OF_SKIPPED, self._skipped_rows()))
        return "".join(parts)

    def _rows(self) -> list[tuple[str, ...]]:
        return [(site.path or "(model)", site.kind, str(site.channels), site.gate_path) for site in self._sites]

    def _skipped_rows(self) -> list[tuple[str, ...]]:
        return [(path or "(model)", reason) for path, reason in self.skipped]

    def _total(self) -> str:
        return f"{len(self)} site{'s' * (len(self) != 1)}"


_HEAD = ("block", "kind", "channels", "gate")
_HEAD_OF_SKIPPED = ("skipped", "why")
