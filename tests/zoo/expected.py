"""The sites that a model should have, from the hand-checked rows: what each block class adds or concatenates.

The rows were read off the libraries' source, without the finder: class, channels of each gate of an instance.
"""

from torch import nn

from . import rows_pytorchcv, rows_timm_a, rows_timm_b, rows_torchvision

ROWS = {**rows_timm_a.ROWS, **rows_timm_b.ROWS, **rows_torchvision.ROWS, **rows_pytorchcv.ROWS}


def class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def expected_sites(model: nn.Module) -> dict[str, list[int]]:
    """For each block that should be gated, by its path, the channels of its gates."""
    modules = dict(model.named_modules())
    sites = {}
    for path, block in modules.items():
        row = ROWS.get(class_name(block))
        channels = row(block, _above(path, modules)) if row else []
        if channels:
            sites[path] = list(channels)
    return sites


def unchecked(model: nn.Module, paths: list[str]) -> list[str]:
    """The classes among the blocks at ``paths`` that have no row."""
    return sorted({class_name(model.get_submodule(path)) for path in paths} - set(ROWS))


def _above(path: str, modules: dict[str, nn.Module]) -> list[nn.Module]:
    steps = path.split(".") if path else []
    return [modules[".".join(steps[:i])] for i in range(len(steps))]
