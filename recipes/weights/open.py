"""A network with trained weights: of a file of ours, or of anyone's file, plain or with gates, as the file has it."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from se_inject.errors import NoSiteError

from ..data.datasets import Data
from ..errors import CheckpointError, SettingsError
from ..networks.any_model import Model
from .described import Description, check_origin, describe, load_model
from .load import load_weights, read_weights


def open_network(path: Path, data: Data, name: str | None = None, plain: bool = False) -> tuple[nn.Module, Description]:
    """The network in ``path``, in eval mode, and what it is; ``name`` says which it is, where the file does not.

    A file of ours says whether it has gates. Of others, tensors that the plain network lacks are those of gates; with
    ``plain``, there must be none. A network that comes with gates of its own (``timm/seresnet50``) stays as it is.

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
    state = todays_names(state, network)
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


def todays_names(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The weights of others without the heads that only training has use for, and under today's names.

    torchvision published its DenseNets when the name of a module could hold a dot; timm and torchvision, Inception-v3
    and GoogLeNet with auxiliary heads.

    >>> list(todays_names({"AuxLogits.fc.weight": Tensor(), "denselayer1.norm.1.bias": Tensor()}, nn.Identity()))
    ['denselayer1.norm.1.bias']
    """
    unused = {"AuxLogits", "aux1", "aux2"} - {name for name, _ in network.named_children()}
    renamed = {re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", key): value for key, value in state.items()}
    return {key: value for key, value in renamed.items() if key.partition(".")[0] not in unused}
