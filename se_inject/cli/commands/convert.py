"""``se-inject convert``."""

from typing import Annotated

import safetensors.torch
import typer

import se_inject

from ...files.atomic import write
from ...gate.squeeze_excitation import Form
from ..answer import answering, check_writable, working
from ..models import named
from ..options import Gates, Json, Model, Output, Weights
from ..weights import with_weights

To = Annotated[Form, typer.Option("--to", help="The form that all gates shall have.", show_default=False)]


def convert(
    model: Model,
    to: To,
    output: Output,
    weights: Weights = None,
    gates: Gates = None,
    as_json: Json = False,
) -> None:
    """Change the form of gates, with outputs equal to the bit.

    The layers before the gates change, too: it is the weights of the whole model that are written, as safetensors.

    \b
    Examples:
      se-inject convert torchvision/resnet50 --weights gated.safetensors --to standard -o standard.safetensors
      se-inject convert networks:gated --to standard -o standard.safetensors
    """  # noqa: D301
    with answering(as_json) as answer:
        check_writable(output)
        network = named(model)
        with working("converting"):
            gated = se_inject.convert(with_weights(network, weights, gates), to)
            state = {name: tensor.detach().clone().contiguous() for name, tensor in gated.state_dict().items()}
        write(output, safetensors.torch.save(state))
        answer({"model": model, "form": to, "output": str(output)}, f"wrote {output}")
