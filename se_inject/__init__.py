"""Squeeze-and-Excitation gates for any PyTorch network that has residual or Inception blocks."""

from . import errors
from .find import find_sites
from .gate.squeeze_excitation import SqueezeExcitation
from .inject import apply, diff, remove
from .sites.site import Site, Sites, Skipped
from .training import freeze_backbone, gate_parameters, gates

__all__ = [
    "Site",
    "Sites",
    "Skipped",
    "SqueezeExcitation",
    "apply",
    "diff",
    "errors",
    "find_sites",
    "freeze_backbone",
    "gate_parameters",
    "gates",
    "remove",
]
__version__ = "0.1.0"
