"""Gates on what a child returns, for values that no one expression of the block's own text makes."""

from ..graphs.dataflow import Flow
from ..graphs.layers import is_sequential
from ..graphs.operations import is_crop
from .rules.candidate import Candidate


def producer(flow: Flow, candidate: Candidate) -> str | None:
    """The path of the layer whose output is the value to gate, and nothing else; None if there is none such."""
    value, users = candidate.value, candidate.users
    while value is not None and is_crop(value):
        value, users = value.all_input_nodes[0], (value,)
    if value is None or value.op != "call_module":
        return None
    if any(flow.is_data(user) and user not in users for user in value.users):
        return None
    path = str(value.target)
    calls = [str(node.target) for node in flow.nodes if node.op == "call_module"]
    related = [call for call in calls if f"{call}.".startswith(f"{path}.") or f"{path}.".startswith(f"{call}.")]
    if related != [path]:
        return None
    module = flow.owner.get_submodule(path)
    while is_sequential(module) and len(module._modules):
        # A gate among the children of a Sequential would become a step of it.
        last = next(reversed(module._modules))
        path, module = f"{path}.{last}", module.get_submodule(last)
    return path
