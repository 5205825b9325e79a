"""Mean values of gates by class, as a table and as a picture."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from ..sites.tables import html_table, text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measured = Literal["gate value", "output / input"]
_SHOWN = 6  # classes in the printed table


@dataclass(frozen=True, repr=False, eq=False)
class Activations:
    """The mean values of gates by class; prints as a table, and draws them with ``plot()``.

    ``values`` has ``(classes, channels)`` for each gate by its path, ``classes`` the names of the classes that were
    seen, ``images`` how many images each has. ``measured`` tells what a gate's value is: that of its formula, or what
    it multiplies a channel by, as its output and its input tell. ``unreached`` are gates that were not called.
    """

    classes: tuple[str, ...]
    images: tuple[int, ...]
    values: dict[str, Tensor]
    measured: dict[str, Measured]
    unreached: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n".join([*text_table(*self._table()), self.about()])

    def _repr_html_(self) -> str:
        head, rows = self._table()
        return f"{html_table(head, rows)}<p>{html.escape(self.about())}</p>"

    def means(self, gate: str) -> list[float]:
        """The mean over the channels of a gate, for each class.

        >>> import torch
        >>> Activations(("cat",), (1,), {"se": torch.tensor([[0.5, 1.5]])}, {"se": "gate value"}).means("se")
        [1.0]
        """
        return [float(mean) for mean in self.values[gate].nanmean(1)]

    def difference(self, gate: str) -> float:
        """How far classes are apart: their standard deviation, averaged over the channels of a gate.

        >>> import torch
        >>> values = {"se": torch.tensor([[0.5, 1.0], [1.5, 1.0]])}
        >>> Activations(("cat", "dog"), (1, 1), values, {"se": "gate value"}).difference("se")
        0.25
        """
        values = self.values[gate]
        return float((values - values.nanmean(0)).square().nanmean(0).sqrt().nanmean())

    def largest(self, count: int) -> list[int]:
        """The indices of the classes with the most images, in the order of the classes.

        >>> Activations(("cat", "dog", "owl"), (1, 3, 2), {}, {}).largest(2)
        [1, 2]
        """
        return sorted(sorted(range(len(self.classes)), key=lambda index: -self.images[index])[:count])

    def plot(self, classes: Sequence[str] | None = None, panels: int = 6) -> "Figure":
        """Draw gate values by channel, a line a class, in up to ``panels`` gates from the first to the last.

        ``classes`` are the names of those to draw, by default the four with the most images. Needs matplotlib.

        Raises ``InvalidArgumentError`` for a class that was not seen, for no panels, and where matplotlib is not
        installed.
        """
        from .plot import draw

        return draw(self, classes, panels)

    def _table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        shown = self.largest(_SHOWN)
        head = ("gate", "measured", "mean", "classes differ by", *(self.classes[index] for index in shown))
        rows = []
        for gate, values in self.values.items():
            means = self.means(gate)
            numbers = (float(values.nanmean()), self.difference(gate), *(means[index] for index in shown))
            rows.append((gate, self.measured[gate], *(f"{number:.4f}" for number in numbers)))
        return head, rows

    def about(self) -> str:
        """A line on what was seen."""
        number, images = len(self.classes), sum(self.images)
        text = f"{number} class{'es' * (number != 1)}, {images} image{'s' * (images != 1)}"
        return f"{text}; not called: {', '.join(self.unreached)}" if self.unreached else text
