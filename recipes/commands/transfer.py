"""What finetune and compare share: the pretrained network to start from, and the ways to train it."""

import argparse
import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from se_inject.errors import NoSiteError

from ..errors import SettingsError
from ..networks.any_model import Model
from ..networks.base import NAMES
from ..training.partial import Trained
from ..weights.described import describe
from ..weights.pretrained import Origin, load_pretrained

CONTROL = "plain"  # everything is trained, without gates
WAYS: dict[str, tuple[bool, Trained]] = {  # whether there are gates, and what is trained
    CONTROL: (False, "all"),
    "head": (False, "head"),
    "norm": (False, "norm"),
    "gates": (True, "gates"),
    "gates+norm": (True, "gates+norm"),
    "all": (True, "all"),
}


@dataclass(frozen=True)
class Pretrained:
    """The weights of the ``plain`` network in ``path``, to train for ``classes``; ``gated`` is the same with gates."""

    path: Path
    plain: Model
    gated: Model
    classes: Sequence[str]
    new_head: bool = False

    def load(self, seed: int) -> tuple[nn.Module, Origin]:
        """The plain network, its new head drawn by ``seed``, if it needs one.

        Raises ``CheckpointError`` for weights of another network, ``SettingsError`` if the head is not found.
        """
        torch.manual_seed(seed)
        network = self.plain.build()
        return network, load_pretrained(network, self.plain, self.path, self.classes, self.new_head)

    def begin(self, way: str, plain: nn.Module, seed: int) -> tuple[Model, nn.Module]:
        """A copy of ``plain`` for one of the ``WAYS``, with gates, drawn by ``seed``, if it has them.

        Raises ``SettingsError`` if there is no site for them, and the other errors of ``se_inject.apply``.
        """
        network = copy.deepcopy(plain)
        if not WAYS[way][0]:
            return self.plain, network
        torch.manual_seed(seed)
        try:
            return self.gated, self.gated.add_gates(network)
        except (NoSiteError, SettingsError) as error:
            raise SettingsError(f"{error}; --train head or norm trains without gates") from error

    @property
    def digest(self) -> str:
        """It tells these weights from others."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def add_pretrained_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ``pretrained_from_flags`` reads.

    >>> add_pretrained_flags(argparse.ArgumentParser())
    """
    parser.add_argument("--model", required=True, help=NAMES)
    parser.add_argument("--weights", type=Path, required=True, help="the plain network's pretrained weights")
    parser.add_argument(
        "--head", nargs="+", default=[], help="layers that make the logits, of a model that takes no number of classes"
    )
    parser.add_argument(
        "--new-head", action="store_true", help="start with a new head also where the weights fit the classes"
    )
    group = parser.add_argument_group("gates")
    group.add_argument("--reduction", type=int, default=16, help="(default: %(default)s)")
    group.add_argument("--gate", default="se", help="se, or one that timm knows, such as eca (default: %(default)s)")
    group.add_argument("--position", default="standard", help="standard, pre, post or identity (default: %(default)s)")
    group.add_argument(
        "--kinds",
        nargs="+",
        default=[],
        help="sites to gate: residual, inception, dense, plain, and noskip, blocks without an identity beside "
        "gated ones (default: the paper's)",
    )


def pretrained_from_flags(flags: argparse.Namespace, classes: Sequence[str]) -> Pretrained:
    """What the flags of ``add_pretrained_flags`` say, for data of these ``classes``."""
    file = describe(flags.weights)
    same = file is not None and list(file.classes) == list(classes) and not flags.new_head
    outputs = file.model.num_classes if file is not None and same else len(classes)  # it may have more than classes
    plain = Model(flags.model, "none", outputs, head=tuple(flags.head))
    gated = replace(
        plain,
        gates="identity",
        reduction=flags.reduction,
        gate=flags.gate,
        position=flags.position,
        kinds=tuple(flags.kinds),
    )
    return Pretrained(flags.weights, plain, gated, classes, flags.new_head)
