"""The experiments, declared: which arms are trained on what, with which seeds and learning rates."""

from dataclasses import dataclass

from .arms import ARMS
from .records import Job


@dataclass(frozen=True)
class Experiment:
    """Arms beside a control of equal budget; ``question`` is the section of the page that it is for.

    All ``rates`` are tried with the first seed, and the other seeds use that of the lowest held-out error.
    """

    name: str
    title: str
    question: str
    network: str
    data: str
    images: int
    size: int
    epochs: int
    arms: tuple[str, ...]
    control: str
    rates: tuple[float, ...]
    seeds: int = 3

    @property
    def compared(self) -> tuple[str, ...]:
        """The control, then the other arms."""
        return tuple(dict.fromkeys((self.control, *self.arms)))

    @property
    def gated(self) -> tuple[str, ...]:
        """The arms with gates, beside the control."""
        return tuple(arm for arm in self.compared[1:] if ARMS[arm].gates)

    @property
    def planned(self) -> int:
        """The number of trainings."""
        return len(self.compared) * (len(self.rates) + self.seeds - 1)

    def includes(self, job: Job) -> bool:
        """Whether the training is one of this experiment as it is declared now."""
        same = job == self.job(job.arm, job.seed, job.lr)
        return same and job.arm in self.compared and job.lr in self.rates and job.seed < self.seeds

    def job(self, arm: str, seed: int, lr: float) -> Job:
        """One training of the experiment.

        >>> tiny = Experiment("tiny", "A try", "scratch", "resnet20", "digits", 500, 28, 2, ("plain",), "plain", (0.1,))
        >>> tiny.job("plain", 0, 0.1).epochs
        2
        """
        return Job(self.name, arm, seed, lr, self.network, self.data, self.images, self.size, self.epochs)


EXPERIMENTS: dict[str, Experiment] = {}
