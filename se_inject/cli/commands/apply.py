"""``se-inject apply``."""

import se_inject

from ..answer import answering, working
from ..models import named
from ..options import At, Form, Input, Json, Kinds, Model, Output, Reduction, Weights, Where, example, given
from ..weights import with_gates


def apply(
    model: Model,
    output: Output,
    weights: Weights = None,
    reduction: Reduction = None,
    init: Form = None,
    kind: Kinds = None,
    where: Where = None,
    position: At = None,
    shape: Input = None,
    as_json: Json = False,
) -> None:
    """Give a model gates, and write these to a file.

    The file has the gates alone, not the model; a path without a suffix is a folder for a hub. Where the weights are
    those of a gated model, it is their gates that are written.

    \b
    Examples:
      se-inject apply torchvision/resnet50 -o gates.safetensors
      se-inject apply timm/resnet18 --weights trained.safetensors -o gates.safetensors
    """  # noqa: D301
    with answering(as_json) as answer:
        network = named(model)
        network = network._replace(example=example(network, shape))
        with working("applying gates"):
            options = given(reduction=reduction, init=init, kinds=kind, where=where, position=position)
            gated = with_gates(network, weights, None, options)
        se_inject.save_gates(gated, output, base=model)
        gates = [name for name, _ in se_inject.gates(gated)]
        answer({"model": model, "gates": gates, "output": str(output)}, f"wrote {len(gates)} gates to {output}")
