"""Squeeze-and-Excitation gates for any PyTorch network that has residual or Inception blocks."""

from . import errors
from .gate import SqueezeExcitation
from .inject import apply, diff, remove
from .site import Site, Sites, Skipped
from .sites import find_sites
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
