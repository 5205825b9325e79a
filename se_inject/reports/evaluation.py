"""Running a model to look at it: in eval mode, without gradients, and with all put back."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import nn

from ..tracing.randomness import no_randomness


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each module's mode and the random streams are then as they were.

    >>> model = nn.Sequential(nn.Dropout(), nn.ReLU().eval())
    >>> with evaluating(model):
    ...     model[0].training
    False
    >>> model[0].training, model[1].training
    (True, False)
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            _set_mode(module, False)
        with torch.no_grad(), no_randomness():
            yield
    finally:
        for module, mode in modes:
            _set_mode(module, mode)
        for module, mode in modes:
            module.training = mode


def _set_mode(module: nn.Module, mode: bool) -> None:
    if module.training != mode:
        with suppress(NotImplementedError):  # an exported module keeps the mode that it was exported in
            module.train(mode)
