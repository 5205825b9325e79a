"""Edits shown as a patch that a person can put into their own repository."""

import difflib
import html
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import nn

from .edits import Edit, by_method
from .locations import short
from .write_gates import edited_lines, text_for

_COLOURS = {"+": "#116329", "-": "#82071e", "@": "#0550ae"}


class Diff(str):
    """A unified diff; notebooks show it in colours.

    >>> Diff("-old")._repr_html_()
    '<pre><span style="color:#82071e">-old</span></pre>'
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        lines = []
        for line in self.splitlines():
            colour = _COLOURS.get(line[:1])
            text = html.escape(line)
            lines.append(f'<span style="color:{colour}">{text}</span>' if colour else text)
        return f"<pre>{chr(10).join(lines)}</pre>"


def patches(edits: Iterable[tuple[type[nn.Module], tuple[Edit, ...]]]) -> Iterator[str]:
    """A unified diff for each method of each class that is edited, once. Raises ``RewriteError``."""
    seen: set[tuple[str, tuple[Edit, ...]]] = set()
    for cls, of_class in edits:
        for (owner, method), of_method in by_method(of_class).items():
            text = text_for(owner or cls, method, of_method[0].digest)[1]
            if (text.filename, of_method) not in seen:
                seen.add((text.filename, of_method))
                yield _patch(
                    text.filename, text.lines, edited_lines(text, of_method), f"{(owner or cls).__qualname__}.{method}"
                )


def _patch(filename: str, before: tuple[str, ...], after: tuple[str, ...], name: str) -> str:
    path = short(filename).lstrip("/")
    file = Path(filename)
    if file.is_file() and not file.read_bytes().endswith((b"\n", b"\r")):  # linecache ends each line
        before, after = (*before[:-1], before[-1].rstrip("\n")), (*after[:-1], after[-1].rstrip("\n"))
    lines = difflib.unified_diff(before, after, f"a/{path}", f"b/{path}")
    return "".join(map(_whole, (f"{line.rstrip()} {name}\n" if line.startswith("@@") else line for line in lines)))


def _whole(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
