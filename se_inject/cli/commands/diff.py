"""``se-inject diff``."""

import sys
from typing import Any

from rich.syntax import Syntax

import se_inject

from ..answer import answering, working
from ..models import named
from ..options import At, Input, Json, Kinds, Model, Where, example, given


def diff(
    model: Model,
    kind: Kinds = None,
    where: Where = None,
    position: At = None,
    shape: Input = None,
    as_json: Json = False,
) -> None:
    """Show what gates change in the source, as a patch.

    \b
    Examples:
      se-inject diff torchvision/resnet50
      se-inject diff timm/resnet18 --where 'layer4.*' > gates.patch
    """  # noqa: D301
    on_terminal = sys.stdout.isatty()
    with answering(as_json) as answer:
        network = named(model)
        with working("finding sites"):
            options = given(kinds=kind, where=where, position=position)
            patch = se_inject.diff(network.model, example_inputs=example(network, shape), **options)
        text: Any = Syntax(patch, "diff", background_color="default") if on_terminal else patch.removesuffix("\n")
        answer({"model": model, "diff": patch}, text)
