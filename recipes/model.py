"""Which network: a recipe, or a model of timm or torchvision, plain or with gates; and its file of weights."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

import se_inject

from . import networks
from .errors import CheckpointError, SettingsError, UnknownNameError
from .files import replacing
from .transforms import Preprocess, shorter_edge
from .weights import load_weights, read_weights


@dataclass(frozen=True)
class Model:
    """A network's description, enough to build it again.

    ``name`` is a recipe's, or ``timm/NAME`` or ``torchvision/NAME``; ``gates`` the form of the gates, if it has any.
    """

    name: str
    gates: Literal["none", "identity", "standard"]
    num_classes: int
    reduction: int = 16

    def build(self) -> nn.Module:
        """The network, randomly initialized: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

        Raises ``UnknownNameError``.

        >>> sum(1 for _ in se_inject.gates(Model("se_resnet20", "standard", 10).build()))
        9
        """
        network = _base(self.name, self.num_classes)
        return network if self.gates == "none" else se_inject.apply(network, self.reduction, init=self.gates)

    def preprocess(self, native: int | None, size: int | None = None) -> Preprocess:
        """How its inputs are made, of images that are ``native`` pixels a side, or of any size; ``size`` overrides.

        >>> Model("se_resnet50", "none", 1000).preprocess(native=None)
        Preprocess(size=224, resize=256, interpolation='bilinear', mean=(0.485, ...), std=(0.229, ...))
        """
        own = _own_preprocess(self.name)
        wanted = size or native or own.size
        resize = wanted if native else own.resize if wanted == own.size else shorter_edge(wanted)
        return Preprocess(wanted, resize, own.interpolation, own.mean, own.std)


def _base(name: str, num_classes: int) -> nn.Module:
    library, _, rest = name.partition("/")
    if not rest:
        return networks.get(name).build(se=False, num_classes=num_classes)
    try:
        if library == "timm":
            import timm

            network: nn.Module = timm.create_model(rest, num_classes=num_classes)
        elif library == "torchvision":
            import torchvision

            network = torchvision.models.get_model(rest, num_classes=num_classes)
        else:
            raise UnknownNameError(f"{name}: a model is a recipe's name, timm/NAME or torchvision/NAME")
    except (RuntimeError, ValueError) as error:
        raise UnknownNameError(f"{name}: {error}") from error
    return network


def _own_preprocess(name: str) -> Preprocess:
    library, _, rest = name.partition("/")
    if library == "timm":
        import timm

        c = timm.data.resolve_data_config(timm.get_pretrained_cfg(rest).to_dict() if timm.is_model(rest) else {})
        size = c["input_size"][-1]
        return Preprocess(size, int(size / c["crop_pct"]), c["interpolation"], tuple(c["mean"]), tuple(c["std"]))
    size = networks.get(name).size if not rest else 299 if rest == "inception_v3" else 224
    return Preprocess(size, shorter_edge(size))


def check_input(network: nn.Module, model: Model, size: int) -> None:
    """Raise ``SettingsError`` unless ``network`` makes logits of two images of ``size`` pixels in training mode.

    >>> model = Model("se_bn_inception", "none", 10)
    >>> check_input(model.build(), model, 8)
    Traceback (most recent call last):
    ...
    recipes.errors.SettingsError: se_bn_inception cannot take images of 8 pixels ...
    """
    import copy

    probe = copy.deepcopy(network).to("meta").train()
    try:
        logits = probe(torch.empty(2, 3, size, size, device="meta"))
    except (RuntimeError, ValueError) as error:
        text = str(error).splitlines()[0]
        raise SettingsError(
            f"{model.name} cannot take images of {size} pixels ({text}); try a larger --size"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, model.num_classes):
        what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise SettingsError(f"{model.name} must return logits (N, {model.num_classes}) in training, but returns {what}")


def save_model(path: Path, network: nn.Module, model: Model, preprocess: Preprocess, classes: list[str]) -> None:
    """Write the weights with all that is needed to build and use the network again, as safetensors.

    >>> import tempfile
    >>> model, path = Model("se_resnet20", "standard", 2), Path(tempfile.mkdtemp(), "model.safetensors")
    >>> save_model(path, model.build(), model, model.preprocess(32), ["cat", "dog"])
    >>> load_model(path)[1:]
    (Model(name='se_resnet20', gates='standard', num_classes=2, ...), Preprocess(size=32, ...), ['cat', 'dog'])
    """
    about = {"model": asdict(model), "preprocess": asdict(preprocess), "classes": list(classes)}
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, {"se_inject": json.dumps(about)})


def load_model(path: str | Path) -> tuple[nn.Module, Model, Preprocess, list[str]]:
    """The network in a file of ``save_model``, in eval mode, with its description, inputs and classes.

    Raises ``CheckpointError``.

    >>> load_model("no_such.safetensors")
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: no_such.safetensors: there is no such file
    """
    path = Path(path)
    state = read_weights(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["se_inject"])
        model = Model(**about["model"])
        fields = about["preprocess"]
        preprocess = Preprocess(**fields | {"mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
    except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: does not say which network it is of; pass a model.safetensors of a run, or --network NAME"
        ) from error
    network = model.build().eval()
    load_weights(network, state, str(path))
    return network, model, preprocess, about["classes"]
