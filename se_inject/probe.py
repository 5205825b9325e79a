"""Channels that the graph does not tell, measured by running an example input through a copy of the model."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InvalidArgumentError
from .graphs.channels import Feature
from .graphs.traced import is_traced
from .sites.findings import Finding
from .sites.reasons import Reason, Refusal
from .surgery.gated_block import uninstall
from .surgery.plan import plan
from .tracing.randomness import no_randomness


class Probe(nn.Module):
    """Stands where a gate would and notes the shape that it gets."""

    shape: torch.Size | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, of any shape.

        >>> Probe()(torch.ones(2, 3)).shape
        torch.Size([2, 3])
        """
        self.shape = x.shape if isinstance(x, Tensor) else torch.Size()  # some children return None beside a value
        return x


def measure_channels(
    model: nn.Module, sites: Iterable[tuple[str, Finding]], example_inputs: Any
) -> list[Feature | Refusal]:
    """For each site, given by the path of what takes the gate, its channels, or the reason why they stay unknown.

    Raises ``InvalidArgumentError`` where the model fails on the example.
    """
    sites = list(sites)
    model = copied(model).eval()
    blocks: dict[str, list[tuple[Finding, Probe]]] = {}
    probes = []
    for path, finding in sites:
        probes.append(Probe())
        blocks.setdefault(path, []).append((finding, probes[-1]))
    for path, probed in blocks.items():
        block = model.get_submodule(path)
        if not is_traced(block):
            uninstall(block)
        plan(block, probed)()
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    with torch.no_grad(), no_randomness():
        try:
            model(*arguments)
        except Exception as error:  # whatever the model raises
            raise InvalidArgumentError(
                f"example_inputs: the model fails on them ({type(error).__name__}: {error}); pass what model(...) takes"
            ) from error
        shapes = [probe.shape for probe in probes]
        others = _shapes_of_a_larger_example(model, arguments, probes)
    triples = zip(shapes, others, (finding for _, finding in sites), strict=True)
    return [channels_of(shape, other, finding) for shape, other, finding in triples]


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model; of the activations that its modules keep, which cannot be copied, their numbers.

    Raises ``InvalidArgumentError``.

    >>> copied(nn.ReLU())
    ReLU()
    """
    kept = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    memo = {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf}
    try:
        return copy.deepcopy(model, memo)  # type: ignore[arg-type]
    except Exception as error:  # whatever the model holds
        raise InvalidArgumentError(
            f"example_inputs are run through a copy of the model, which cannot be copied ({error}): take away what"
            " stands in the way, or leave example_inputs out"
        ) from error


def _shapes_of_a_larger_example(
    model: nn.Module, arguments: tuple[Any, ...], probes: list[Probe]
) -> list[torch.Size | None]:
    """The shapes that probes get for twice the height and width: what grows is no channels."""
    for probe in probes:
        probe.shape = None
    larger = [torch.cat([x] * 2, -1) if isinstance(x, Tensor) and x.ndim > 2 else x for x in arguments]
    larger = [torch.cat([x] * 2, -2) if isinstance(x, Tensor) and x.ndim > 3 else x for x in larger]
    try:
        model(*larger)
    except Exception:  # the model takes one size only, which its first example showed
        return [None] * len(probes)
    return [probe.shape for probe in probes]


def channels_of(shape: tuple[int, ...] | None, other: tuple[int, ...] | None, finding: Finding) -> Feature | Refusal:
    """The channels of a value of some shape, and of another one for twice the height and width, if that is known.

    >>> str(channels_of((2, 8), None, Finding("residual", "add")))
    'it is not a feature map (N, C, *): its shape is (2, 8)'
    """
    if shape is None:
        return Refusal(Reason.CHANNELS_UNKNOWN, "example_inputs do not reach it")
    if len(shape) < 3:
        return Refusal(Reason.NO_FEATURE_MAP, tuple(shape))
    if finding.kind == "inception":
        return Feature(shape[1])  # the dimension of the concat
    widths = finding.widths
    # A dimension holds the channels if a layer of the branch makes that many, it does not grow with the example, and
    # the other could not. With more dimensions than the layers work on, as for frames, the second is not theirs.
    grows = [
        other is not None and len(other) == len(shape) and a != b for a, b in zip(shape, other or shape, strict=False)
    ]
    if other is not None and len(shape) == finding.rank + 2:
        if all(grows[2:]) and not grows[1]:
            return Feature(shape[1])
        if all(grows[1:-1]) and not grows[-1]:
            return Feature(shape[-1], last=True)
    fits_second = shape[1] in widths and len(shape) <= finding.rank + 2 and not grows[1]
    fits_last = shape[-1] in (widths if other is not None else finding.widths_of_linear) and not grows[-1]
    if fits_second and fits_last:
        return Refusal(
            Reason.CHANNELS_UNKNOWN, f"all of {tuple(shape)} fits; pass example_inputs of another spatial size"
        )
    if not (fits_second or fits_last):
        return Refusal(Reason.CHANNELS_UNKNOWN, f"shape {tuple(shape)}, its layers make {sorted(widths)}")
    return Feature(shape[1]) if fits_second else Feature(shape[-1], last=True)
