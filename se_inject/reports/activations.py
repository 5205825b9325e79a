"""What gates do to images of different classes.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 7.2, figures 6 and 7: early gates treat all classes alike,
late ones do not.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map

from ..errors import ArgumentTypeError, InvalidArgumentError, NoGateError, first_line
from ..gate.autograd import is_plain_layer
from ..gate.squeeze_excitation import SqueezeExcitation
from ..sites.wrapped import check_not_optimized
from ..training import gates
from .evaluation import evaluating
from .gate_values import Activations, Measured
from .progress import progress


def activations(
    model: nn.Module, loader: Iterable[tuple[Any, Any]], *, classes: Sequence[str] | None = None
) -> Activations:
    """Average the values of each gate by class, over batches of ``(images, labels)``.

    Images are what the model takes, a tensor ``(N, *)`` or a tuple of them, and are moved to its device; labels are
    ``(N,)`` whole numbers, which ``classes`` may name. The model runs in eval mode without gradients; modes, hooks and
    random streams are then as they were.

    The value of a Squeeze-and-Excitation gate is that of its formula. Of any other gate it is what a channel is
    multiplied by: the factor that takes its input closest to its output. Images for which a channel of the input is
    zero do not count in that channel then, and a channel without any is NaN.

    Raises ``NoGateError`` if there is no gate or none is called, ``ArgumentTypeError`` or ``InvalidArgumentError`` for
    batches that do not fit, ``NotAModuleError``, and ``WrappedModelError`` for a copy that ``optimize`` made.
    Source: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 7.2.

    >>> gate = SqueezeExcitation(8)
    >>> found = activations(nn.Sequential(gate), [(torch.randn(3, 8, 4, 4), [0, 1, 1])], classes=["cat", "dog"])
    >>> found
    gate  measured    mean    classes differ by  cat     dog
    ----  ----------  ------  -----------------  ------  ------
    0     gate value  1.0000  0.0000             1.0000  1.0000
    2 classes, 3 images
    >>> found.values["0"].shape
    torch.Size([2, 8])
    """
    found = dict(gates(model))
    if not found:
        raise NoGateError("the model has no gates; call se_inject.apply(model) first")
    check_not_optimized(model)
    if not isinstance(loader, Iterable):
        raise ArgumentTypeError(f"loader must give batches of (images, labels), got {type(loader).__name__}")
    if classes is not None and (
        isinstance(classes, str)
        or not isinstance(classes, Sequence)
        or not all(isinstance(name, str) for name in classes)
    ):
        raise ArgumentTypeError(f"classes must be a sequence of names, got {classes!r}"[:200])
    means = {path: _Mean(path) for path in found}
    images: dict[int, int] = {}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        if "torch._dynamo" in sys.modules:  # compiled code may not call new hooks
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for path, gate in found.items():
            handle = gate.register_forward_hook(partial(_note, means[path]))
            stack.callback(handle.remove)
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        for number, batch in enumerate(progress(loader, "activations")):
            inputs, labels = _checked(batch, number, classes)
            for mean in means.values():
                mean.labels = labels
            _run(model, tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, inputs), number)
            for label in labels.tolist():
                images[label] = images.get(label, 0) + 1
    if not images:
        raise InvalidArgumentError("loader gives no batch")
    called = {path: mean for path, mean in means.items() if mean.sums}
    if not called:
        raise NoGateError(
            "none of the model's gates was called, as in a graph of torch.export, where they are operations: use the"
            " model that it was made from"
        )
    labels_seen = sorted(images)
    return Activations(
        tuple(str(label) if classes is None else classes[label] for label in labels_seen),
        tuple(images[label] for label in labels_seen),
        {path: mean.by_class(labels_seen) for path, mean in called.items()},
        {path: mean.measured for path, mean in called.items()},
        tuple(path for path in found if path not in called),
    )


class _Mean:
    """The sums of a gate's values by class, and how many there are."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.labels = torch.empty(0, dtype=torch.long)
        self.measured: Measured = "output / input"
        self.sums: dict[int, Tensor] = {}
        self.counts: dict[int, Tensor] = {}

    def add(self, values: Tensor) -> None:
        """Add values ``(N, C)``; those that are NaN do not count."""
        values = values.double().cpu()
        if len(values) != len(self.labels):
            raise InvalidArgumentError(
                f"{self.path}: gets {len(values)} features for {len(self.labels)} labels, so that nobody can tell"
                " whose they are"
            )
        there = ~values.isnan()
        for label in set(self.labels.tolist()):
            rows = self.labels == label
            sums, counts = values[rows].nansum(0), there[rows].sum(0)
            self.sums[label] = self.sums.get(label, 0) + sums
            self.counts[label] = self.counts.get(label, 0) + counts

    def by_class(self, labels: list[int]) -> Tensor:
        """The means ``(classes, C)``; of a class that did not reach the gate they are NaN."""
        nothing = torch.full_like(next(iter(self.sums.values())), torch.nan)
        rows = [self.sums[label] / self.counts[label] if label in self.sums else nothing for label in labels]
        return torch.stack(rows).float()


def _note(mean: _Mean, gate: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
    if not arguments:
        raise InvalidArgumentError(f"{mean.path}: is called with keywords: pass its input by position")
    x: Tensor = arguments[0]
    if type(gate) is SqueezeExcitation and is_plain_layer(gate.fc1) and is_plain_layer(gate.fc2):
        mean.measured = "gate value"
        mean.add(_value(gate, x))
    else:
        mean.add(_ratio(x, output))


def _value(gate: SqueezeExcitation, x: Tensor) -> Tensor:
    """The values ``(N, C)`` of a gate's formula, without calls of its layers, which hooks may count."""
    squeezed = x.float().flatten(2).mean(2)
    fc1, fc2 = gate.fc1, gate.fc2
    assert fc1.bias is not None and fc2.bias is not None
    hidden = functional.linear(squeezed, fc1.weight.float().flatten(1), fc1.bias.float()).relu()
    value = functional.linear(hidden, fc2.weight.float().flatten(1), fc2.bias.float()).sigmoid()
    return 2 * value if gate.init == "identity" else value


def _ratio(x: Tensor, output: Tensor) -> Tensor:
    """The factors ``(N, C)`` that take ``x`` closest to ``output``, by least squares; NaN where ``x`` is zero."""
    x, output = x.double().flatten(2), output.double().flatten(2)
    return (x * output).sum(2) / x.square().sum(2)


def _checked(batch: Any, number: int, classes: Sequence[str] | None) -> tuple[Any, Tensor]:
    """The images and the labels of a batch."""
    where = f"batch {number} of loader"
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ArgumentTypeError(f"{where}: must be a pair of images and labels, got {type(batch).__name__}")
    inputs, given = batch
    try:
        labels = torch.as_tensor(given).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(f"{where}: labels must be whole numbers, got {type(given).__name__}") from error
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InvalidArgumentError(
            f"{where}: labels must be whole numbers of shape (N,), got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if classes is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise InvalidArgumentError(
            f"{where}: labels must be from 0 to {len(classes) - 1}, as there are so many classes"
        )
    return inputs, labels


def _run(model: Callable[..., Any], inputs: Any, number: int) -> None:
    try:
        model(*(inputs if isinstance(inputs, tuple | list) else (inputs,)))
    except InvalidArgumentError:
        raise
    except Exception as error:  # whatever the model raises
        raise InvalidArgumentError(f"batch {number} of loader: the model fails on it ({first_line(error)})") from error
