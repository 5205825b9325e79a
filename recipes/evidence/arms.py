"""The arms of the experiments: which gates a network gets, and what is trained."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One way of training; ``title`` is its name in tables."""

    title: str
    gates: bool


ARMS: dict[str, Arm] = {}
