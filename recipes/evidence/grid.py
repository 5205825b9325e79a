"""The experiments, declared: which arms are trained on what, with which seeds and learning rates."""

from dataclasses import dataclass

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

    def job(self, arm: str, seed: int, lr: float) -> Job:
        """One training of the experiment.

        >>> tiny = Experiment("tiny", "A try", "scratch", "resnet20", "digits", 500, 28, 2, ("plain",), "plain", (0.1,))
        >>> tiny.job("plain", 0, 0.1).epochs
        2
        """
        return Job(self.name, arm, seed, lr, self.network, self.data, self.images, self.size, self.epochs)


EXPERIMENTS: dict[str, Experiment] = {}
