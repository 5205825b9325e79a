"""The models that a user names: torchvision's, timm's, or what a function of theirs returns."""

import difflib
import importlib
import inspect
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import typer
from torch import Tensor, nn

from ..errors import InvalidArgumentError, first_line


class Named(NamedTuple):
    """A model, with the example inputs that its function returned, or the shape of one image."""

    name: str
    model: nn.Module
    example: Any = None
    image: tuple[int, ...] = (3, 224, 224)

    def inputs(self, shapes: Sequence[str] = ()) -> Any:
        """Example inputs: of these shapes, else its function's, else one random image.

        Raises ``InvalidArgumentError``.
        """
        if shapes:
            return tuple(_random(text, _dtype(self.model)) for text in shapes)
        return torch.randn(1, *self.image).to(_dtype(self.model)) if self.example is None else self.example


def named(name: str) -> Named:
    """The model that a name means. Raises ``InvalidArgumentError``, and a usage error for what names no model."""
    library, _, rest = name.partition("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torchvision's, about weights that are not asked for
        if library == "torchvision" and rest:
            return _of_torchvision(name, rest)
        if library == "timm" and rest:
            return _of_timm(name, rest)
    if ":" not in name:
        raise typer.BadParameter(
            f"{name!r} is no name of a model: give torchvision/NAME, timm/NAME or package.module:function",
            param_hint="MODEL",
        )
    found = called(name)
    model, example = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(
            f"{name}: must return a torch.nn.Module, or one with its example inputs, got {type(model).__name__}"
        )
    return Named(name, model, example)


def called(name: str) -> Any:
    """What the function ``package.module:function`` returns; modules are looked for in the current folder, too.

    Raises ``InvalidArgumentError`` if it cannot be imported, or fails.
    """
    path, _, attributes = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        value = importlib.import_module(path)
        for attribute in attributes.split("."):
            value = getattr(value, attribute)
    except (Exception, SystemExit) as error:  # the user's code
        raise InvalidArgumentError(f"{name}: cannot be imported: {first_line(error)}{place(error)}") from error
    if isinstance(value, nn.Module) or not callable(value):
        return value
    try:
        return value()
    except (Exception, SystemExit) as error:  # the user's code
        raise InvalidArgumentError(f"{name}: fails: {first_line(error)}{place(error)}") from error


def _of_torchvision(name: str, rest: str) -> Named:
    try:
        from torchvision import models
    except ImportError as error:
        raise InvalidArgumentError(f"{name}: needs torchvision: pip install torchvision") from error
    _check_known(name, rest, models.list_models())
    # Backbones of detectors would be downloaded.
    options = {"weights_backbone": None} if _takes(models.get_model_builder(rest), "weights_backbone") else {}
    model = models.get_model(rest, weights=None, **options)
    size = getattr(models.get_model_weights(rest).DEFAULT.transforms(), "crop_size", None) or [224]
    return Named(name, model, image=(3, size[0], size[-1]))


def _of_timm(name: str, rest: str) -> Named:
    try:
        import timm
    except ImportError as error:
        raise InvalidArgumentError(f"{name}: needs timm: pip install timm") from error
    if not timm.is_model(rest):
        _check_known(name, rest, timm.list_models())
    model = timm.create_model(rest)
    return Named(name, model, image=tuple(model.pretrained_cfg.get("input_size", (3, 224, 224))))


def _check_known(name: str, rest: str, names: Sequence[str]) -> None:
    if rest not in names:
        library = name.partition("/")[0]
        near = [f"{library}/{other}" for other in difflib.get_close_matches(rest, names)]
        raise InvalidArgumentError(
            f"{name}: there is no such model{f'; did you mean {chr(32).join(near)}?' if near else ''}"
        )


def _takes(function: Any, argument: str) -> bool:
    return argument in inspect.signature(function).parameters


def place(error: BaseException) -> str:
    """The last file and line of the user's own code, in the current folder, that an error went through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(Path.cwd())]
    own = [frame for frame in frames if frame.filename != __file__]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _random(shape: str, dtype: torch.dtype) -> Tensor:
    """Random numbers of a shape such as ``1,3,224,224``. Raises a usage error for what is none, or is too large."""
    sizes = shape.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise typer.BadParameter(f"{shape!r} is no shape such as 1,3,224,224", param_hint="--input")
    try:
        return torch.randn(tuple(map(int, sizes))).to(dtype)
    except (RuntimeError, TypeError) as error:  # no memory for it, or a size that is no 64-bit number
        raise typer.BadParameter(f"{shape!r} is too large", param_hint="--input") from error


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
