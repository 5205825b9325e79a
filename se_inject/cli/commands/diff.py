"""``se-inject diff``."""

import sys

from rich.text import Text

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
        answer({"model": model, "diff": patch}, _coloured(patch) if on_terminal else patch.removesuffix("\n"))


def _coloured(patch: str) -> Text:
    """In the terminal's own colours, which suit its background."""
    colours = {"+": "green", "-": "red", "@": "cyan"}
    return Text("\n").join(Text(line, style=colours.get(line[:1], "")) for line in patch.splitlines())
