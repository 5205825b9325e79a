"""Files of trained weights that say what they are: which network, of which inputs, for which classes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
from safetensors.torch import save_file
from torch import nn

from ..data.transforms import Preprocess
from ..errors import CheckpointError
from ..files import replacing
from ..networks.any_model import Model
from .load import load_weights, read_weights


@dataclass(frozen=True)
class Description:
    """All that is needed to build and use the network of a file again."""

    model: Model
    preprocess: Preprocess
    classes: Sequence[str]


def save_model(path: Path, network: nn.Module, description: Description) -> None:
    """Write the weights with their description, as safetensors.

    >>> import tempfile
    >>> model, path = Model("se_resnet20", "standard", 2), Path(tempfile.mkdtemp(), "model.safetensors")
    >>> save_model(path, model.build(), Description(model, model.preprocess(32), ["cat", "dog"]))
    >>> describe(path).model == model
    True
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, {"se_inject": json.dumps(asdict(description))})


def describe(path: Path) -> Description | None:
    """What the file says of itself; ``None`` for weights that come from elsewhere.

    >>> describe(Path("weights.pth")) is None
    True
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["se_inject"])
        inputs = about["preprocess"]
        preprocess = Preprocess(**inputs | {"mean": tuple(inputs["mean"]), "std": tuple(inputs["std"])})
        return Description(Model(**about["model"]), preprocess, about["classes"])
    except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None


def load_model(path: Path) -> tuple[nn.Module, Description]:
    """The network in a file of ``save_model``, in eval mode, with its description.

    Raises ``CheckpointError``.

    >>> load_model(Path("no_such.safetensors"))
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: no_such.safetensors: there is no such file
    """
    state, description = read_weights(path), describe(path)
    if description is None:
        raise CheckpointError(
            f"{path}: does not say which network it belongs to; pass a model.safetensors of a run, or --network NAME"
        )
    network = description.model.build().eval()
    load_weights(network, state, str(path))
    return network, description


def check_origin(path: Path, description: Description, name: str, classes: Sequence[str]) -> None:
    """Raise ``CheckpointError`` unless the file is of the network called ``name``, trained on these classes.

    >>> model = Model("se_resnet20", "none", 2)
    >>> file = Description(model, model.preprocess(32), ["cat", "dog"])
    >>> check_origin(Path("w.safetensors"), file, "se_resnet20", ["cow", "dog"])
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: w.safetensors: was trained on other classes (cat, dog) than the data's (cow, dog)
    """
    if description.model.name != name:
        raise CheckpointError(f"{path}: holds weights of {description.model.name}, not of {name}")
    if list(description.classes) != list(classes):
        theirs, ours = (
            ", ".join([*list(names)[:3], *["..."][: len(names) > 3]]) for names in (description.classes, classes)
        )
        raise CheckpointError(f"{path}: was trained on other classes ({theirs}) than the data's ({ours})")
