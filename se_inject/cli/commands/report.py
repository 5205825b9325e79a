"""``se-inject report``."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

import se_inject

from ...errors import InvalidArgumentError, first_line
from ...reports.gate_values import Activations
from ..answer import answering, check_writable
from ..as_json import of_activations, of_report
from ..images import labelled
from ..models import Named, named
from ..options import At, Gates, Input, Json, Kinds, Model, Reduction, Weights, Where, given
from ..weights import with_weights

Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page to send to a colleague.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--activations",
        metavar="DATA",
        help="Average gate values by class: of a folder with a folder of images for each class, or of what"
        " package.module:function returns, batches of (images, labels), or these with the classes' names.",
    ),
]
Rounds = Annotated[int, typer.Option("--rounds", min=2, help="How often each network runs.")]
Device = Annotated[str, typer.Option("--device", help="Where to measure: cpu, cuda, or meta to count alone.")]


def report(
    model: Model,
    html: Html = None,
    activations: Data = None,
    shape: Input = None,
    rounds: Rounds = 20,
    device: Device = "cpu",
    weights: Weights = None,
    gates: Gates = None,
    reduction: Reduction = None,
    kind: Kinds = None,
    where: Where = None,
    position: At = None,
    as_json: Json = False,
) -> None:
    """Measure what gates cost, with gates and without.

    Parameters, multiply-adds, latency and peak memory. A model that has gates already is measured beside a copy without
    them.

    \b
    Examples:
      se-inject report torchvision/resnet50
      se-inject report timm/resnet18 --input 8,3,224,224 --rounds 50 --json
      se-inject report mypackage.networks:trained --html page.html --activations images/val
      se-inject report torchvision/resnet50 --weights plain.safetensors --gates gates.safetensors --html page.html
    """  # noqa: D301
    with answering(as_json) as answer:
        if html is not None:
            check_writable(html)
        network = named(model)
        options = given(reduction=reduction, kinds=kind, where=where, position=position)
        with_weights(network, weights, gates, options)
        inputs = _moved(network, network.inputs(shape or ()), device)
        values = None if activations is None else _values(network, activations, inputs)
        # Without a spinner, whose thread would disturb the times.
        measured = se_inject.report(network.model, inputs, rounds=rounds, **options)
        data, text = {"model": model, **of_report(measured)}, repr(measured)
        if values is not None:
            data["activations"] = of_activations(values)
            text += f"\n\n{values!r}"
        if html is not None:
            se_inject.write_page(measured, html, activations=values)
            data["html"] = str(html)
            text += f"\n\nwrote {html}"
        answer(data, text)


def _moved(network: Named, inputs: Any, device: str) -> Any:
    """The inputs on a device, to which the model is moved, too."""
    try:
        network.model.to(device)
        return tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, inputs)
    except (RuntimeError, AssertionError) as error:  # torch without that device asserts
        raise InvalidArgumentError(f"--device {device}: {first_line(error)}") from error


def _values(network: Named, data: str, inputs: Any) -> Activations:
    first = next((leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)), torch.empty(network.image))
    batches, classes = labelled(data, network.model, tuple(first.shape[-2:]))
    return se_inject.activations(network.model, batches, classes=classes)
