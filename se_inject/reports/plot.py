"""The paper's picture of gate values, drawn with matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .gate_values import Activations


def draw(found: "Activations", classes: Sequence[str] | None, panels: int) -> "Figure":
    """Gate values by channel, a line a class and a dashed one for the mean of all, in gates from first to last.

    Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 7.2, figure 6. Raises ``InvalidArgumentError``.
    """
    try:
        from matplotlib.figure import Figure  # an extra
    except ImportError as error:
        raise InvalidArgumentError("plots need matplotlib: pip install 'se-inject[plot]'") from error
    if panels < 1:
        raise InvalidArgumentError(f"panels must be >= 1, got {panels}")
    picked = _picked(found, classes)
    paths = spaced(list(found.values), panels)
    columns = min(3, len(paths))
    rows = -(-len(paths) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    for number, path in enumerate(paths, 1):
        values = found.values[path]
        axes = figure.add_subplot(rows, columns, number, title=path, xlabel="channel", ylabel=found.measured[path])
        for index in picked:
            axes.plot(values[index].numpy(), linewidth=1, label=found.classes[index])
        axes.plot(values.nanmean(0).numpy(), "k--", linewidth=1, label="mean of all classes")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(picked) + 1)
    return figure


def spaced(items: list[str], count: int) -> list[str]:
    """Up to ``count`` items, evenly spaced, the first and the last among them.

    >>> spaced(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    count = min(count, len(items))
    return [items[round(index * (len(items) - 1) / max(count - 1, 1))] for index in range(count)]


def _picked(found: "Activations", classes: Sequence[str] | None) -> list[int]:
    if classes is None:
        return found.largest(4)
    for name in classes:
        if name not in found.classes:
            raise InvalidArgumentError(f"classes: {name!r} was not seen; these were: {', '.join(found.classes)[:200]}")
    return [found.classes.index(name) for name in classes]
