"""What kind of function or argument a call has, as far as that decides how it is run."""

import inspect
import types
from typing import Any

from torch import nn

from ..source.functions import closed_over
from .module_proxies import CONTAINERS, is_shadow
from .value_proxy import Value

_OF_FILES = frozenset("io _io os posix nt pathlib shutil tempfile".split())
_TO_FILES = frozenset(
    "open fdopen mkdir makedirs touch unlink remove removedirs rmdir rename renames replace symlink_to hardlink_to"
    " chmod write_text write_bytes write truncate system popen putenv unsetenv chdir kill rmtree copy copy2 copyfile"
    " copytree move mkstemp mkdtemp NamedTemporaryFile TemporaryFile".split()
)


def involves(*containers: Any, depth: int = 4) -> bool:
    """Whether a value or a stand-in is among arguments, or in containers among them."""
    for container in containers:
        for item in container.values() if isinstance(container, dict) else container:
            if isinstance(item, Value) or is_shadow(item):
                return True
            if depth and isinstance(item, (tuple, *CONTAINERS)) and involves(item, depth=depth - 1):
                return True
            if depth and _is_plain_object(item) and involves(vars(item), depth=depth - 1):
                return True
    return False


def _is_plain_object(item: Any) -> bool:
    has_parts = isinstance(item, nn.Module | type | types.FunctionType | types.MethodType | types.ModuleType)
    return hasattr(item, "__dict__") and not has_parts


def only_tells(function: types.FunctionType) -> bool:
    """Whether a function belongs to a library for messages."""
    return (function.__module__ or "").partition(".")[0] in {"logging", "warnings", "tqdm", "wandb"}


def writes_files(function: Any) -> bool:
    """Whether a call leaves something in the world, as opening a file does."""
    module = (getattr(function, "__module__", None) or "").partition(".")[0]
    return module in _OF_FILES and getattr(function, "__name__", "") in _TO_FILES


def closes_over_modules(function: types.FunctionType) -> bool:
    """Whether a function has modules or values of the run in its closure."""
    return any(isinstance(content, nn.Module | Value) for content in closed_over(function))


def is_mode(cls: type) -> bool:
    """Whether a class of torch's is a context that sets a mode."""
    is_torchs = cls.__module__.partition(".")[0] == "torch" and not issubclass(cls, nn.Module)
    return is_torchs and isinstance(inspect.getattr_static(cls, "__enter__", None), types.FunctionType)
