"""Making gates: the paper's, one of timm's by its name, or any module of the user's that keeps its input's shape.

A gate that does not start as the identity is blended in, so that the network's outputs stay what they are.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentTypeError, InvalidArgumentError, first_line
from ..tracing.randomness import no_randomness
from .squeeze_excitation import Form, Memory, SqueezeExcitation, check_memory, squeezed_channels

GateFactory = Callable[[int], nn.Module] | Callable[[int, int], nn.Module]
Gate = str | GateFactory

_PROBE_SIZE = {1: 32, 2: 16, 3: 8}  # positions along each dimension of the feature that a new gate is tried on


class Blend(nn.Module):
    """``x + alpha * (gate(x) - x)`` with a learnable ``alpha``; with 0, it is the identity.

    Input and output are ``(N, C, *)``, in the same memory format. With ``alpha`` 0, the output equals the input to the
    bit, but for the sign of zeros, while what ``gate`` returns is finite; with 1, if ``gate`` is the identity.

    >>> blend = Blend(nn.Sigmoid())
    >>> x = torch.randn(2, 8, 4, 4)
    >>> torch.equal(blend(x), x)
    True
    """

    def __init__(
        self,
        gate: nn.Module,
        alpha: float = 0.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha, device=device, dtype=dtype))
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Blend the gate's output into ``x`` of shape ``(N, C, *)``.

        >>> Blend(nn.ReLU())(torch.ones(1, 8, 5)).shape
        torch.Size([1, 8, 5])
        """
        # Written as a difference because -0.0 - 0.0 is -0.0: with gates that scale, even the sign of zeros is kept.
        gated: Tensor = self.gate(x)
        return x - self.alpha.to(x.dtype) * (x - gated.to(x.dtype))


class GateMaker:
    """Makes one gate a site, checked. Raises ``ArgumentTypeError`` and ``InvalidArgumentError``.

    >>> GateMaker("se", "identity").make(64, 16, like=None, rank=2)
    SqueezeExcitation(
      64, init=identity
      (fc1): Conv2d(64, 8, kernel_size=(1, 1), stride=(1, 1))
      (fc2): Conv2d(8, 64, kernel_size=(1, 1), stride=(1, 1))
    )
    """

    def __init__(self, gate: Gate, init: Form, memory: Memory = "keep", *, taken: Iterable[nn.Module] = ()) -> None:
        if not (isinstance(gate, str) or callable(gate)) or isinstance(gate, nn.Module):
            raise ArgumentTypeError(
                f"gate must be a name or a function that returns a module for a number of channels, got {_short(gate)};"
                " for example gate=lambda channels: MyGate(channels)"
            )
        check_memory(memory)
        self._is_own = gate == "se"
        if memory != "keep" and not self._is_own:
            raise InvalidArgumentError(f'memory={memory!r} is for gate="se" only: leave it out for other gates')
        self._memory: Memory = memory
        self._factory = gate if callable(gate) else _of_timm(gate)
        self._what = repr(gate) if isinstance(gate, str) else getattr(gate, "__name__", _short(gate))
        self._takes_width = not isinstance(gate, str) and _required_arguments(gate) > 1
        self._init: Form = init
        self._made = set(taken)

    @property
    def uses_reduction(self) -> bool:
        """Whether a gate's width is for us to decide."""
        return self._is_own or self._takes_width

    def make(self, channels: int, reduction: int, *, like: Tensor | None, rank: int) -> nn.Module:
        """A new gate for features of that many channels and ``rank`` spatial dimensions.

        Its device and dtype are those of ``like``.
        """
        options: dict[str, Any] = {} if like is None else {"device": like.device, "dtype": like.dtype}
        if self._is_own:
            return SqueezeExcitation(channels, reduction, init=self._init, memory=self._memory, **options)
        arguments = (channels, squeezed_channels(channels, int(reduction))) if self._takes_width else (channels,)
        try:
            gate = self._factory(*arguments)  # type: ignore[call-arg, arg-type]
        except Exception as error:  # the user's code
            raise self._refusal(f"cannot be made for {channels} channels: {first_line(error)}") from error
        if not isinstance(gate, nn.Module):
            raise ArgumentTypeError(f"gate {self._what} returned {_short(gate)} for {channels} channels, not a module")
        if not self._made.isdisjoint(gate.modules()):
            raise self._refusal("returned a module that is in use already: return a new module for each site")
        self._made.update(gate.modules())
        starts_as_identity = self._try(gate, channels, rank)
        gate.to(**options)
        if self._init == "standard" or (isinstance(gate, SqueezeExcitation) and gate.init == "identity"):
            return gate
        return Blend(gate, 1.0 if starts_as_identity else 0.0, **options)

    def _try(self, gate: nn.Module, channels: int, rank: int) -> bool:
        """Try copies of a gate in both modes, as one that does not fit would fail long after ``apply``.

        The result is whether its output is its input. Blended in with a weight of 0, such a gate would never learn.
        """
        tensor = _floating_point(gate)
        like: dict[str, Any] = {} if tensor is None else {"device": tensor.device, "dtype": tensor.dtype}
        shape = (2, channels, *[_PROBE_SIZE.get(rank, 4)] * rank)
        x = torch.linspace(-30, 30, math.prod(shape), **like).view(shape)
        before, outputs = x.clone(), []
        try:
            with torch.no_grad(), no_randomness():
                outputs = [copy.deepcopy(gate).train(mode)(x) for mode in (False, True)]
        except Exception as error:  # the user's code
            raise self._refusal(f"fails on a feature of shape {shape}: {first_line(error)}") from error
        for y in outputs:
            if not isinstance(y, Tensor) or y.shape != x.shape:
                got = tuple(y.shape) if isinstance(y, Tensor) else _short(y)
                raise self._refusal(f"must keep the shape of its input, but returned {got} for {shape}")
        if x.is_meta:
            return False
        if not torch.equal(x, before):
            raise self._refusal("changes its input in place; return a new tensor instead")
        return all(torch.equal(x, y) for y in outputs)

    def _refusal(self, what: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"gate {self._what} {what}")


def _of_timm(name: str) -> Callable[[int], nn.Module]:
    def make(channels: int) -> nn.Module:
        try:
            from timm.layers import create_attn  # an extra: the core does without timm
        except ImportError as error:
            raise InvalidArgumentError(
                f"gate={name!r} is a gate of timm: pip install timm, or pass a function"
            ) from error
        gate: nn.Module = create_attn(name, channels)
        return gate

    return make


def _required_arguments(factory: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.default is p.empty and p.kind in positional for p in parameters)


def _floating_point(module: nn.Module) -> Tensor | None:
    return next((p for p in module.parameters() if p.is_floating_point()), None)


def _short(value: object) -> str:
    text = repr(value).splitlines()[0]
    return text if len(text) <= 60 else f"{text[:57]}..."
