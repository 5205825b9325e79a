"""Experiments and records that were never trained, for tests of what is made of them."""

from recipes.evidence.arms import Arm
from recipes.evidence.grid import Experiment
from recipes.evidence.records import Record

ARMS = {
    "plain": Arm("everything"),
    "wide": Arm("everything, wider"),
    "gates": Arm("everything, with gates", place="all"),
    "late": Arm("everything, with gates in the last stage, which is a long title", place="all"),
    "wide gates": Arm("everything, wider, with gates", place="all", against=("wide",)),
}
PARAMETERS = {"plain": 1000, "wide": 1200, "gates": 1100, "late": 1050, "wide gates": 1300}


def experiment(name="tiny", **changes):
    """Of three seeds and two rates, its control "plain"."""
    given = {
        "title": f"An experiment: {name}",
        "question": "inserted",
        "network": "resnet20",
        "data": "digits",
        "images": 500,
        "size": 28,
        "epochs": 2,
        "arms": ("plain", "gates"),
        "control": "plain",
        "rates": (0.1, 0.2),
    }
    return Experiment(name, **(given | changes))


def record(of, arm, seed, lr, error, **changes):
    given = {
        "held_out": error + lr,
        "loss": 0.5,
        "ece": error / 4,
        "corrupted": {"noise": 2 * error, "blur": 3 * error},
        "parameters": PARAMETERS[arm],
        "stored": 4 * PARAMETERS[arm],
        "step": 0.1 if arm == "plain" else 0.11,
        "seconds": 900.0,
        "device": "a CPU",
        "torch": "2.6.0",
    }
    return Record(of.job(arm, seed, lr), top1=error, **(given | changes))


def trained(of, **errors):
    """The records of an experiment whose arms have these errors by seed at the lower rate, which is the better one."""
    return [
        record(of, arm, seed, lr, error)
        for arm, by_seed in errors.items()
        for seed, error in enumerate(by_seed)
        for lr in of.rates
    ]
