"""Running statistics of batch norm that do not depend on how a batch is shared out over devices and in time."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector


class RunningStatistics:
    """Makes one update of the running statistics a step, from the mean over all ``parts`` of the batch.

    By themselves, a device that accumulates gradients over four parts moves its statistics four times a step, and four
    devices each keep their own. Each part is still normalized by itself, as in the paper's training on many devices.

    >>> norm = nn.BatchNorm1d(1, momentum=0.5)
    >>> statistics = RunningStatistics(norm, parts=2)
    >>> for x in (torch.ones(4, 1), 3 * torch.ones(4, 1)):
    ...     statistics.before_part()
    ...     _ = norm(x)
    ...     statistics.after_part()
    >>> statistics.end_step(Accelerator())
    >>> norm.running_mean  # half of the way to the mean, 2
    tensor([1.])
    """

    def __init__(self, network: nn.Module, parts: int) -> None:
        self._parts = parts
        self._buffers: list[Tensor] = []  # stays empty where the usual update is the wanted one
        if parts > 1:
            norms = [m for m in network.modules() if m.training and isinstance(m, nn.modules.batchnorm._BatchNorm)]
            self._buffers = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        self._start: Tensor | None = None

    def before_part(self) -> None:
        """Each part of a step starts from the same statistics."""
        if not self._buffers:
            return
        if self._start is None:
            self._start = parameters_to_vector(self._buffers)
            self._sum = torch.zeros_like(self._start)
        else:
            self._set(self._start)

    def after_part(self) -> None:
        """Note what the part made of the statistics."""
        if self._buffers:
            self._sum += parameters_to_vector(self._buffers)

    def end_step(self, accelerator: Accelerator) -> None:
        """Set the mean over the parts of all processes."""
        if self._buffers:
            self._set(accelerator.reduce(self._sum, "sum") / self._parts)
            self._start = None

    def _set(self, values: Tensor) -> None:
        parts = torch.split(values, [buffer.numel() for buffer in self._buffers])
        for buffer, value in zip(self._buffers, parts, strict=True):
            buffer.copy_(value)
