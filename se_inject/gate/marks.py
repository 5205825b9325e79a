"""Notes on gates: which of them ``se_inject.apply`` put in, and on which sites."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from .squeeze_excitation import Form, SqueezeExcitation


@dataclass(frozen=True)
class Injection:
    """What ``se_inject.apply`` put in a gate for: with it, a file can tell how to put it in again."""

    position: str
    gate: str  # the name that was asked for, "" for a function of the user's
    init: str
    memory: str
    kind: str
    channels: int
    reduction: int


def mark_injected(gate: nn.Module, injection: Injection) -> None:
    """Note on a gate that ``se_inject.apply`` put it in, so that ``remove`` takes it out."""
    vars(gate)["_se_injection"] = injection


def mark_result_kept(gate: nn.Module) -> None:
    """Note on a gate that autograd keeps its result for what follows, which leaves it as it is."""
    vars(gate)["_se_keeps_result"] = True


def injection_of(module: nn.Module | None) -> Injection | None:
    """What is noted on a gate that ``se_inject.apply`` put in, None for any other module.

    >>> injection_of(SqueezeExcitation(8))
    """
    return None if module is None else vars(module).get("_se_injection")


def mark_converted(gate: SqueezeExcitation) -> None:
    """Note on a gate the form that it has before ``se_inject.convert`` changes it for the first time."""
    vars(gate).setdefault("_se_form_before", gate.init)


def form_before(gate: SqueezeExcitation) -> Form:
    """The form of a gate without what ``se_inject.convert`` changed.

    >>> form_before(SqueezeExcitation(8))
    'identity'
    """
    form: Form = vars(gate).get("_se_form_before", gate.init)
    return form


def own_modules(module: nn.Module) -> Iterator[nn.Module]:
    """A module and all below, without the gates that ``se_inject.apply`` put in: they must not change what is found.

    >>> len(list(own_modules(nn.Sequential(nn.ReLU()))))
    2
    """
    if injection_of(module) is None:
        yield module
        for child in module.children():
            yield from own_modules(child)


def is_gate(module: nn.Module) -> bool:
    """Whether a module is a gate: an injected one of any kind, or a ``SqueezeExcitation``.

    >>> is_gate(SqueezeExcitation(8)), is_gate(nn.ReLU())
    (True, False)
    """
    return isinstance(module, SqueezeExcitation) or injection_of(module) is not None
