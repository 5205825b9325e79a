"""The three zoos: their models by name, how to build one, and what to run it on."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

Inputs = Callable[[], tuple[Any, ...]]

LIBRARIES = ("torchvision", "timm", "pytorchcv")
# Heights and widths for networks that take any: not square, so that they differ from numbers of channels.
_SMALL = (96, 64)
_OTHER = (160, 96)


def names(library: str) -> list[str]:
    """All models of a library."""
    if library == "timm":
        import timm

        return timm.list_models()
    if library == "torchvision":
        import torchvision

        return torchvision.models.list_models()
    from pytorchcv.model_provider import _models

    return sorted(_models)


def build(library: str, name: str) -> nn.Module:
    """A model with random weights."""
    if library == "timm":
        import timm

        return timm.create_model(name)
    if library == "torchvision":
        import torchvision

        builder = torchvision.models.get_model_builder(name)
        has_backbone = "weights_backbone" in builder.__annotations__
        model = builder(weights=None, **({"weights_backbone": None} if has_backbone else {}))
        if hasattr(model, "transform"):  # detectors enlarge their images
            model.transform.min_size, model.transform.max_size = (128,), 192
        return model
    from pytorchcv.model_provider import get_model

    # What makes spectra of sounds there fails in today's torch, so these begin with spectra.
    return get_model(name, **({"from_audio": False} if name.startswith(("jasper", "quartznet")) else {}))


def family(model: nn.Module) -> str:
    """What the library calls the file that a model comes from."""
    return type(model).__module__.rpartition(".")[2]


def inputs(library: str, name: str, model: nn.Module) -> Iterator[Inputs]:
    """Small inputs first, then those that the library says."""
    if library == "torchvision":
        yield from _torchvision_inputs(name)
    elif library == "timm":
        channels, *size = getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))
        yield _images(channels, *_SMALL)
        yield _images(channels, *_OTHER)
        yield _images(channels, *size)
    elif hasattr(model, "from_audio"):
        yield lambda: (torch.randn(2, model.in_size, 160), torch.tensor([160, 96]))
    else:
        channels = getattr(model, "in_channels", 3)
        size = getattr(model, "in_size", (224, 224))
        yield _images(channels, *_SMALL)
        yield _images(channels, *_OTHER)
        yield _images(channels, *size)


def _images(*shape: int, batch: int = 2) -> Inputs:
    return lambda: (torch.randn(batch, *shape),)


def _torchvision_inputs(name: str) -> Iterator[Inputs]:
    if name.startswith("raft"):
        yield lambda: (torch.randn(2, 3, 128, 136), torch.randn(2, 3, 128, 136))
    elif any(part in name for part in ("rcnn", "retinanet", "fcos", "ssd")):
        yield _scene(keypoints="keypoint" in name)
    elif any(part in name for part in ("r3d", "mc3", "r2plus1d", "s3d")):
        yield _images(3, 16, 64, 96)
        yield _images(3, 16, 224, 224)
    elif "mvit" in name or name.startswith("swin3d"):
        yield _images(3, 16, 224, 224, batch=1)
    else:
        yield _images(3, *_SMALL)
        yield _images(3, *_OTHER)
        yield _images(3, 224, 224)
        yield _images(3, 299, 299)


def _scene(keypoints: bool) -> Inputs:
    def scene() -> tuple[Any, ...]:
        target = {
            "boxes": torch.tensor([[8.0, 8.0, 60.0, 60.0]]),
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, 96, 128, dtype=torch.uint8),
        }
        if keypoints:
            target["keypoints"] = torch.ones(1, 17, 3)
        return [torch.rand(3, 96, 128), torch.rand(3, 96, 128)], [target, target]

    return scene
