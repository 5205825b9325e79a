"""Models with weights and gates from files."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import se_inject

from ..errors import InvalidArgumentError, first_line
from ..gate.squeeze_excitation import Form
from .models import Named

_PLACES = ("kinds", "position")  # what weights do not tell of their gates


def with_weights(
    network: Named, weights: Path | None, gates: Path | None, options: dict[str, Any] | None = None
) -> nn.Module:
    """The model with the weights of one file, and with the gates of another, as far as they are given.

    Weights of a gated network give the model its gates, too. Where these are, the weights do not tell: it is taken from
    the options, if it is there. Raises ``InvalidArgumentError`` and the errors of
    ``load_gates``.
    """
    model = network.model
    if weights is not None:
        state = _read(weights)
        if state.keys() - model.state_dict().keys() and not list(se_inject.gates(model)):
            _make_gates(network, state, {name: options.pop(name) for name in _PLACES if options and name in options})
        _load(model, state, weights)
    if gates is not None:
        se_inject.load_gates(model, gates, example_inputs=network.example)
    return model


def with_gates(network: Named, weights: Path | None, gates: Path | None, options: dict[str, Any]) -> nn.Module:
    """The same, with new gates where the model has none then, as ``apply`` puts them in with these options."""
    options = dict(options)
    model = with_weights(network, weights, gates, options)
    if list(se_inject.gates(model)):
        if options:
            raise InvalidArgumentError(f"the model has gates already, so {', '.join(options)} would have no effect")
        return model
    return se_inject.apply(model, example_inputs=network.example, **options)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InvalidArgumentError(f"{path}: there is no such file")
    try:
        return safetensors.torch.load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise InvalidArgumentError(
            f"{path}: is no safetensors file ({first_line(error)}): save weights with"
            " safetensors.torch.save_file(model.state_dict(), path)"
        ) from error


def _make_gates(network: Named, state: dict[str, Tensor], places: dict[str, Any]) -> None:
    """Put gates of the form and the widths into a plain model that the weights of a gated one tell."""
    form: Form = "identity" if any(key.endswith(".identity_form") for key in state) else "standard"

    def width(site: se_inject.Site) -> int:
        weight = state.get(f"{site.gate_path}.fc1.weight", torch.empty(0))
        if not weight.ndim or not len(weight):
            return 16
        return site.channels if len(weight) == 8 else max(site.channels // len(weight), 1)  # 8 is the least width

    def has_weights(site: se_inject.Site) -> bool:
        return f"{site.gate_path}.fc1.weight" in state

    try:
        se_inject.apply(network.model, width, init=form, where=has_weights, example_inputs=network.example, **places)
    except se_inject.errors.NoSiteError:
        return  # the weights are of another network; loading them says which


def _load(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in [*own, *state]:
        if name not in state or name not in own:
            what = "is missing" if name in own else "is not in the model"
            raise InvalidArgumentError(f"{path}: its weights are of another network: {name} {what}")
        if own[name] != state[name].shape:
            shapes = f"{tuple(state[name].shape)}, and {tuple(own[name])} in the model"
            raise InvalidArgumentError(f"{path}: its weights are of another network: {name} is {shapes}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # a form that is not the gate's
        raise InvalidArgumentError(f"{path}: {str(error).splitlines()[-1].strip()}") from error
