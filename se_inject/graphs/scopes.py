"""What a traced model's own graph tells: which module each node ran in, and which nodes are our gates."""

import copy
from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import fx

from ..gate.squeeze_excitation import injected_channels
from .dataflow import Flow


class Call(NamedTuple):
    """One call of a module: a key of its own, as a shared module may be called often, and the module's path."""

    key: str
    path: str


class Scopes:
    """The modules around each node of a traced graph, as fx noted them in ``nn_module_stack``."""

    def __init__(self, graph: fx.Graph) -> None:
        self._stacks = {
            node: [Call(key, path) for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items()]
            for node in graph.nodes
        }

    def innermost(self, node: fx.Node) -> Call:
        """The module call that a node belongs to; the model itself where nothing is known."""
        return self._stacks[node][-1] if self._stacks[node] else Call("", "")

    def leaves(self, node: fx.Node) -> bool:
        """Whether a value is used outside the module call that made it."""
        if not self._stacks[node]:
            return any(user.op == "output" for user in node.users)
        return any(self.innermost(node) not in self._stacks[user] for user in node.users)

    def own_nodes(self, flow: Flow, joins: Iterable[fx.Node]) -> Callable[[fx.Node], int]:
        """For each join, the mask of nodes that belong to its block and not to a block inside that."""
        blocks = {self.innermost(join) for join in joins}
        masks: dict[Call, int] = {}
        for node, bit in flow.bit.items():
            owner = next((call for call in reversed(self._stacks[node]) if call in blocks), Call("", ""))
            masks[owner] = masks.get(owner, 0) | bit
        return lambda join: masks[self.innermost(join)]


def ungated_graph(module: fx.GraphModule) -> fx.Graph:
    """A copy of a GraphModule's graph without the calls of our gates."""
    graph = copy.deepcopy(module.graph)
    for node in gate_calls(module, graph):
        node.replace_all_uses_with(node.all_input_nodes[0])
        graph.erase_node(node)
    return graph


def gate_calls(module: fx.GraphModule, graph: fx.Graph) -> list[fx.Node]:
    """The calls of our gates in a GraphModule's graph."""
    return [
        node
        for node in graph.nodes
        if node.op == "call_module" and injected_channels(module.get_submodule(str(node.target))) is not None
    ]
