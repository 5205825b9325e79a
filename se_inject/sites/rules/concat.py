"""The Inception rule: which concats over channels join paths with convolutions; and dense ones, if asked for.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 3.3 and figure 2 (SE-Inception).
"""

from collections.abc import Collection, Iterator

from torch import fx, nn

from ...graphs.dataflow import Flow
from ...graphs.operations import CAT, argument, op_name
from ..reasons import Reason
from ..site import Kind
from .branch import before_scaling, is_slice, outputs
from .candidate import Candidate


def concat(flow: Flow, cat: fx.Node, kinds: Collection[Kind]) -> Iterator[Candidate]:
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
    if not common or any(source.op == "placeholder" for mask in own for source in outputs(flow, mask)):
        yield candidate.without(Reason.DIFFERENT_INPUTS)
    elif any(flow.bit[a] & (flow.ancestors[b] | common) for a in paths for b in paths if a is not b):
        if "dense" in kinds:
            yield from _dense(flow, cat, [path for path in paths if not flow.bit[path] & common])
        else:
            yield candidate.without(Reason.DENSE)
    elif any(mask & flow.split_mask for mask in own) or any(map(is_slice, paths)):
        yield candidate.without(Reason.PARTS_OF_SPLIT)
    elif with_convs < 2:
        yield candidate.without(Reason.ONE_PATH)
    else:
        yield candidate


def _dense(flow: Flow, cat: fx.Node, paths: Collection[fx.Node]) -> Iterator[Candidate]:
    """The new features of a dense concat (DenseNet): each path with convolutions of its own, where they are made."""
    for path in paths:
        older = 0
        for other in paths:
            if other is not path and flow.bit[other] & flow.ancestors[path]:
                older |= flow.ancestors[other]
        region = flow.ancestors[path] & ~older
        if region & flow.conv_mask:
            value, _ = before_scaling(flow, path, cat, region)
            yield Candidate("dense", cat, value, tuple(filter(flow.is_data, value.users)), region)


def _is_over_channels(flow: Flow, cat: fx.Node) -> bool:
    dim = argument(cat, 1, "dim", "axis", default=0)
    if not isinstance(dim, int) or dim >= 0:
        return bool(dim == 1)
    # A negative dim counts from the end, so the rank matters; the convolutions on the paths know it.
    return {rank + 2 + dim for rank in flow.spatial_ranks(flow.ancestors[cat])} == {1}


def _unwrapped(flow: Flow, node: fx.Node) -> fx.Node:
    """A path without the modules that stand for "nothing"."""
    while type(flow.module(node)).__name__ == "Identity":
        node = node.all_input_nodes[0]
    return node


def flat_stages(flow: Flow) -> set[fx.Node]:
    """The concats that all of a forward passes through, one after the other: Inception blocks without modules."""
    if "flat" not in flow.known:
        cats = [node for node in flow.nodes if op_name(node) in CAT and flow.is_data(node)]
        stages = {cat for cat in cats if flow.is_passed_by_all(cat)} if len(cats) > 1 else set()
        flow.known["flat"] = stages if len(stages) > 1 else set()
    return flow.known["flat"]  # type: ignore[no-any-return]


def observed(flow: Flow, node: fx.Node) -> fx.Node:
    """A value after the observers and identities that torch's FloatFunctional puts behind an operation."""
    while len(node.users) == 1 and isinstance(flow.module(user := next(iter(node.users))), nn.Identity):
        node = user
    return node
