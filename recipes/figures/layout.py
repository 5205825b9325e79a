"""What the figures share: panels in a grid, a legend below them, and names in fonts that have their characters."""

import functools
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

_WRAP = 45  # characters, of a name in a legend
_HANDLE, _GAP = 0.65, 0.07  # inches, of what is beside a name in a legend, and above it


def panels(count: int, xlabel: str, ylabel: str, share: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, three in a row; with ``share``, of one vertical axis.

    >>> [axes.get_xlabel() for axes in panels(2, "epoch", "error")[1]]
    ['epoch', 'epoch']
    """
    columns = min(3, count)
    rows = -(-count // columns)
    width, height = (7, 4) if count == 1 else (4.6 * columns, 3.4 * rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    made: list[Axes] = []
    for i in range(count):
        first = made[0] if share and made else None
        made.append(figure.add_subplot(rows, columns, i + 1, xlabel=xlabel, ylabel=ylabel, sharey=first))
        made[-1].grid(alpha=0.3)
    return figure, made


def write(artist: Text, words: str, width: int) -> None:
    r"""Make ``words`` the text of ``artist``, without mathematics, in lines of ``width`` characters.

    >>> text = Text()
    >>> write(text, "$5 for a very long name", 12)
    >>> text.get_text()
    '$5 for a\nvery long\nname'
    """
    lines = _lines(words, width)
    families = {family for line in lines for character in line if (family := _family(character))}
    artist.set_parse_math(False)
    artist.set_fontfamily([*artist.get_fontfamily(), *sorted(families)])
    artist.set_text("\n".join(lines))


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Add a legend below the panels, in as many columns as fit; the figure grows by its height."""
    sizes = [_size(figure, name) for name in names]
    columns = int(figure.get_figwidth() / (_HANDLE + max(width for width, _ in sizes)))
    columns = max(1, min(columns, len(names)))
    highest = max(sum(column) for column in np.array_split([height + _GAP for _, height in sizes], columns))
    figure.set_figheight(figure.get_figheight() + highest + 4 * _GAP)
    made = figure.legend(handles, [""] * len(names), loc="outside lower center", ncols=columns)
    for text, name in zip(made.get_texts(), names, strict=True):
        write(text, name, _WRAP)


def _size(figure: Figure, name: str) -> tuple[float, float]:
    """The width and height in inches of a name in a legend."""
    text = figure.text(0, 0, "")
    write(text, name, _WRAP)
    box = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    text.remove()
    return box.width / figure.dpi, box.height / figure.dpi


def _lines(words: str, width: int) -> list[str]:
    """Words as lines, at most three; a character that no font has is written as its code."""
    legible = "".join(c if _family(c) is not None else c.encode("unicode_escape").decode() for c in words)
    if len(legible) > 3 * width:
        legible = f"{legible[: width - 2]} ... {legible[2 - width :]}"
    return textwrap.wrap(legible, width) or ["''"]


@functools.cache
def _family(character: str) -> str | None:
    """The family of a font that can draw a character: "" for the default one, ``None`` if there is none."""
    is_joiner = unicodedata.category(character) == "Cf"  # and shapes the characters around it
    if not character.isprintable() and not is_joiner:
        return None
    default = font_manager.findfont(font_manager.FontProperties())
    for family, path in ({"": default} | _families()).items():
        try:
            font = font_manager.get_font(path)
            font.set_size(10, 100)
            if font.get_char_index(ord(character)):
                font.load_char(ord(character))
                return family
        except RuntimeError:  # a font of pixels, not outlines, or none that matplotlib reads
            continue
    return None


def _families() -> dict[str, str]:
    """The files of installed fonts in their upright, regular form, those without serifs first."""
    fonts = font_manager.fontManager.ttflist
    regular = {f.name: f.fname for f in fonts if f.style == f.variant == f.stretch == "normal" and f.weight == 400}
    names = sorted(regular, key=lambda name: ("Sans" not in name, name))
    return {name: regular[name] for name in names if "Last Resort" not in name}  # which has boxes for all there is
