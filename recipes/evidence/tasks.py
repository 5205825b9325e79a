"""Few-shot tasks: a few classes, a few labelled images of each as the context, and others as queries."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from .corruptions import Corruption
from .images import Images

WAYS, SHOTS, QUERIES = 5, 5, 5
IMAGES = WAYS * (SHOTS + QUERIES)  # of a task
TESTED = 100  # tasks that errors are of, the same for all arms and seeds
_SHARPNESS = 10  # what cosines are multiplied by, to be logits


@dataclass(frozen=True)
class Fewshot:
    """Names of data: what is trained on, what learning rates are chosen on, and what is tested on."""

    trained: str
    chosen: str
    tested: str


FEWSHOT: dict[str, Fewshot] = {
    "fewshot-digits": Fewshot("fashion", "mnist", "digits"),
    "fewshot-fashion": Fewshot("mnist", "digits", "fashion"),
}


@dataclass(frozen=True, eq=False)
class Task:
    """Inputs ``(N, 3, H, W)`` of ``WAYS`` classes, one class after the other, as many images of each."""

    context: Tensor
    queries: Tensor

    @property
    def labels(self) -> Tensor:
        """The classes of the queries, ``(N,)``."""
        return torch.arange(WAYS, device=self.queries.device).repeat_interleave(len(self.queries) // WAYS)


def tasks(
    images: Images,
    corruptions: Sequence[Corruption | None],
    count: int,
    seed: int,
    ready: Callable[[Images], Tensor],
) -> Iterator[Task]:
    """Draw tasks by a seed: each is under one of the corruptions, or clean where that is None.

    ``ready`` makes inputs of a network.

    >>> pixels, labels = torch.zeros(60, 1, 8, 8).byte(), torch.arange(60) % 6
    >>> images = Images(pixels, labels, torch.zeros_like(labels), ())
    >>> [task] = tasks(images, [None], 1, seed=0, ready=lambda images: images.pixels.float())
    >>> len(task.context), len(task.queries)
    (25, 25)
    """
    generator = Generator().manual_seed(seed)
    places = _by_class(images.labels.cpu())
    for _ in range(count):
        classes = torch.randperm(len(places), generator=generator)[:WAYS].tolist()
        drawn = torch.stack([_some(places[each], generator) for each in classes])
        chosen = torch.cat([part.flatten() for part in torch.split(drawn, [SHOTS, QUERIES], 1)])
        part = images.subset(chosen.to(images.labels.device))
        corruption = corruptions[_below(len(corruptions), generator)]
        if corruption is not None:
            part = part.corrupted(corruption, _below(2**31, generator))
        yield Task(*torch.split(ready(part), [WAYS * SHOTS, WAYS * QUERIES]))


def _by_class(labels: Tensor) -> list[Tensor]:
    return [(labels == label).nonzero().flatten() for label in sorted(set(labels.tolist()))]


def _some(places: Tensor, generator: Generator) -> Tensor:
    return places[torch.randperm(len(places), generator=generator)[: SHOTS + QUERIES]]


def _below(end: int, generator: Generator) -> int:
    return int(torch.randint(end, (), generator=generator))


def logits_by_means(context: Tensor, queries: Tensor) -> Tensor:
    """Logits ``(N, WAYS)`` of queries: cosines with the mean feature of each class, around the mean of the context.

    ``context`` and ``queries`` are features ``(N, C)`` of a task's images.
    Source: Snell et al., "Prototypical Networks for Few-shot Learning", 2017, section 2; centred and normalized as in
    Wang et al., "SimpleShot", 2019, section 3.

    >>> logits_by_means(torch.eye(WAYS), torch.eye(WAYS)).argmax(1)
    tensor([0, 1, 2, 3, 4])
    """
    centre = context.mean(0)
    context, queries = (functional.normalize(features - centre) for features in (context, queries))
    means = functional.normalize(context.view(WAYS, -1, context.shape[1]).mean(1))
    return _SHARPNESS * queries @ means.T
