"""A diff with its Python in colours, for a page."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

_KINDS = {"+": "added", "-": "removed", " ": "context"}


class Line(NamedTuple):
    """A line of a diff: what it is, its mark, and its text as HTML."""

    kind: str
    mark: str
    html: str


def highlighted(diff: str) -> Iterator[Line]:
    r"""The lines of a diff.

    >>> list(highlighted("@@ -1 +1 @@ f\n-x = a\n"))[1]
    Line(kind='removed', mark='-', html='<span class="n">x</span> <span class="o">=</span> <span class="n">a</span>')
    """
    hunk: list[str] = []
    for line in diff.splitlines():
        if hunk and line[:1] in _KINDS and not line.startswith(("+++ ", "--- ")):
            hunk.append(line)
            continue
        yield from _hunk(hunk[1:])
        hunk = [line] if line.startswith("@@") else []
        yield Line("place" if hunk else "about", "", _escaped(line))
    yield from _hunk(hunk[1:])


def styles(selector: str, style: str) -> str:
    """The CSS of the colours below a selector.

    >>> ".diff .k {" in styles(".diff", "default")
    True
    """
    rules: str = HtmlFormatter(style=style, nobackground=True).get_style_defs(selector)
    return "\n".join(rule for rule in rules.splitlines() if re.match(rf"{re.escape(selector)} \.", rule))


def _hunk(lines: list[str]) -> Iterator[Line]:
    """The lines of a hunk, each coloured as a part of the text that it belongs to: the old or the new."""
    old = iter(_coloured(line[1:] for line in lines if line[:1] != "+"))
    new = iter(_coloured(line[1:] for line in lines if line[:1] != "-"))
    for line in lines:
        mark = line[:1]
        if mark == " ":
            next(old)
        yield Line(_KINDS[mark], mark, next(old if mark == "-" else new))


def _coloured(lines: Iterator[str]) -> list[str]:
    text: str = highlight("\n".join(lines), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    return text.removesuffix("\n").split("\n")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
