"""The product of a gate's result and a weight, as layer scale is, which a gate can compute with its own."""

from dataclasses import replace

from torch import fx, nn

from ..gate.squeeze_excitation import SqueezeExcitation, channels_of
from ..source.edits import Edit, moved, times_in
from ..tracing.gate_places import Placer, ValueUses
from .callers import Callers, called, weight_of
from .chains import PASSING
from .kept_results import scales_by_weight


def scaling_of(gate: nn.Module, callers: Callers) -> tuple[nn.Module, Edit] | None:
    """The block that calls a gate, and the edit of its text, which has the gate, that lets the gate compute the product
    that all its results go into, and nothing else.
    """
    call = callers.call_of(gate)
    if isinstance(call, str) or not isinstance(gate, SqueezeExcitation):
        return None
    targets, names, factors = [], set(), set()
    for way, (_, node) in enumerate(call.ways):
        if node is None:
            continue
        product = _product(node, call.owner, callers, channels_of(gate))
        if product is None:
            return None
        users = tuple(product[0].users)
        targets.append(ValueUses(way, product[0], users, users))
        names.add(str(node.target))
        factors.add(product[1])
    captured = callers.capture(call.owner)
    edits = Placer(type(call.owner), captured).edits(targets)
    if not len(edits) == len(names) == len(factors) == 1 or edits[0].owner is not None or edits[0].walks:
        return None
    texts = [text for text in captured.reached if text.digest == edits[0].digest]
    if not all(times_in(text, moved(edits[0].span, text.first)) for text in texts):
        return None
    return call.owner, replace(edits[0], gate=names.pop(), first_factor=factors.pop())


def _product(node: fx.Node, owner: nn.Module, callers: Callers, channels: int) -> tuple[fx.Node, str] | None:
    """The product of a value and as many weights as it has channels, if nothing else uses the value, and which of the
    gate's arguments is the first factor.
    """
    while len(node.users) == 1 and "held" not in node.meta:
        [user] = node.users
        if user.op == "call_module":
            module = called(user, owner)
            if type(module) not in PASSING or module.training or not callers.is_alone(module):
                return None
            node = user
        elif scales_by_weight(user) and len(user.args) == len(user.all_input_nodes) == 2 and not user.kwargs:
            [scale] = (value for value in user.all_input_nodes if value is not node)
            return (user, "x" if user.args[0] is node else "scale") if _size(scale, owner) == channels else None
        else:
            return None
    return None


def _size(scale: fx.Node, owner: nn.Module) -> int:
    """How many numbers a weight has, of which a value may be a view."""
    while scale.op != "get_attr":
        scale = scale.all_input_nodes[0]
    weight = weight_of(scale, owner)
    return getattr(weight.module, weight.name).numel() if weight is not None else 0
