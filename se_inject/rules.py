"""The site rules: which adds and concats of a graph are the paper's, and which value of theirs takes the gate.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 3.3 and figures 2 (SE-Inception) and 3 (SE-ResNet).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import fx, nn

from .flow import ADD, CAT, DIV, MUL, Flow, argument, is_conv, is_in_place, op_name

Kind = Literal["residual", "inception"]
ALREADY_GATED = "already gated"


@dataclass(frozen=True)
class Candidate:
    """An add or a returned concat: the value to gate and the uses of it to redirect, or the reason why not."""

    kind: Kind
    join: fx.Node
    value: fx.Node | None = None
    users: tuple[fx.Node, ...] = ()
    region: int = 0  # the branch, or all paths of the concat, as a mask of its Flow
    reason: str | None = None


def joins(flow: Flow, is_returned: Callable[[fx.Node], bool]) -> Iterator[Candidate]:
    """Every add and every returned concat that could be the paper's, in the order of execution."""
    placed: set[tuple[fx.Node | None, tuple[fx.Node, ...]]] = set()
    for node in flow.nodes:
        name = op_name(node)
        candidate = None
        if name in ADD:
            candidate = _residual(flow, node)
            if candidate is not None and any(op_name(user) in CAT and is_returned(user) for user in node.users):
                candidate = Candidate(
                    "residual", node, reason="ambiguous add: it is a part of a concat that the block returns"
                )
        elif name in CAT and is_returned(node):
            candidate = _inception(flow, node)
        if candidate is None:
            continue
        placement = (candidate.value, candidate.users)
        if candidate.value is not None and _is_overwritten(flow, candidate):
            candidate = Candidate(candidate.kind, node, reason="its value is changed in place and also used elsewhere")
        elif candidate.value is not None and placement in placed:
            candidate = Candidate(candidate.kind, node, reason="its branch has its gate for another add")
        placed.add(placement)
        yield candidate


def _residual(flow: Flow, add: fx.Node) -> Candidate | None:
    """An add of a branch with convolutions and an identity, bare or projected."""
    left, right = argument(add, 0, "input"), argument(add, 1, "other")
    if not (flow.is_data(left) and flow.is_data(right)) or left is right:
        return None
    only_left = flow.ancestors[left] & ~flow.ancestors[right]
    only_right = flow.ancestors[right] & ~flow.ancestors[left]
    convs_left, convs_right = flow.conv_depth(only_left), flow.conv_depth(only_right)
    if not convs_left and not convs_right:
        return None

    def refuse(reason: str) -> Candidate:
        return Candidate("residual", add, reason=reason)

    if not flow.ancestors[left] & flow.ancestors[right]:
        return refuse("the operands of its add have no common ancestor")
    if convs_left == convs_right or min(convs_left, convs_right) > 1:
        return refuse("ambiguous add: both operands have convolutions of their own")
    if convs_left > convs_right:
        branch, in_branch, in_identity, identity_convs = left, only_left, only_right, convs_right
    else:
        branch, in_branch, in_identity, identity_convs = right, only_right, only_left, convs_left
    if in_identity & flow.split_mask:
        return refuse("ambiguous add: its identity is a part of a split value")
    if in_identity & flow.nonlinear_mask:
        return refuse("ambiguous add: its identity is neither a common input nor a linear projection of it")
    if in_identity & flow.parameter_mask and not identity_convs:
        return refuse("ambiguous add: its identity is normalized, but not projected")
    if in_branch & flow.upsampling_mask and not in_identity & flow.upsampling_mask:
        return refuse("ambiguous add: one operand is upsampled, as where feature maps of two scales are merged")
    if in_branch & flow.attention_mask:
        return refuse("ambiguous add: its branch mixes positions by attention")
    value, user = _before_scaling(flow, branch, add, in_branch)
    if op_name(value) in ADD and (inner := _residual(flow, value)) is not None and inner.reason is not None:
        return refuse("ambiguous add: its branch is a sum of paths that are alike")
    return Candidate("residual", add, value, (user,), in_branch)


def _before_scaling(flow: Flow, value: fx.Node, user: fx.Node, region: int) -> tuple[fx.Node, fx.Node]:
    """Walk up a branch past constant scaling, layer scale, dropout and stochastic depth."""
    while True:
        sources = [node for node in value.all_input_nodes if flow.is_data(node)]
        if len(sources) != 1 or not flow.bit[sources[0]] & region or not _only_scales(flow, value):
            return value, user
        value, user = sources[0], value


def _only_scales(flow: Flow, node: fx.Node) -> bool:
    module = flow.module(node)
    if module is not None:
        # timm's ScaledStdConv2d is a convolution, whatever its name says.
        is_layer = module._modules or is_conv(module) or isinstance(module, nn.Linear)
        return (
            not is_layer and re.search("drop|scale|identity|stochasticdepth", type(module).__name__, re.I) is not None
        )
    name = op_name(node)
    if name in MUL | DIV:
        x, factor = argument(node, 0, "input"), argument(node, 1, "other")
        return flow.is_data(x) != flow.is_data(factor) and (name in MUL or flow.is_data(x))
    return "dropout" in name or name in {"drop_path", "stochastic_depth"}


def _inception(flow: Flow, cat: fx.Node) -> Candidate | None:
    """A concat over channels of two or more paths from one input, at least two of them with convolutions."""
    paths = argument(cat, 0, "tensors")
    if not isinstance(paths, list | tuple) or len(paths) < 2 or not all(map(flow.is_data, paths)):
        return None
    if not _is_over_channels(flow, cat):
        return None
    common = flow.ancestors[paths[0]]
    union = 0
    for path in paths:
        common &= flow.ancestors[path]
        union |= flow.ancestors[path]
    own = [flow.ancestors[path] & ~common for path in paths]
    with_convs = sum(1 for mask in own if mask & flow.conv_mask)
    if not with_convs:
        return None

    def refuse(reason: str) -> Candidate:
        return Candidate("inception", cat, reason=reason)

    if not common:
        return refuse("the paths of its concat come from different inputs")
    if any(flow.bit[path] & flow.ancestors[other] for path in paths for other in paths if other is not path) or any(
        flow.bit[path] & common for path in paths
    ):
        return refuse("dense concat: it contains the input of one of its own paths")
    if any(mask & flow.split_mask for mask in own):
        return refuse("its concat puts the parts of a split value together again")
    if with_convs < 2:
        return refuse("fewer than two paths of its concat have convolutions")
    return Candidate("inception", cat, cat, tuple(cat.users), union & ~common)


def _is_over_channels(flow: Flow, cat: fx.Node) -> bool:
    dim = argument(cat, 1, "dim", "axis", default=0)
    if not isinstance(dim, int) or dim >= 0:
        return bool(dim == 1)
    # A negative dim counts from the end, so the rank matters; the convolutions on the paths know it.
    convs = [
        m for n in flow.members(flow.ancestors[cat]) if (child := flow.module(n)) is not None for m in child.modules()
    ]
    ranks = {len(m.kernel_size) + 2 for m in convs if isinstance(m, nn.modules.conv._ConvNd)}
    return {rank + dim for rank in ranks} == {1}


def _is_overwritten(flow: Flow, candidate: Candidate) -> bool:
    """Whether a redirected use changes the value in place while the same memory is used elsewhere.

    Or whether a later use changes it: the gate needs the value again in the backward pass.
    """
    value = candidate.value
    if value is None:
        return False
    writers = [user for user in value.users if is_in_place(user, flow.owner) and user.args and user.args[0] is value]
    first = min(flow.bit[user] for user in candidate.users)
    if any(flow.bit[writer] > first for writer in writers if writer not in candidate.users):
        return True
    if not any(writer in candidate.users for writer in writers):
        return False
    while True:
        if len(value.users) > 1:
            return True
        if not _may_alias(flow, value):
            return False
        value = next(node for node in value.all_input_nodes if flow.is_data(node))


_VIEWS = frozenset(
    "getitem view reshape flatten unflatten squeeze unsqueeze permute transpose contiguous to float expand detach"
    " movedim swapaxes t view_as type_as".split()
)


def _may_alias(flow: Flow, node: fx.Node) -> bool:
    """Whether a node's output can share memory with its input."""
    module = flow.module(node)
    if module is None:
        return op_name(node) in _VIEWS or is_in_place(node, flow.owner)
    return isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd) or is_in_place(node, flow.owner)


class Gating(Protocol):
    """What the rules need to know about a child from the inside."""

    def has_own_gate(self, module: nn.Module) -> bool:
        """Whether it is a channel gate or brings one."""

    def squeezes(self, module: nn.Module) -> bool:
        """Whether it averages over all positions."""


def has_gate(flow: Flow, region: int, children: Gating) -> bool:
    """Whether a region holds a channel gate: a child that is one, or a value times a function of its average."""
    for node in flow.members(region):
        module = flow.module(node)
        if module is not None and children.has_own_gate(module):
            return True
        if op_name(node) in MUL and _is_gating(flow, node, children):
            return True
    return False


def _is_gating(flow: Flow, mul: fx.Node, children: Gating) -> bool:
    x, scale = argument(mul, 0, "input"), argument(mul, 1, "other")
    if not (flow.is_data(x) and flow.is_data(scale)) or not flow.ancestors[x] & flow.ancestors[scale]:
        return False
    on_one_side = flow.members(flow.ancestors[x] ^ flow.ancestors[scale])
    return any(
        flow.squeezes(node) or ((module := flow.module(node)) is not None and children.squeezes(module))
        for node in on_one_side
    )
