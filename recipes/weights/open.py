"""A network with trained weights: of a file of ours, or of anyone's file, plain or with gates, as the file has it."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import nn

from se_inject.errors import NoSiteError

from ..data.datasets import Data
from ..errors import CheckpointError, SettingsError
from ..networks.any_model import Model
from .described import Description, check_origin, describe, load_model
from .load import load_weights, read_weights
from .names import renamed, todays_names


def open_network(path: Path, data: Data, name: str | None = None, plain: bool = False) -> tuple[nn.Module, Description]:
    """The network in ``path``, in eval mode, and what it is; ``name`` says which it is, where the file does not.

    A file of ours says whether it has gates. Of others, tensors that the plain network lacks are those of gates; with
    ``plain``, there must be none. A network that comes with gates of its own (``timm/seresnet50``) stays as it is.
    Names of tensors may differ as for ``renamed``.

    Raises ``CheckpointError`` and ``UnknownNameError``.

    >>> import tempfile, torch
    >>> from recipes.data import open_data
    >>> path = Path(tempfile.mkdtemp(), "weights.pth")
    >>> torch.save(Model("se_resnet20", "none", 10).build().state_dict(), path)
    >>> open_network(path, open_data(None), "se_resnet20")[1].model.gates
    'none'
    """
    description = describe(path)
    if description is None and name is not None:
        return _of_others(path, data, name, plain)
    network, description = load_model(path, name)
    check_origin(path, description, name or description.model.name, data.classes)
    if plain and description.model.gates != "none":
        raise CheckpointError(f"{path}: holds {description.model.name} with gates, not the plain network")
    return network, description


def _of_others(path: Path, data: Data, name: str, plain: bool) -> tuple[nn.Module, Description]:
    model = Model(name, "none", len(data.classes))
    state, network = read_weights(path), model.build().eval()
    state = renamed(todays_names(state, network), network.state_dict())
    lacks = state.keys() - network.state_dict().keys()
    if lacks and plain:
        raise CheckpointError(
            f"{path}: has {len(lacks)} tensors that the plain {name} lacks ({min(lacks)}); leave --plain out if they "
            "are of gates"
        )
    if lacks:
        gated = replace(model, gates="identity" if any(".identity_form" in key for key in lacks) else "standard")
        with suppress(NoSiteError, SettingsError):  # then they are of another network
            network, model = gated.add_gates(network), gated
    load_weights(network, state, str(path))
    return network, Description(model, model.preprocess(data.size), data.classes)
