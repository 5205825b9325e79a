"""A report as one HTML page that needs no network, to send to a colleague."""

from pathlib import Path
from typing import Any

import torch

from ..errors import ArgumentTypeError, InvalidArgumentError
from ..files.atomic import write
from ..files.save import Path_, checked_path
from ..version import __version__
from .gate_values import Activations
from .table import Report
from .tree import tree

_TEMPLATE = Path(__file__).parent / "template"
_COLUMNS, _LINES = 10, 6  # classes in the table of gate values, and in each chart


def write_page(report: Report, path: Path_, *, activations: Activations | None = None) -> None:
    """Write a report as one HTML page: costs with a chart, blocks to fold and search, the diff, gate values by class.

    The page has no links to other files, shows dark colours where the reader's system does, and everything in it that
    comes from the model is escaped. ``activations`` are what ``se_inject.activations`` found. Needs jinja2 and
    pygments.

    Raises ``InvalidArgumentError`` where these are not installed or the file cannot be written, which then stays as it
    was, and ``ArgumentTypeError``.

    >>> import tempfile, torchvision
    >>> from .measure import report
    >>> with torch.device("meta"):
    ...     found = report(torchvision.models.resnet18(), torch.empty(1, 3, 64, 64))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page(found, Path(folder, "page.html"))
    ...     "layer4.1.se" in Path(folder, "page.html").read_text()
    True
    """
    file = checked_path(path)
    text = page(report, activations)
    try:
        write(file, text.encode(errors="replace"))  # a name of a file may have bytes that are no text
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be written: {error.strerror or error}") from error


def page(report: Report, activations: Activations | None = None) -> str:
    """The text of the page. Raises ``InvalidArgumentError`` and ``ArgumentTypeError``."""
    if not isinstance(report, Report):
        raise ArgumentTypeError(f"report must be what se_inject.report returned, got {type(report).__name__}")
    if not isinstance(activations, Activations | None):
        raise ArgumentTypeError(
            f"activations must be what se_inject.activations returned, got {type(activations).__name__}"
        )
    try:
        import jinja2
        from markupsafe import Markup

        from .highlight import highlighted, styles
    except ImportError as error:
        raise InvalidArgumentError("pages need jinja2 and pygments: pip install 'se-inject[cli]'") from error
    from .charts import added_chart

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        report=report,
        versions=f"se_inject {__version__}, torch {torch.__version__}",
        chart=Markup(added_chart(report)),
        tree=tree(report),
        diff=[line._replace(html=Markup(line.html)) for line in highlighted(report.diff)],
        light=Markup(styles(".diff", "vs")),
        dark=Markup(styles(".diff", "github-dark")),
        values=None if activations is None else _values(activations),
    )


def _values(found: Activations) -> dict[str, Any]:
    """What the template shows of gate values."""
    from markupsafe import Markup

    from .charts import values_chart

    columns, lines = found.largest(_COLUMNS), found.largest(_LINES)
    rows = []
    for gate, values in found.values.items():
        means = found.means(gate)
        cells = [float(values.nanmean()), *(means[index] for index in columns)]
        rows.append((gate, found.measured[gate], found.difference(gate), cells))
    known = [cell for *_, cells in rows for cell in cells if cell == cell]
    return {
        "about": found.about(),
        "classes": [found.classes[index] for index in columns],
        "hidden": len(found.classes) - len(columns),
        "rows": rows,
        "low": min(known, default=0.0),
        "span": max(max(known, default=1.0) - min(known, default=0.0), 1e-6),
        "lines": [found.classes[index] for index in lines],
        "charts": [(gate, Markup(values_chart(found, gate, lines))) for gate in found.values],
    }
