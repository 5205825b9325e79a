"""Which image comes when: a pure function of the seed, so that a run can be resumed, or shared out, at any position.

Class-balanced sampling as in the paper's training (section "Implementation" of the challenge entry, after Shen, Lin,
Huang, "Relay Backpropagation", 2016): each class equally often, its images cycled in an order drawn anew each time.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

from .subsets import by_class


class ClassBalanced(Sampler[list[tuple[int, int]]]):
    """Batches of ``(image, position)`` from position ``start * batch`` of an endless stream to its ``stop * batch``.

    ``labels`` are the class of each image. The position, which counts from the run's first image, seeds the image's
    augmentation.

    >>> batches = ClassBalanced([0, 0, 0, 0, 1], seed=0, batch=4, stop=2)
    >>> sorted(image for batch in batches for image, _ in batch)
    [0, 1, 2, 3, 4, 4, 4, 4]
    >>> list(ClassBalanced([0, 0, 0, 0, 1], seed=0, batch=4, start=1, stop=2)) == list(batches)[1:]
    True
    """

    def __init__(self, labels: Sequence[int], seed: int, batch: int, stop: int, start: int = 0) -> None:
        self._members = list(by_class(labels).values())
        self._seed = seed
        self.batch_size, self._start, self._stop = batch, start, stop
        self.drop_last = False  # Accelerate asks for it

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # one permutation of the classes a round, one of its images a cycle through a class
        permutation = lru_cache(maxsize=2 * len(self._members) + 2)(self._permutation)
        classes = len(self._members)
        for batch in range(self._start, self._stop):
            picked = []
            for position in range(batch * self.batch_size, (batch + 1) * self.batch_size):
                round_, place = divmod(position, classes)
                label = permutation(0, round_, classes)[place]
                cycle, turn = divmod(round_, len(self._members[label]))
                order = permutation(1 + label, cycle, len(self._members[label]))
                picked.append((int(self._members[label][order[turn]]), position))
            yield picked

    def _permutation(self, stream: int, index: int, length: int) -> np.ndarray:
        return np.random.default_rng((self._seed, stream, index)).permutation(length)
