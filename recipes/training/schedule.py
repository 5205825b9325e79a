"""The schedule of learning rates: a function of the position in the run, like everything else that happens in it."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch

from .settings import Settings


def lr_factor(settings: Settings, epoch_steps: int, ends: Sequence[int]) -> Callable[[int], float]:
    """What learning rates are multiplied by at each step of the run.

    ``ends`` are the run's planned lengths in epochs: its last is the run's end, others are from before it was extended.
    A step schedule does not depend on them. A cosine falls to zero at each, and starts again there from the full rate
    (as in Loshchilov and Hutter, "SGDR", 2017): the cosine of a longer run would have been another from its start.

    >>> factor = lr_factor(Settings(schedule="cosine", warmup=1), epoch_steps=2, ends=[3, 4])
    >>> [round(factor(step), 2) for step in range(8)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 1.0, 0.5]
    >>> factor = lr_factor(Settings(lr_step=1), epoch_steps=2, ends=[2])
    >>> [factor(step) for step in range(4)]
    [1.0, 1.0, 0.1, 0.1]
    """
    warmup = round(settings.warmup * epoch_steps)
    bounds = [warmup, *(end * epoch_steps for end in ends)]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if settings.schedule == "step":
            return math.pow(0.1, step // (settings.lr_step * epoch_steps))
        if step >= bounds[-1]:
            return 0.0
        period = bisect_right(bounds, step)
        start, end = bounds[period - 1 : period + 1]
        return (1 + math.cos(math.pi * (step - start) / (end - start))) / 2

    return factor


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the learning rate that each group began with by ``factor``.

    Unlike torch's schedulers, which count calls, it does not mind steps that fp16's scaler skipped.

    >>> optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.4)
    >>> for factor in (0.1, 0.5):
    ...     set_rates(optimizer, factor)
    ...     print(optimizer.param_groups[0]["lr"])
    0.04000000000000001
    0.2
    """
    for group in optimizer.param_groups:
        group["lr"] = factor * group.setdefault("initial_lr", group["lr"])
