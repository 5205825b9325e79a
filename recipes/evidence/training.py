"""One training of an experiment, on images in memory, from its job to its record."""

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from ..training.optimizer import make_optimizer
from ..training.partial import freeze_rest, training_mode, what_changes
from ..training.schedule import lr_factor, set_rates
from ..training.settings import Settings
from .arms import ARMS
from .corruptions import UNSEEN
from .images import Images, prepare
from .measured import by_domain, record, scores
from .networks import NETWORKS, build
from .records import Job, Record
from .sources import load

FINE_TUNING = Settings(optimizer="adamw", batch=64, schedule="cosine", weight_decay=0.01)
FROM_SCRATCH = Settings(optimizer="sgd", batch=512, schedule="cosine", weight_decay=5e-4)
CORRUPTED = 1000  # test images that are corrupted in ways not trained on, the first of all


def train(job: Job, root: Path, device: torch.device) -> Record:
    """Train as ``job`` says, on data under ``root``, and measure on images held out and on the test images.

    Raises ``DataError`` for data or weights that are not there, and the errors of ``se_inject.apply``.
    """
    started = time.monotonic()
    source = load(job.data, root, job.images, job.seed)
    learner = Learner(job, source.classes, device)
    step = learner.fit(source.train.to(device))
    changed = learner.changed()
    test = source.test.to(device)
    some = test.subset(torch.arange(min(CORRUPTED, len(test)), device=device))
    corrupted = {name: learner.scores(some.corrupted(kind))["top1"] for name, kind in UNSEEN.items()}
    held_out, logits = learner.scores(source.held_out.to(device)), learner.logits(test)
    tested, domains = scores(logits, test.labels), by_domain(logits, test)
    return record(job, held_out, tested, corrupted, domains, changed, step, started, device)


class Learner:
    """A job's network, and how it learns."""

    def __init__(self, job: Job, classes: int, device: torch.device) -> None:
        arm, self._about = ARMS[job.arm], NETWORKS[job.network]
        network = build(job.network, classes, job.seed, arm.wider)
        torch.manual_seed(job.seed)
        network = arm.add(network)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._arm, self._head = arm, (self._about.head,)
        freeze_rest(network, arm.trained, self._head)
        if arm.rank:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(parameter.requires_grad or "lora_" in name)
        base = FINE_TUNING if self._about.pretrained else FROM_SCRATCH
        self._settings: Settings = replace(
            base,
            epochs=job.epochs,
            lr=job.lr,
            gate_lr=job.lr * arm.gate_rate,
            warmup=arm.warmup * job.epochs,
            seed=job.seed,
        )
        self._size = job.size

    def fit(self, images: Images) -> float:
        """Train on ``images``, which are on the network's device; the mean seconds of a step."""
        settings, device = self._settings, images.labels.device
        optimizer = make_optimizer(self.network, settings, self._head)
        batch = min(settings.batch, len(images))
        epoch_steps = len(images) // batch
        factor = lr_factor(settings, epoch_steps, [settings.epochs])
        order, drawn = Generator().manual_seed(settings.seed), Generator(device).manual_seed(settings.seed)
        self._training_mode()
        started = time.monotonic()
        for epoch in range(settings.epochs):
            permutation = torch.randperm(len(images), generator=order).to(device)
            for i in range(epoch_steps):
                set_rates(optimizer, factor(epoch * epoch_steps + i))
                part = images.subset(permutation[i * batch : (i + 1) * batch])
                loss = nn.functional.cross_entropy(self.network(self._inputs(part, drawn)), part.labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.monotonic() - started) / (settings.epochs * epoch_steps)

    @torch.no_grad()
    def logits(self, images: Images) -> Tensor:
        """The network's logits of all images, ``(N, classes)``."""
        self.network.eval()
        places = torch.arange(len(images), device=images.labels.device)
        parts = [images.subset(places[start : start + 500]) for start in range(0, len(images), 500)]
        return torch.cat([self.network(self._inputs(part)) for part in parts])

    def scores(self, images: Images) -> dict[str, float]:
        """The scores of these logits."""
        return scores(self.logits(images), images.labels)

    def changed(self) -> tuple[int, int]:
        """The number of parameters that were trained, and the bytes of these and of the statistics that moved."""
        self._training_mode()
        return what_changes(self.network)

    def _training_mode(self) -> None:
        if self._arm.fixed_statistics:
            self.network.eval()
        else:
            training_mode(self.network, self._arm.trained, self._head)

    def _inputs(self, images: Images, augment: Generator | None = None) -> Tensor:
        inputs = prepare(images, self._size, self._about.mean, self._about.std, augment)
        return inputs.contiguous(memory_format=torch.channels_last)
