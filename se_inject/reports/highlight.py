"""A diff with its Python in colours, for a page."""

import html
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
    lines = iter(diff.removesuffix("\n").split("\n"))
    for line in lines:
        header = re.match(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@", line)
        yield Line("place" if header else "about", "", html.escape(line, quote=False))
        if header:
            old, new = (1 if number is None else int(number) for number in header.groups())
            yield from _coloured_hunk(list(_hunk(lines, old, new)))


def styles(selector: str, style: str) -> str:
    """The CSS of the colours below a selector.

    >>> ".diff .k {" in styles(".diff", "default")
    True
    """
    rules: str = HtmlFormatter(style=style, nobackground=True).get_style_defs(selector)
    return "\n".join(rule for rule in rules.splitlines() if re.match(rf"{re.escape(selector)} \.", rule))


def _hunk(lines: Iterator[str], old: int, new: int) -> Iterator[str]:
    """The lines of a hunk, of which as many are old and new as its header says."""
    while old > 0 or new > 0:
        line = next(lines, None)
        if line is None:
            return
        old -= line[:1] in (" ", "-")
        new -= line[:1] in (" ", "+")
        yield line


def _coloured_hunk(lines: list[str]) -> Iterator[Line]:
    """The lines of a hunk, each coloured as a part of the text that it belongs to: the old or the new."""
    old = iter(_coloured(line[1:] for line in lines if line[:1] in (" ", "-")))
    new = iter(_coloured(line[1:] for line in lines if line[:1] in (" ", "+")))
    for line in lines:
        mark = line[:1]
        if mark not in _KINDS:  # that the file has no newline at its end
            yield Line("about", "", html.escape(line, quote=False))
            continue
        text = next(old) if mark != "+" else ""
        yield Line(_KINDS[mark], mark, next(new) if mark != "-" else text)


def _coloured(lines: Iterator[str]) -> list[str]:
    text: str = highlight("".join(f"{line}\n" for line in lines), PythonLexer(stripnl=False), _FORMAT)
    return text.split("\n")


_FORMAT = HtmlFormatter(nowrap=True)
