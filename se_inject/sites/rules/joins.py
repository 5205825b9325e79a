"""Every add and concat of a graph put to its rule, in the order of execution."""

from collections.abc import Callable, Collection, Iterator

from torch import fx

from ...graphs.dataflow import Flow
from ...graphs.mutation import is_overwritten
from ...graphs.operations import ADD, CAT, op_name
from ..reasons import Reason
from ..site import Kind, Position
from .branch import before_scaling
from .candidate import Candidate
from .concat import concat, flat_stages, observed
from .positions import positioned
from .residual import feeds_a_sum, in_returned_concat, residual


def joins(
    flow: Flow, is_returned: Callable[[fx.Node], bool], kinds: Collection[Kind], position: Position
) -> Iterator[Candidate]:
    """Every add and every returned concat that could be the paper's."""
    placed: set[tuple[fx.Node | None, tuple[fx.Node, ...]]] = set()
    candidates = list(_candidates(flow, is_returned, kinds))
    branches = [c.region for c in candidates if c.kind == "residual" and c.value is not None and not c.handed_in]
    for candidate in candidates:
        if candidate.handed_in and any(flow.bit[candidate.join] & branch for branch in branches):
            candidate = candidate.without(Reason.NO_COMMON_ANCESTOR)  # it shifts a branch that has its own gate
        if candidate.kind == "residual":
            candidate = positioned(flow, candidate, position)
        elif position != "standard" and candidate.value is not None:
            candidate = candidate.without(Reason.OTHER_POSITION, f'"{position}"')
        if candidate.value is not None:
            placement = (candidate.value, candidate.users)
            if _is_inside_child(candidate):
                candidate = candidate.without(Reason.INSIDE_CHILD)
            elif is_overwritten(flow, *placement):
                candidate = candidate.without(Reason.CHANGED_IN_PLACE)
            elif placement in placed:
                candidate = candidate.without(Reason.SAME_BRANCH)
            placed.add(placement)
        yield candidate


def _is_inside_child(candidate: Candidate) -> bool:
    value = candidate.value
    is_inside = value is not None and "inner" in value.meta and value.op != "call_module"
    return is_inside or any("inner" in user.meta for user in candidate.users)


def _candidates(flow: Flow, is_returned: Callable[[fx.Node], bool], kinds: Collection[Kind]) -> Iterator[Candidate]:
    for node in flow.nodes:
        if "inner" in node.meta:
            continue
        if op_name(node) in ADD:
            candidate = residual(flow, node)
            if candidate is not None and candidate.value is not None and feeds_a_sum(flow, node):
                candidate = candidate.without(Reason.SUM_OF_OUTPUTS)
            if candidate is not None and any(op_name(user) in CAT and is_returned(user) for user in node.users):
                candidate = in_returned_concat(candidate)
            if candidate is not None:
                yield candidate
        elif op_name(node) in CAT and (is_returned(observed(flow, node)) or node in flat_stages(flow)):
            yield from concat(flow, node, kinds)


def block_output(flow: Flow) -> Candidate | None:
    """What a block without an identity returns: the place of the gate that its fellows with one have."""
    returned = flow.nodes[-1].args[0]
    if not flow.is_data(returned) or not flow.ancestors[returned] & flow.conv_mask:
        return None
    value, users = before_scaling(flow, returned, flow.nodes[-1], flow.everything)
    candidate = Candidate("noskip", returned, value, users, flow.ancestors[returned])
    return candidate.without(Reason.CHANGED_IN_PLACE) if is_overwritten(flow, value, users) else candidate
