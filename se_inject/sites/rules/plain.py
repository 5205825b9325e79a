"""Plain networks (VGG and its like): the activations that follow a convolution and its norm."""

from collections.abc import Iterator

from torch import fx, nn

from ...graphs.dataflow import Flow
from ...graphs.layers import is_conv
from ...graphs.operations import layers
from ..findings import Finding
from .candidate import Candidate

_NORMS = layers("norm")


def plain_candidates(flow: Flow) -> Iterator[Candidate]:
    """The activations in a forward of its own, each the only use of a norm or convolution."""
    for node in flow.nodes:
        module = flow.module(node)
        if flow.convs(node) == 1 and (module is None or is_conv(module)):
            value = _follow(flow, node)
            if value is not None:
                yield Candidate("plain", value, value, tuple(filter(flow.is_data, value.users)), flow.bit[node])


def _follow(flow: Flow, conv: fx.Node) -> fx.Node | None:
    node = conv
    while len(users := list(filter(flow.is_data, node.users))) == 1:
        [node] = users
        module = flow.module(node)
        if flow.is_activation(node) or (module is not None and _normalizes_and_activates(module)):
            return node if node.users else None
        if not isinstance(module, _NORMS):
            return None
    return None


def activations(sequential: nn.Module) -> Iterator[Finding]:
    """The activations among the children of a Sequential; their gates go on their output, not into the sequence."""
    conv: nn.Module | None = None
    source = ""
    for name, child in sequential.named_children():
        if is_conv(child):
            conv, source = child, name
        elif conv is not None and (_is_activation(child) or _normalizes_and_activates(child)):
            channels = getattr(conv, "out_channels", None)
            rank = len(getattr(conv, "kernel_size", (1, 1)))
            yield Finding("plain", name, None, gate="se", channels=channels, producer=name, source=source, rank=rank)
            conv = None
        elif not isinstance(child, _NORMS):
            conv = None


def _is_activation(module: nn.Module) -> bool:
    return (
        not module._modules
        and not isinstance(module, nn.GLU)
        and "activation" in type(module).__module__.rpartition(".")[2]
    )


def _normalizes_and_activates(module: nn.Module) -> bool:
    """A layer such as timm's BatchNormAct2d."""
    return isinstance(module, _NORMS) and any(map(_is_activation, module.modules()))
