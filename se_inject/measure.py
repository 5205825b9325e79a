"""Channels that the graph does not tell, measured by running an example input through a copy of the model."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from .analysis import Analysis, Finding
from .graph_module import ungated_graph
from .placing import plan
from .randomness import no_randomness
from .rewrite import GatedBlock, uninstall


class Probe(nn.Module):
    """Stands where a gate would and notes the shape that it gets."""

    shape: torch.Size | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, of any shape.

        >>> Probe()(torch.ones(2, 3)).shape
        torch.Size([2, 3])
        """
        self.shape = x.shape
        return x


def measure_channels(
    model: nn.Module, sites: Iterable[tuple[str, Analysis, Finding]], example_inputs: Any
) -> list[int | str]:
    """For each site, given by its block's path, the number of channels, or the reason why it stays unknown.

    Errors of the model on the example input are the caller's to see.
    """
    sites = list(sites)
    model = copy.deepcopy(model).eval()
    blocks: dict[str, list[tuple[Analysis, Finding, Probe]]] = {}
    probes = []
    for path, analysis, finding in sites:
        probes.append(Probe())
        blocks.setdefault(path, []).append((analysis, finding, probes[-1]))
    for path, probed in blocks.items():
        block = model.get_submodule(path)
        if isinstance(block, fx.GraphModule):
            block.graph = ungated_graph(block)
        elif isinstance(block, GatedBlock):
            uninstall(block)
        plan(block, probed[0][0], [(finding, probe) for _, finding, probe in probed])()
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    with torch.no_grad(), no_randomness():
        model(*arguments)
    return [_channels(probe.shape, finding.widths) for probe, (_, _, finding) in zip(probes, sites, strict=True)]


def _channels(shape: torch.Size | None, widths: frozenset[int]) -> int | str:
    if shape is None:
        return "its channels are unknown: example_inputs do not reach it"
    if len(shape) < 3:
        return f"it is not a feature map (N, C, *): its shape is {tuple(shape)}"
    # The second dimension holds the channels if a layer of the branch makes that many, unless it could be the last one.
    if shape[1] not in widths or (shape[-1] in widths and shape[-1] != shape[1]):
        return f"its channels are unknown: shape {tuple(shape)}, convolutions make {sorted(widths)}"
    if shape[-1] == shape[1]:
        return f"its channels are unknown: all of {tuple(shape)} fits; pass example_inputs of another spatial size"
    return shape[1]
