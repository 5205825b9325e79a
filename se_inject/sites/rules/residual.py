"""The residual rule: which adds are of a branch with convolutions and an identity, and where on the branch the gate is.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 3.3 and figure 3 (SE-ResNet).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from ...graphs.dataflow import Flow
from ...graphs.operations import ADD, CAT, argument, op_name
from ..reasons import Reason, Refusal
from .branch import before_scaling, is_slice, outputs
from .candidate import Candidate


def residual(flow: Flow, add: fx.Node) -> Candidate | None:
    """What the rule says of an add, asked once; None where no convolution is near."""
    known: dict[fx.Node, Candidate | None] = flow.known.setdefault("residual", {})
    if add not in known:
        known[add] = _residual(flow, add)
    return known[add]


@dataclass(frozen=True)
class _Add:
    """An add's operands, and the nodes that only one of them comes from."""

    flow: Flow
    node: fx.Node
    branch: fx.Node
    in_branch: int
    branch_convs: int
    identity: fx.Node
    in_identity: int
    identity_convs: int

    @property
    def is_handed_in(self) -> bool:
        """Whether the identity comes from elsewhere, as an argument of its own."""
        return not self.flow.ancestors[self.branch] & self.flow.ancestors[self.identity]


def _residual(flow: Flow, node: fx.Node) -> Candidate | None:
    left, right = argument(node, 0, "input"), argument(node, 1, "other")
    if not (flow.is_data(left) and flow.is_data(right)) or left is right:
        return None
    only_left = flow.ancestors[left] & ~flow.ancestors[right]
    only_right = flow.ancestors[right] & ~flow.ancestors[left]
    operands = (left, only_left, flow.conv_depth(only_left)), (right, only_right, flow.conv_depth(only_right))
    branch, identity = operands if operands[0][2] > operands[1][2] else operands[::-1]
    if not branch[2]:
        return None
    add = _Add(flow, node, *branch, *identity)
    reason = next((reason for is_so, reason in _REFUSALS if is_so(add)), None)
    if reason is not None:
        return Candidate("residual", node, reason=Refusal(reason))
    value, users = before_scaling(flow, add.branch, node, add.in_branch)
    if op_name(value) in ADD and (inner := residual(flow, value)) is not None and inner.reason is not None:
        return Candidate("residual", node, reason=Refusal(Reason.SUM_OF_PATHS))
    return Candidate("residual", node, value, users, add.in_branch, add.identity, handed_in=add.is_handed_in)


def _are_items_of_one_tuple(add: _Add) -> bool:
    return not outputs(add.flow, add.in_branch).isdisjoint(outputs(add.flow, add.in_identity))


def _aggregates(add: _Add) -> bool:
    """Whether one of several values that a block is given, or joins, is added to what it makes of all of them."""
    is_item = any(source.op == "placeholder" for source in outputs(add.flow, add.in_identity))
    joins = [n for n in add.flow.members(add.in_branch) if op_name(n) in CAT]
    joins_a_list = any(isinstance(argument(n, 0, "tensors"), fx.Node) for n in joins)
    return (is_item or joins_a_list) and not _is_one_of_several_outputs(add)


def _is_one_of_several_outputs(add: _Add) -> bool:
    """Whether a block returns a sum beside other values, as dual path networks do, which take such pairs."""
    returned = add.flow.nodes[-1].args[0]
    return isinstance(returned, list | tuple) and len(returned) > 1 and add.node in returned


def _has_two_branches(add: _Add) -> bool:
    return add.branch_convs == add.identity_convs or add.identity_convs > 1


def _is_normalized_only(add: _Add) -> bool:
    projects = add.identity_convs or add.in_identity & add.flow.linear_mask
    return bool(add.in_identity & add.flow.parameter_mask) and not projects


def _merges_scales(add: _Add) -> bool:
    upsampling = add.flow.upsampling_mask
    is_running_sum = add.in_identity & add.flow.add_mask and add.in_identity & upsampling
    return bool(is_running_sum) or bool(add.in_branch & upsampling) != bool(add.in_identity & upsampling)


def _sums_outputs(add: _Add) -> bool:
    is_sum = add.in_identity & add.flow.add_mask
    return bool(add.identity_convs) and bool(is_sum or _bypasses(add.flow, add.in_branch, add.in_identity))


def _bypasses(flow: Flow, in_branch: int, in_identity: int) -> bool:
    """Whether a branch takes a value that is older than the one which is projected for the identity."""
    older = 0
    for value in _entries(flow, in_identity):
        older |= flow.ancestors[value] & ~flow.bit[value]
    return any(flow.bit[value] & older for value in _entries(flow, in_branch))


def _entries(flow: Flow, region: int) -> set[fx.Node]:
    """The values from outside that a region takes."""
    sources = {source for node in flow.members(region) for source in node.all_input_nodes}
    return {source for source in sources if flow.is_data(source) and not flow.bit[source] & region}


_REFUSALS: tuple[tuple[Callable[[_Add], bool], Reason], ...] = (
    (_are_items_of_one_tuple, Reason.ITEMS_OF_ONE_TUPLE),
    (_aggregates, Reason.AGGREGATION),
    (lambda add: add.is_handed_in and add.identity.op != "placeholder", Reason.NO_COMMON_ANCESTOR),
    (_has_two_branches, Reason.TWO_BRANCHES),
    (lambda add: bool(add.in_identity & add.flow.split_mask), Reason.SPLIT_IDENTITY),
    (lambda add: bool(add.in_identity & add.flow.nonlinear_mask), Reason.NO_IDENTITY),
    (_is_normalized_only, Reason.NORMALIZED_IDENTITY),
    (_merges_scales, Reason.TWO_SCALES),
    (_sums_outputs, Reason.SUM_OF_OUTPUTS),
    (lambda add: bool(add.in_branch & add.flow.attention_mask), Reason.ATTENTION),
)


def feeds_a_sum(flow: Flow, add: fx.Node) -> bool:
    """Whether the only use of an add is a sum of the outputs of several layers."""
    users = [user for user in add.users if flow.is_data(user)]
    outer = residual(flow, users[0]) if len(users) == 1 and op_name(users[0]) in ADD else None
    if outer is None:
        return False
    is_sum = outer.reason is not None and outer.reason.reason is Reason.SUM_OF_OUTPUTS
    return is_sum or (feeds_a_sum(flow, users[0]) and outer.value is None)


def in_returned_concat(candidate: Candidate) -> Candidate:
    """A sum beside other parts of a returned concat: a partial residual (ReXNet, DPN), or one path of a cell."""
    operands = [argument(candidate.join, 0, "input"), argument(candidate.join, 1, "other")]
    return candidate if any(map(is_slice, operands)) else candidate.without(Reason.PART_OF_CONCAT)
