"""Every network of the Squeeze-and-Excitation paper, and one short loop that trains them; built on ``se_inject``."""

try:
    from . import errors
    from .networks.recipe import Recipe
    from .networks.registry import get
    from .networks.systems import list_systems
    from .networks.table import list_networks
except ModuleNotFoundError as error:
    error.msg = f"{error.msg}; the recipes need more than se_inject does: pip install 'se-inject[recipes]'"
    raise

__all__ = ["Recipe", "errors", "get", "list_networks", "list_systems"]
