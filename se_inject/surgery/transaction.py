"""Changing modules all or nothing, also where Ctrl-C falls in the middle."""

from collections.abc import Callable, Iterable

from torch import fx, nn

from ..graphs.traced import is_traced
from ..source.subclass import set_class


def change_all(modules: Iterable[nn.Module], changes: Iterable[Callable[[], object]]) -> None:
    """Make all changes to these modules and their children, or, if one is interrupted, none of them.

    >>> model = nn.Sequential(nn.ReLU())
    >>> def interrupted():
    ...     del model[0]
    ...     raise KeyboardInterrupt
    >>> try:
    ...     change_all([model], [interrupted])
    ... except KeyboardInterrupt:
    ...     print(len(model))
    1
    """
    before = [_Snapshot(module) for module in modules]
    try:
        for change in changes:
            change()
    except BaseException:
        for snapshot in before:
            snapshot.restore()
        raise


class _Snapshot:
    """The class and attributes of a module, and of what is below a traced one, whose gates are put anywhere."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._class = type(module)
        containers = [child for child in module.children() if isinstance(child, nn.ModuleDict)]  # of gates, perhaps
        below = module.modules() if is_traced(module) else [module, *containers]
        self._attributes = [(m, dict(vars(m))) for m in below]
        self._children = [(m, dict(m._modules)) for m, _ in self._attributes]

    def restore(self) -> None:
        if isinstance(self._module, fx.GraphModule):
            vars(self._module)["_graph"] = self._attributes[0][1]["_graph"]
            self._module.recompile()  # its forward belongs to its class
        else:
            set_class(self._module, self._class)
        for module, attributes in self._attributes:
            vars(module).clear()
            vars(module).update(attributes)
        for module, children in self._children:
            module._modules.clear()
            module._modules.update(children)
