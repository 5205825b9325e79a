"""The experiments, declared: which arms are trained on what, with which seeds and learning rates.

Together they take two cores about twelve hours, almost half of them for what is trained from scratch.
"""

from dataclasses import dataclass

from .arms import ARMS
from .records import Job
from .tasks import FEWSHOT, IMAGES

FINALISTS = 2  # learning rates of an arm that all seeds are trained with


@dataclass(frozen=True)
class Experiment:
    """Arms beside a control of equal budget; ``question`` is the section of the page that it is for.

    All ``rates`` are tried with the first seed, the ``FINALISTS`` with the lowest held-out errors with all seeds, and
    the one with the lowest mean is the arm's.
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
    def setting(self) -> str:
        """Where the records of its trainings are."""
        return self.job(self.control, 0, self.rates[0]).setting

    def controls_of(self, arm: str) -> tuple[str, ...]:
        """What an arm is compared with: those that it names, if the experiment has them, or the control.

        >>> EXPERIMENTS["adapters-mobilenet_v2-fashion"].controls_of("frozen gates")
        ('head', 'norm', 'norm, fixed statistics')
        """
        return tuple(other for other in ARMS[arm].against if other in self.arms) or (self.control,)

    def control_of(self, arm: str) -> str:
        """The first of these."""
        return self.controls_of(arm)[0]

    @property
    def planned(self) -> int:
        """The number of trainings."""
        return len(self.compared) * (len(self.rates) + min(FINALISTS, len(self.rates)) * (self.seeds - 1))

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
        return Job(arm, seed, lr, self.network, self.data, self.images, self.size, self.epochs)


_NETWORKS = {
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "resnet20": "ResNet-20",
    "inception": "A small BN-Inception",
}
_RATES = {
    "mobilenet_v2": (3e-4, 1e-3, 3e-3, 1e-2),
    "efficientnet_lite0": (1e-3, 3e-3, 1e-2, 3e-2),  # with 3e-4, heads learn next to nothing in four epochs
}


def _inserted(network: str, images: int, epochs: int, arms: tuple[str, ...], seeds: int = 3) -> Experiment:
    return Experiment(
        name=f"inserted-{network}-{images}",
        title=f"{_NETWORKS[network]}, {images:,} images, {epochs} epochs",
        question="inserted",
        network=network,
        data="fashion",
        images=images,
        size=64,
        epochs=epochs,
        arms=arms,
        control="plain",
        rates=_RATES[network][:3],
        seeds=seeds,
    )


def _adapters(
    network: str, question: str, data: str, title: str, arms: tuple[str, ...], images: int = 2000, seeds: int = 3
) -> Experiment:
    """The first arm is the control."""
    return Experiment(
        name=f"{question}-{network}-{data}",
        title=f"{_NETWORKS[network]}, {title}",
        question=question,
        network=network,
        data=data,
        images=images,
        size=64,
        epochs=4,
        arms=arms,
        control=arms[0],
        rates=_RATES[network],
        seeds=seeds,
    )


def _scratch(network: str, arms: tuple[str, ...]) -> Experiment:
    return Experiment(
        name=f"scratch-{network}",
        title=f"{_NETWORKS[network]}, all of Fashion-MNIST, 30 epochs",
        question="scratch",
        network=network,
        data="fashion",
        images=0,
        size=28,
        epochs=30,
        arms=arms,
        control="scratch",
        rates=(0.3,),
    )


def _fewshot(data: str) -> Experiment:
    about = FEWSHOT[data]
    return Experiment(
        name=data,
        title=f"MobileNetV2, few-shot tasks of {about.tested}, meta-trained on those of {about.trained}",
        question="domains",
        network="mobilenet_v2",
        data=data,
        images=200 * IMAGES,
        size=32,
        epochs=1,
        arms=("head", "norm", "frozen gates", "contextual"),
        control="head",
        rates=(1e-3, 3e-3, 1e-2, 3e-2),
    )


_FROZEN, _CORRUPTED = "2,000 images, frozen", "five corruptions mixed, by image"
_INSERTED = ("plain", "skip", "all", "depthwise", "all, rate x0.3", "all, rate x10")
_ADAPTERS = (
    *("plain", "head", "norm", "norm, fixed statistics", "frozen gates, skip", "frozen gates"),
    *("frozen gates, depthwise", "gates+norm", "lora"),
)
_FEW_ADAPTERS = ("head", "norm", "frozen gates")
_DOMAINS = ("plain", "all", "head", "norm", "frozen gates", "gates+norm")
_ABLATED = (
    *("all", "plain", "skip", "early", "late", "depthwise", "r4", "r64", "standard", "pre", "max", "eca"),
    *("all, rate x0.3", "all, rate x10", "all, warm-up 0.5"),
)

_ALL = [
    _inserted("mobilenet_v2", 500, 16, ("plain", "skip", "all")),
    _inserted("mobilenet_v2", 2000, 4, _INSERTED, seeds=5),
    _inserted("mobilenet_v2", 8000, 4, ("plain", "all")),
    _inserted("efficientnet_lite0", 2000, 4, ("plain", "skip", "all")),
    _adapters("mobilenet_v2", "adapters", "fashion", _FROZEN, _ADAPTERS, seeds=5),
    _adapters("efficientnet_lite0", "adapters", "fashion", _FROZEN, ("plain", *_FEW_ADAPTERS, "gates+norm")),
    _adapters("mobilenet_v2", "domains", "fashion-corrupted", _CORRUPTED, _DOMAINS, seeds=5),
    _adapters("efficientnet_lite0", "domains", "fashion-corrupted", _CORRUPTED, _FEW_ADAPTERS),
    _adapters("mobilenet_v2", "domains", "three-datasets", "three data sets under one head", _DOMAINS, 3000),
    *(
        _adapters("mobilenet_v2", "domains", data, f"{data} alone", ("plain", "norm", "frozen gates"), 1000)
        for data in ("fashion", "mnist", "digits")
    ),
    *(_fewshot(data) for data in FEWSHOT),
    _scratch("resnet20", ("scratch", "scratch, wider", "scratch, SE")),
    _scratch("inception", ("scratch", "scratch, SE")),
    Experiment(
        name="ablations",
        title="MobileNetV2, 2,000 images, 4 epochs",
        question="ablations",
        network="mobilenet_v2",
        data="fashion",
        images=2000,
        size=64,
        epochs=4,
        arms=_ABLATED,
        control="all",
        rates=_RATES["mobilenet_v2"][:3],
        seeds=5,
    ),
]
EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}
