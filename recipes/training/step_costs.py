"""What a training step costs in time and memory, and how much of a network training changes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from se_inject.reports.costs import peak_memory, spread, time_interleaved

from .optimizer import make_optimizer
from .partial import freeze_rest, training_mode, what_changes
from .run import Run


@dataclass(frozen=True)
class StepCosts:
    """Of one way to train: parameters that learn, bytes to store of what changes, and one step on a device.

    ``seconds`` is the median of a step on ``images`` random images at once, without loading any; ``peak_memory`` are
    bytes: weights, optimizer, and the most that a step keeps beside them.
    """

    parameters: int
    stored: int
    images: int
    seconds: float
    peak_memory: int


def step_costs(
    networks: Mapping[str, tuple[Run, nn.Module]], accelerator: Accelerator, rounds: int = 5
) -> dict[str, StepCosts]:
    """The costs of training each network as its run says; they take turns, so that they share the machine's moods.

    The networks are trained on noise for that.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ..data import open_data
    >>> from ..networks.any_model import Model
    >>> from .accelerator import make_accelerator
    >>> from .settings import SMALL
    >>> model, data = Model("se_resnet20", "identity", 10), open_data(None)
    >>> run = Run(model, data, model.preprocess(8), SMALL.share(1), Path("runs/try"), trained="gates")
    >>> step_costs({"gates": (run, model.build())}, make_accelerator(), rounds=2)["gates"].parameters
    5784
    """
    steps = {name: _Step(run, network, accelerator) for name, (run, network) in networks.items()}
    for step in steps.values():
        step()  # the optimizer's state is made
    memory = {name: step.resident() + peak_memory(step, step.tensors()) for name, step in steps.items()}
    runs: list[Callable[[], object]] = list(steps.values())
    times = time_interleaved(runs, rounds, {accelerator.device})
    return {
        name: StepCosts(*what_changes(step.network), len(step.images), spread(seconds).median, memory[name])
        for (name, step), seconds in zip(steps.items(), times, strict=True)
    }


class _Step:
    """One step of training, again and again on the same images of noise."""

    def __init__(self, run: Run, network: nn.Module, accelerator: Accelerator) -> None:
        self.network, self._accelerator = network.to(accelerator.device), accelerator
        freeze_rest(network, run.trained, run.head)
        training_mode(network, run.trained, run.head)
        self._optimizer = make_optimizer(network, run.settings, run.head)
        count, size = run.settings.device_batch or run.settings.batch, run.preprocess.size
        self.images = torch.randn(count, 3, size, size, device=accelerator.device)
        self._labels = torch.randint(run.model.num_classes, (count,), device=accelerator.device)

    def __call__(self) -> None:
        with self._accelerator.autocast():
            loss = nn.functional.cross_entropy(self.network(self.images), self._labels)
        self._accelerator.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def tensors(self) -> list[Tensor]:
        state = [value for of_one in self._optimizer.state.values() for value in of_one.values()]
        weights = [*self.network.parameters(), *self.network.buffers()]
        return [self.images, self._labels, *weights, *(value for value in state if isinstance(value, Tensor))]

    def resident(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors())
