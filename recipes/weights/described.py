"""Files of trained weights that say what they are: which network, of which inputs, for which classes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from se_inject.errors import SEInjectError
from se_inject.files.container import packed

from ..data.transforms import Preprocess
from ..errors import CheckpointError
from ..files import replacing
from ..networks.any_model import Model
from ..networks.skeleton import skeleton
from .from_json import from_json
from .load import load_weights, read_file

_LARGEST = 1 << 31  # no network has as many outputs
_LARGEST_IMAGE = 1 << 12  # pixels a side


@dataclass(frozen=True)
class Description:
    """All that is needed to build and use the network of a file again."""

    model: Model
    preprocess: Preprocess
    classes: Sequence[str]


def save_model(path: Path, network: nn.Module, description: Description) -> None:
    """Write the weights with their description, as safetensors, under a checksum of every byte.

    Raises ``SettingsError`` on a full disk.

    >>> import tempfile
    >>> model, path = Model("se_resnet20", "standard", 2), Path(tempfile.mkdtemp(), "model.safetensors")
    >>> save_model(path, model.build(), Description(model, model.preprocess(32), ["cat", "dog"]))
    >>> describe(path).model == model
    True
    """
    state = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in network.state_dict().items()}
    content = packed(state, asdict(description))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def describe(path: Path) -> Description | None:
    """What the file says of itself; ``None`` for weights that come from elsewhere.

    Raises ``CheckpointError`` for a file that is damaged, or whose description is not that of its weights.

    >>> describe(Path("weights.pth")) is None
    True
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    return _read(path)[1]


def load_model(path: Path, name: str | None = None) -> tuple[nn.Module, Description]:
    """The network in a file of ``save_model``, in eval mode, with its description.

    A network that a function of yours makes needs its ``name`` again: no file chooses which code is run.

    Raises ``CheckpointError``.

    >>> load_model(Path("no_such.safetensors"))
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: no_such.safetensors: there is no such file
    """
    state, description = _read(path)
    if description is None:
        raise CheckpointError(
            f"{path}: does not say which network it belongs to; pass a model.safetensors of a run, --network NAME, or "
            "NAME=FILE"
        )
    if _is_code(description.model) and name != description.model.name:
        raise CheckpointError(
            f"{path}: its network is made by {description.model.name[:80]}, and no file chooses which code is run; "
            "if you trust it, pass that as --network, or as NAME=FILE"
        )
    try:
        network = description.model.build().eval()
    except SEInjectError as error:
        raise CheckpointError(f"{path}: {error}") from error
    load_weights(network, state, str(path))
    return network, description


def _read(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    state, about = read_file(path)
    if about is None:
        return state, None
    try:
        description: Description = from_json(about, Description, "it")
        _check(description, state)
    except (ValueError, SEInjectError) as error:
        raise CheckpointError(
            f"{path}: its description cannot be used: {error}; the file is another program's, or of another version"
        ) from error
    return state, description


def _check(description: Description, state: dict[str, Tensor]) -> None:
    """Raise ``ValueError`` unless a network can be as it is described, and is no larger than the weights."""
    model, inputs = description.model, description.preprocess
    for name, value, end in (
        ("num_classes", model.num_classes, _LARGEST),
        ("reduction", model.reduction, _LARGEST),
        ("size", inputs.size, _LARGEST_IMAGE),
        ("resize", inputs.resize, _LARGEST_IMAGE),
    ):
        if not 1 <= value <= end:
            raise ValueError(f"{name} must be from 1 to {end}, got {str(value)[:20]}")
    if inputs.interpolation not in [mode.value for mode in InterpolationMode]:
        raise ValueError(f"there is no interpolation {inputs.interpolation[:80]!r}")
    if not len(inputs.mean) == len(inputs.std) == 3 or not all(value > 0 for value in inputs.std):
        raise ValueError(f"mean and std must be of three channels, and std above 0, got {inputs.mean}, {inputs.std}")
    if not 1 <= len(description.classes) <= model.num_classes:
        raise ValueError(f"{len(description.classes)} classes do not fit {model.num_classes} outputs")
    if not any(model.num_classes in value.shape for value in state.values()):
        raise ValueError(f"no layer in the file has {model.num_classes} outputs")
    if _is_code(model):
        return
    needed, there = skeleton(model.build).state_dict(), sum(value.numel() for value in state.values())
    if sum(value.numel() for value in needed.values()) > there:
        raise ValueError(f"{model.name} has more weights than the file")


def _is_code(model: Model) -> bool:
    return ":" in model.name and "/" not in model.name  # package.module:function


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
