"""Few-shot: what a frozen pretrained network gains from meta-training a part of it.

It learns on tasks of one data set, and is tested on tasks of another one, of which it saw neither images nor classes.
Contextual gates adapt to a task by its labelled images; the other arms are their controls, trained on the same tasks.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UnknownNameError
from ..training.partial import freeze_rest, what_changes
from .arms import ARMS
from .corruptions import CORRUPTIONS, UNSEEN, Corruption
from .images import Images, prepare
from .measured import record, scores
from .networks import NETWORKS, build
from .records import Job, Record
from .sources import load
from .tasks import FEWSHOT, IMAGES, TESTED, Task, logits_by_means, tasks

_SEEN: tuple[Corruption | None, ...] = (None, *CORRUPTIONS.values())  # a task is clean, or under one of them
_HELD_OUT, _CLEAN, _UNSEEN = 10_001, 10_002, 10_003  # seeds of tasks that are not trained on


def train_fewshot(job: Job, root: Path, device: torch.device) -> Record:
    """Meta-train an arm on as many tasks as ``job.images`` make, for ``job.epochs``, and test it.

    ``job.data`` is a name in ``FEWSHOT``; the arm may train gates, norms, or, as one of a head alone, nothing. In the
    record, ``held_out`` is of tasks of a data set that is neither trained nor tested on, and ``corrupted`` of tasks
    each under a corruption that was not trained on.

    Raises ``UnknownNameError``, ``DataError`` for data or weights that are not there, and the errors of
    ``se_inject.apply``.
    """
    if job.data not in FEWSHOT:
        raise UnknownNameError(f"unknown few-shot data {job.data!r}; there are {', '.join(FEWSHOT)}")
    started, about = time.monotonic(), FEWSHOT[job.data]
    learner = Learner(job, device)
    trained, chosen, tested = (load(name, root, 0, 0) for name in (about.trained, about.chosen, about.tested))
    test = tested.test.to(device)
    step = learner.fit(trained.train.to(device))
    changed = what_changes(learner.network)
    corrupted = {"one a task": learner.scores(test, [*UNSEEN.values()], _UNSEEN)["top1"]}
    held_out = learner.scores(chosen.test.to(device), [None], _HELD_OUT)
    return record(job, held_out, learner.scores(test, [None], _CLEAN), corrupted, {}, changed, step, started, device)


class Learner:
    """A job's network without its head, in evaluation mode, and what of it learns."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job, self._about, arm = job, NETWORKS[job.network], ARMS[job.arm]
        network = build(job.network, 1, job.seed)
        network.set_submodule(self._about.head, nn.Identity())
        torch.manual_seed(job.seed)
        self.network = arm.add(network).to(device).eval()
        self.network.requires_grad_(False)
        if arm.trained != "head":
            freeze_rest(self.network, arm.trained)
        self.learns = [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def fit(self, images: Images) -> float:
        """Train on tasks, one a step, at a rate that falls along a cosine; returns the mean seconds of a step."""
        count = self._job.epochs * self._job.images // IMAGES
        if not self.learns or not count:
            return 0.0
        optimizer = torch.optim.Adam(self.learns, self._job.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
        started = time.monotonic()
        for task in self._tasks(images, _SEEN, count, self._job.seed):
            optimizer.zero_grad()
            nn.functional.cross_entropy(self._logits(task), task.labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        if task.labels.is_cuda:
            torch.cuda.synchronize()
        return (time.monotonic() - started) / count

    @torch.no_grad()
    def scores(self, images: Images, corruptions: Sequence[Corruption | None], seed: int) -> dict[str, float]:
        """The scores over the queries of ``TESTED`` tasks."""
        found = [(self._logits(task), task.labels) for task in self._tasks(images, corruptions, TESTED, seed)]
        logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return scores(logits, labels)

    def _tasks(self, images: Images, corruptions: Sequence[Corruption | None], count: int, seed: int) -> Iterator[Task]:
        ready = partial(prepare, size=self._job.size, mean=self._about.mean, std=self._about.std)
        return tasks(images, corruptions, count, seed, ready)

    def _logits(self, task: Task) -> Tensor:
        features = self.network(torch.cat([task.context, task.queries]))
        return logits_by_means(features[: len(task.context)], features[len(task.context) :])
