"""One call of a module in a traced graph, as a module: the site rules judge it as they judge a class."""

import functools
from collections.abc import Iterator

from torch import Tensor, fx, nn


class Folded(nn.Module):
    """What the nodes of one call compute, as a graph of its own; for looking at only.

    Its children are the calls inside: other ``Folded`` ones, and layers. ``values`` are the nodes of the flat graph
    whose values its own nodes stand for, ``members`` all flat nodes that each of them stands for, both by node name;
    ``paths`` are the qualified names of its children.
    """

    def __init__(self, path: str, graph: fx.Graph) -> None:
        super().__init__()
        self.path = path
        self.graph = graph
        self.values: dict[str, fx.Node] = {}
        self.members: dict[str, set[fx.Node]] = {}
        self.paths: dict[str, str] = {}

    def get_submodule(self, target: str) -> nn.Module:
        """A call inside, whatever it is called: ``values`` may be one.

        >>> Folded("", fx.Graph()).get_submodule("").path
        ''
        """
        module: nn.Module = self
        for name in filter(None, target.split(".")):
            module = module._modules[name]  # type: ignore[assignment]
        return module

    def nodes(self) -> Iterator[fx.Node]:
        """The nodes that call something, of its graph and of those of the calls inside.

        >>> list(Folded("", fx.Graph()).nodes())
        []
        """
        yield from (node for node in self.graph.nodes if node.op.startswith("call"))
        for child in self.children():
            if isinstance(child, Folded):
                yield from child.nodes()

    def path_of(self, target: str) -> str:
        """The qualified name of a child, or of one of its children."""
        name, _, below = target.partition(".")
        child = self._modules[name]
        return child.path_of(below) if below and isinstance(child, Folded) else self.paths[name]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Nothing runs here.

        >>> Folded("", fx.Graph())()
        Traceback (most recent call last):
        TypeError: a folded call is for looking at only
        """
        raise TypeError("a folded call is for looking at only")


@functools.cache
def folded_class(qualified_name: str) -> type[Folded]:
    """``Folded`` under the name of the class that ran, as the rules know some layers by name.

    >>> folded_class("timm.layers.drop.DropPath").__name__
    'DropPath'
    """
    module, _, name = qualified_name.rpartition(".")
    return type(name or "Folded", (Folded,), {"__module__": module or Folded.__module__})
