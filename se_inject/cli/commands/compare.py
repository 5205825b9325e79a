"""``se-inject compare``."""

from pathlib import Path
from typing import Annotated

import typer

import se_inject

from ..answer import answering, working
from ..models import named
from ..options import Input, Json

Either = Annotated[str, typer.Argument(metavar="FILE|MODEL", show_default=False)]


def compare(a: Either, b: Either, shape: Input = None, as_json: Json = False) -> None:
    """Say how two files of gates differ, or two models.

    The exit code is 0 where they differ, too. Models are built as their names say, without weights of a file; outputs
    are compared where example inputs are known.

    \b
    Examples:
      se-inject compare before.safetensors after.safetensors
      se-inject compare torchvision/resnet50 timm/resnet50
      se-inject compare networks:plain networks:gated --input 1,3,224,224
    """  # noqa: D301
    files = [Path(name).exists() or name.endswith(".safetensors") for name in (a, b)]
    if files[0] != files[1]:
        raise typer.BadParameter("give two files of gates, or two models", param_hint="FILE|MODEL")
    if shape and all(files):
        raise typer.BadParameter("files of gates take no inputs", param_hint="--input")
    with answering(as_json) as answer, working("comparing"):
        if all(files):
            found = se_inject.compare(a, b)
        else:
            first, second = named(a), named(b)
            inputs = first.inputs(shape) if shape else first.example
            found = se_inject.compare(first.model, second.model, example_inputs=inputs)
        data = {
            "a": a,
            "b": b,
            "equal": found.equal,
            "differences": [difference._asdict() for difference in found.differences],
            "values": found.values,
        }
        answer(data, repr(found))
