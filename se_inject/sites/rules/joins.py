"""The site rules: which adds and concats of a graph are the paper's, and which value of theirs takes the gate.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 3.3 and figures 2 (SE-Inception) and 3 (SE-ResNet).
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from torch import fx, nn

from ...graphs.dataflow import Flow
from ...graphs.mutation import is_overwritten
from ...graphs.ops import ADD, CAT, MUL, argument, op_name
from ..site import Kind, Position
from .candidate import NO_COMMON_ANCESTOR, SUM_OF_OUTPUTS, Candidate, refused
from .positions import positioned


def joins(
    flow: Flow, is_returned: Callable[[fx.Node], bool], kinds: Collection[Kind], position: Position
) -> Iterator[Candidate]:
    """Every add and every returned concat that could be the paper's, in the order of execution."""
    placed: set[tuple[fx.Node | None, tuple[fx.Node, ...]]] = set()
    candidates = list(_candidates(flow, is_returned, kinds))
    branches = [c.region for c in candidates if c.kind == "residual" and c.value is not None and not c.handed_in]
    for candidate in candidates:
        if candidate.handed_in and any(flow.bit[candidate.join] & branch for branch in branches):
            candidate = refused(candidate, NO_COMMON_ANCESTOR)  # it shifts a branch that has its own gate
        if candidate.kind == "residual":
            candidate = positioned(flow, candidate, position)
        elif position != "standard" and candidate.value is not None:
            candidate = refused(candidate, f'position="{position}" is for residual blocks')
        value = candidate.value
        is_inside = value is not None and "inner" in value.meta and value.op != "call_module"
        if is_inside or any("inner" in user.meta for user in candidate.users):
            candidate = refused(candidate, "the place of its gate is inside a child that returns several values")
        if candidate.value is not None:
            placement = (candidate.value, candidate.users)
            if is_overwritten(flow, *placement):
                candidate = refused(candidate, "its value is changed in place and also used elsewhere")
            elif placement in placed:
                candidate = refused(candidate, "its branch has its gate for another add")
            placed.add(placement)
        yield candidate


def _candidates(flow: Flow, is_returned: Callable[[fx.Node], bool], kinds: Collection[Kind]) -> Iterator[Candidate]:
    for node in flow.nodes:
        if "inner" in node.meta:
            continue
        if op_name(node) in ADD:
            candidate = residual(flow, node)
            if candidate is not None and candidate.value is not None and _feeds_a_sum(flow, node):
                candidate = refused(candidate, SUM_OF_OUTPUTS)
            if candidate is not None and any(op_name(user) in CAT and is_returned(user) for user in node.users):
                candidate = _in_returned_concat(flow, candidate)
            if candidate is not None:
                yield candidate
        elif op_name(node) in CAT and (is_returned(_observed(flow, node)) or node in _flat_stages(flow)):
            yield from _concat(flow, node, kinds)


def _feeds_a_sum(flow: Flow, add: fx.Node) -> bool:
    """Whether the only use of an add is a sum of the outputs of several layers."""
    users = [user for user in add.users if flow.is_data(user)]
    outer = residual(flow, users[0]) if len(users) == 1 and op_name(users[0]) in ADD else None
    return outer is not None and (
        outer.reason == SUM_OF_OUTPUTS or (_feeds_a_sum(flow, users[0]) and outer.value is None)
    )


def residual(flow: Flow, add: fx.Node) -> Candidate | None:
    """What ``_residual`` says of an add, asked once."""
    known: dict[fx.Node, Candidate | None] = flow.known.setdefault("residual", {})
    if add not in known:
        known[add] = _residual(flow, add)
    return known[add]


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

    if convs_left > convs_right:
        branch, in_branch, identity, in_identity, identity_convs = left, only_left, right, only_right, convs_right
    else:
        branch, in_branch, identity, in_identity, identity_convs = right, only_right, left, only_left, convs_left
    if _outputs(flow, only_left) & _outputs(flow, only_right):
        return refuse("its operands come from different items of one tuple")
    is_item = any(source.op == "placeholder" for source in _outputs(flow, in_identity))
    if (is_item or _joins_a_list(flow, in_branch)) and not _is_one_of_several_outputs(flow, add):
        return refuse("ambiguous add: its branch aggregates several values, one of which is added")
    handed_in = not flow.ancestors[left] & flow.ancestors[right]
    if handed_in and identity.op != "placeholder":
        return refuse(NO_COMMON_ANCESTOR)
    if convs_left == convs_right or min(convs_left, convs_right) > 1:
        return refuse("ambiguous add: both operands have convolutions of their own")
    if in_identity & flow.split_mask:
        return refuse("ambiguous add: its identity is a part of a split value")
    if in_identity & flow.nonlinear_mask:
        return refuse("ambiguous add: its identity is neither a common input nor a linear projection of it")
    if in_identity & flow.parameter_mask and not (identity_convs or in_identity & flow.linear_mask):
        return refuse("ambiguous add: its identity is normalized, but not projected")
    is_merge = in_identity & flow.add_mask and in_identity & flow.upsampling_mask
    if is_merge or bool(in_branch & flow.upsampling_mask) != bool(in_identity & flow.upsampling_mask):
        return refuse("ambiguous add: one operand is upsampled, as where feature maps of two scales are merged")
    if identity_convs and (in_identity & flow.add_mask or _bypasses(flow, in_branch, in_identity)):
        return refuse(SUM_OF_OUTPUTS)
    if in_branch & flow.attention_mask:
        return refuse("ambiguous add: its branch mixes positions by attention")
    value, users = _before_scaling(flow, branch, add, in_branch)
    if op_name(value) in ADD and (inner := residual(flow, value)) is not None and inner.reason is not None:
        return refuse("ambiguous add: its branch is a sum of paths that are alike")
    return Candidate("residual", add, value, users, in_branch, identity, handed_in=handed_in)


def _joins_a_list(flow: Flow, region: int) -> bool:
    """Whether a region concatenates as many values as it is given."""
    return any(op_name(n) in CAT and isinstance(argument(n, 0, "tensors"), fx.Node) for n in flow.members(region))


def _is_one_of_several_outputs(flow: Flow, add: fx.Node) -> bool:
    """Whether a block returns a sum beside other values, as dual path networks do, which take such pairs."""
    returned = flow.nodes[-1].args[0]
    return isinstance(returned, list | tuple) and len(returned) > 1 and add in returned


def _bypasses(flow: Flow, in_branch: int, in_identity: int) -> bool:
    """Whether a branch takes a value that is older than the one which is projected for the identity."""
    projected = _entries(flow, in_identity)
    older = 0
    for value in projected:
        older |= flow.ancestors[value] & ~flow.bit[value]
    return any(flow.bit[value] & older for value in _entries(flow, in_branch))


def _entries(flow: Flow, region: int) -> set[fx.Node]:
    """The values from outside that a region takes."""
    sources = {source for node in flow.members(region) for source in node.all_input_nodes}
    return {source for source in sources if flow.is_data(source) and not flow.bit[source] & region}


def _outputs(flow: Flow, region: int) -> set[fx.Node]:
    """The calls of children, and the arguments, of which a region takes one item."""
    taken = [node for node in flow.members(region) if op_name(node) == "getitem" and isinstance(node.args[1], int)]
    return {source for node in taken if (source := node.all_input_nodes[0]).op in ("call_module", "placeholder")}


def _in_returned_concat(flow: Flow, candidate: Candidate) -> Candidate:
    """A sum beside other parts of a returned concat: a partial residual (ReXNet, DPN), or one path of a cell."""
    operands = [argument(candidate.join, 0, "input"), argument(candidate.join, 1, "other")]
    if any(map(_is_slice, operands)):
        return candidate
    return refused(candidate, "ambiguous add: it is a part of a concat that the block returns")


def _before_scaling(flow: Flow, value: fx.Node, user: fx.Node, region: int) -> tuple[fx.Node, tuple[fx.Node, ...]]:
    """Walk up a branch past constant scaling, layer scale, dropout and stochastic depth.

    Where only some channels take part in the add, also past that choice: the gate then serves all of them. Not past
    what is used for other things too, which the gate would change.
    """
    users: tuple[fx.Node, ...] = (user,)
    while all(other in users for other in value.users if flow.is_data(other)):
        sources = [node for node in value.all_input_nodes if flow.is_data(node)]
        is_modulated = len(sources) == 2 and op_name(value) in ADD | MUL
        if is_modulated:
            sources = _modulated(flow, sources)
        if len(sources) != 1 or not flow.bit[sources[0]] & region:
            break
        if _is_slice(value):
            value, users = sources[0], tuple(filter(flow.is_data, sources[0].users))
        elif is_modulated or flow.only_scales(value):
            value, users = sources[0], (value,)
        else:
            break
    return value, users


def _modulated(flow: Flow, sources: list[fx.Node]) -> list[fx.Node]:
    """The operand with the convolutions, if the other comes from elsewhere, as FiLM's scale and shift do."""
    with_convs = [node for node in sources if flow.ancestors[node] & flow.conv_mask]
    is_independent = not flow.ancestors[sources[0]] & flow.ancestors[sources[1]]
    return with_convs if len(with_convs) == 1 and is_independent else []


def _unwrapped(flow: Flow, node: fx.Node) -> fx.Node:
    """A path without the modules that stand for "nothing"."""
    while type(flow.module(node)).__name__ == "Identity":
        node = node.all_input_nodes[0]
    return node


def _flat_stages(flow: Flow) -> set[fx.Node]:
    """The concats that all of a forward passes through, one after the other: Inception blocks without modules."""
    if "flat" not in flow.known:
        cats = [node for node in flow.nodes if op_name(node) in CAT and flow.is_data(node)]
        stages = {cat for cat in cats if flow.is_passed_by_all(cat)} if len(cats) > 1 else set()
        flow.known["flat"] = stages if len(stages) > 1 else set()
    return flow.known["flat"]  # type: ignore[no-any-return]


def _observed(flow: Flow, node: fx.Node) -> fx.Node:
    """A value after the observers and identities that torch's FloatFunctional puts behind an operation."""
    while len(node.users) == 1 and isinstance(flow.module(user := next(iter(node.users))), nn.Identity):
        node = user
    return node


def _is_slice(node: fx.Node) -> bool:
    """Whether a node takes some of the channels: ``x[:, :n]``."""
    if op_name(node) != "getitem" or not isinstance(node.args[1], tuple):
        return False
    whole = slice(None)
    index: tuple[Any, ...] = node.args[1]
    rows, columns, *others = (*index, None)
    return rows == whole and isinstance(columns, slice) and columns != whole and all(i in (whole, None) for i in others)


def _concat(flow: Flow, cat: fx.Node, kinds: Collection[Kind]) -> Iterator[Candidate]:
    """A concat over channels of two or more paths from one input: Inception's, or a dense one."""
    paths = argument(cat, 0, "tensors")
    if not isinstance(paths, list | tuple) or len(paths) < 2 or not all(map(flow.is_data, paths)):
        return
    if not _is_over_channels(flow, cat):
        return
    paths = [_unwrapped(flow, path) for path in paths]
    common, union = flow.ancestors[paths[0]], 0
    for path in paths:
        common &= flow.ancestors[path]
        union |= flow.ancestors[path]
    own = [flow.ancestors[path] & ~common for path in paths]
    with_convs = sum(1 for mask in own if mask & flow.conv_mask)
    if not with_convs:
        return
    candidate = Candidate("inception", cat, cat, tuple(filter(flow.is_data, cat.users)), union & ~common)
    if not common or any(source.op == "placeholder" for mask in own for source in _outputs(flow, mask)):
        yield refused(candidate, "the paths of its concat come from different inputs")
    elif any(flow.bit[a] & (flow.ancestors[b] | common) for a in paths for b in paths if a is not b):
        if "dense" in kinds:
            yield from _dense(flow, cat, [path for path in paths if not flow.bit[path] & common])
        else:
            yield refused(candidate, "dense concat: it contains the input of one of its own paths")
    elif any(mask & flow.split_mask for mask in own) or any(map(_is_slice, paths)):
        yield refused(candidate, "its concat puts the parts of a split value together again")
    elif with_convs < 2:
        yield refused(candidate, "fewer than two paths of its concat have convolutions")
    else:
        yield candidate


def block_output(flow: Flow) -> Candidate | None:
    """What a block without an identity returns: the place of the gate that its fellows with one have."""
    returned = flow.nodes[-1].args[0]
    if not flow.is_data(returned) or not flow.ancestors[returned] & flow.conv_mask:
        return None
    value, users = _before_scaling(flow, returned, flow.nodes[-1], flow.everything)
    candidate = Candidate("noskip", returned, value, users, flow.ancestors[returned])
    if is_overwritten(flow, value, users):
        return refused(candidate, "its value is changed in place and also used elsewhere")
    return candidate


def _dense(flow: Flow, cat: fx.Node, paths: Collection[fx.Node]) -> Iterator[Candidate]:
    """The new features of a dense concat (DenseNet): each path with convolutions of its own, where they are made."""
    for path in paths:
        older = 0
        for other in paths:
            if other is not path and flow.bit[other] & flow.ancestors[path]:
                older |= flow.ancestors[other]
        region = flow.ancestors[path] & ~older
        if region & flow.conv_mask:
            value, _ = _before_scaling(flow, path, cat, region)
            yield Candidate("dense", cat, value, tuple(filter(flow.is_data, value.users)), region)


def _is_over_channels(flow: Flow, cat: fx.Node) -> bool:
    dim = argument(cat, 1, "dim", "axis", default=0)
    if not isinstance(dim, int) or dim >= 0:
        return bool(dim == 1)
    # A negative dim counts from the end, so the rank matters; the convolutions on the paths know it.
    return {rank + 2 + dim for rank in flow.spatial_ranks(flow.ancestors[cat])} == {1}
