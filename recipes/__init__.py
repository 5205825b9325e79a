"""Every network of the Squeeze-and-Excitation paper, and one short loop that trains them; built on ``se_inject``."""

from . import errors
from .networks.recipe import Recipe
from .networks.registry import get
from .networks.systems import list_systems
from .networks.table import list_networks

__all__ = ["Recipe", "errors", "get", "list_networks", "list_systems"]
