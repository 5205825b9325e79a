"""Tables for a terminal and for a notebook."""

import html
from collections.abc import Iterable, Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in plain text.

    >>> text_table(["block", "kind"], [["layer1.0", "residual"]])
    ['block     kind', '--------  --------', 'layer1.0  residual']
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a notebook; what stands in it is escaped.

    >>> html_table(["why"], [["a < b"]])
    '<table><thead><tr><th>why</th></tr></thead><tbody><tr><td>a &lt; b</td></tr></tbody></table>'
    """
    body = "".join(_row("td", row) for row in rows)
    return f"<table><thead>{_row('th', head)}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
