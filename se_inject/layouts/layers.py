"""The layers of a state dict: which tensors share a path, and what they look like."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

COUNTER = "num_batches_tracked"  # came with torch 0.4.1, so older weights lack it; no output depends on it
_STATISTICS = {"running_mean", "running_var"}
_SCALE = re.compile(r"[./_]scale$")

Shape = tuple[int, ...]
Look = frozenset[tuple[str, Shape]]


@dataclass(frozen=True)
class Layer:
    """Tensors by their last name ("weight", "running_mean" ...), with their whole keys."""

    path: str
    keys: Mapping[str, str]
    look: Look

    def __str__(self) -> str:
        return f"{self.path or '(root)'} ({', '.join(f'{name} {list(shape)}' for name, shape in sorted(self.look))})"


def layers_of(state: Mapping[str, Tensor], without_bias: Collection[str] = ()) -> list[Layer]:
    """The layers of a state dict; of those at the paths in ``without_bias``, the bias does not count.

    Fully-connected weights ``(out, in)`` and those of 1x1 convolutions ``(out, in, 1, 1)`` look the same.

    >>> import torch
    >>> conv = torch.nn.Conv2d(8, 4, 1)
    >>> print(*layers_of({f"se.{key}": value for key, value in conv.state_dict().items()}))
    se (bias [4], weight [4, 8])
    """
    paths: dict[str, dict[str, str]] = {}
    for key in state:
        path, _, name = key.rpartition(".")
        paths.setdefault(path, {})[name] = key
    _join_scales(paths)
    return [
        Layer(path, keys, frozenset(_looks(state, keys, path in without_bias))) for path, keys in paths.items() if keys
    ]


def _join_scales(paths: dict[str, dict[str, str]]) -> None:
    """Caffe keeps a norm in two layers, statistics in ``bn`` and the affine part in ``bn/scale``."""
    for path in list(paths):
        norm = paths.get(_SCALE.sub("", path)) if _SCALE.search(path) else None
        if norm and paths[path].keys() == {"weight", "bias"} and norm.keys() - {COUNTER} == _STATISTICS:
            norm.update(paths.pop(path))


def _looks(state: Mapping[str, Tensor], keys: Mapping[str, str], without_bias: bool) -> Iterator[tuple[str, Shape]]:
    for name, key in keys.items():
        if name != COUNTER and not (without_bias and name == "bias"):
            yield name, squeezed(tuple(state[key].shape))


def squeezed(shape: Shape) -> Shape:
    """A weight's shape without the ones of a 1x1 kernel.

    >>> squeezed((16, 64, 1, 1)), squeezed((16, 64, 3, 3)), squeezed((1, 1))
    ((16, 64), (16, 64, 3, 3), (1, 1))
    """
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape
