"""The arguments and options that commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..gate.squeeze_excitation import Form as GateForm
from ..sites.selection import KINDS
from ..sites.site import Position
from .models import Named

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="torchvision/NAME, timm/NAME, or package.module:function, which returns a model, or a model with its"
        " example inputs",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else on standard output.")]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="SHAPE", help="Shape of an example input, such as 1,3,224,224; one for each."),
]


def _check_kinds(kinds: list[str] | None) -> list[str] | None:
    for kind in kinds or ():
        if kind not in KINDS:
            raise typer.BadParameter(f"{kind!r} is not one of {', '.join(KINDS)}")
    return kinds


Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        callback=_check_kinds,
        help=f"Kind of sites, once for each: {', '.join(KINDS)} (default: the first two).",
    ),
]
Where = Annotated[
    list[str] | None, typer.Option("--where", metavar="PATTERN", help="Pattern of block paths, such as 'layer[34].*'.")
]
At = Annotated[Position | None, typer.Option("--position", help="Place of gates in residual blocks.")]
Reduction = Annotated[int | None, typer.Option("--reduction", min=1, help="Reduction of new gates (default: 16).")]


Form = Annotated[GateForm | None, typer.Option("--init", help="Form of new gates (default: identity).")]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Weights of the model, with gates or without: safetensors.",
        show_default=False,
    ),
]
Gates = Annotated[
    Path | None,
    typer.Option("--gates", metavar="FILE", help="Gates that save_gates or se-inject apply wrote.", show_default=False),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write.", show_default=False)]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given.

    >>> given(where=["layer4.*"], kinds=[], position=None)
    {'where': ['layer4.*']}
    """
    return {name: value for name, value in options.items() if value not in (None, [])}


def example(network: Named, shapes: Sequence[str] | None) -> Any:
    """Inputs for what the code does not tell: those that were asked for, or those that the model came with."""
    return network.inputs(shapes) if shapes else network.example
