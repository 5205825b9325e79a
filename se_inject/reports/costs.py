"""What a forward pass of a network costs: parameters, multiply-adds, memory and time."""

import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from .progress import progress

Run = Callable[[], object]


class Spread(NamedTuple):
    """The median of measurements, between their quartiles."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What a forward pass in eval mode costs; on the meta device, time and memory are not known.

    ``multiply_adds`` are those of one image in convolutions and matrix products, ``latency`` the seconds of wall time
    of the whole batch, ``peak_memory`` the bytes beside parameters and inputs at the moment when they are most.
    """

    parameters: int
    multiply_adds: int
    latency: Spread | None
    peak_memory: int | None


def count_parameters(model: nn.Module) -> int:
    """The number of a model's parameters, shared ones once.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(run: Run) -> int:
    """Multiply-adds of convolutions and matrix products: half of what torch's own counter counts.

    >>> with torch.no_grad():
    ...     count_multiply_adds(lambda: nn.Conv2d(3, 8, 1)(torch.empty(1, 3, 10, 10)))
    2400
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes a while

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def peak_memory(run: Run, known: list[Tensor]) -> int:
    """The most bytes that a run has allocated at once, without the ``known`` tensors.

    On CUDA they are those of torch's allocator, which includes what operations need for themselves. Elsewhere they are
    those of the tensors that operations return.

    >>> peak_memory(lambda: torch.ones(100) + torch.ones(100), [])
    1200
    """
    devices = {tensor.device for tensor in known if tensor.is_cuda}
    if not devices:
        with _Allocated(known) as allocated:
            run()
        return int(allocated.peak)
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    before = {device: torch.cuda.memory_allocated(device) for device in devices}
    run()
    return int(sum(torch.cuda.max_memory_allocated(device) - before[device] for device in devices))


class _Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages from the operation that makes them until they are freed."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = WeakIdKeyDictionary()
        for tensor in known:
            if tensor.layout == torch.strided:  # others have no storage
                self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self._note(leaf.untyped_storage())
        return output

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen[storage] = True
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, size).atexit = False

    def _free(self, size: int) -> None:
        self.now -= size


def time_interleaved(runs: list[Run], rounds: int, devices: set[torch.device]) -> list[list[float]]:
    """The seconds of wall time that each run takes in each round; their order turns from round to round.

    >>> [len(times) for times in time_interleaved([lambda: None, lambda: None], 3, set())]
    [3, 3]
    """
    times: list[list[float]] = [[0.0] * rounds for _ in runs]
    for run in runs:
        run()  # to warm up; the run before, which counted, was the first
    for index in progress(range(rounds), "measure latency"):
        order = range(len(runs))
        for arm in order if index % 2 else reversed(order):
            _synchronize(devices)
            start = time.perf_counter()
            runs[arm]()
            _synchronize(devices)
            times[arm][index] = time.perf_counter() - start
    return times


def _synchronize(devices: set[torch.device]) -> None:
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def spread(values: list[float]) -> Spread:
    """Median and quartiles.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    Spread(low=2.0, median=3.0, high=4.0)
    """
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))
