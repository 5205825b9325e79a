"""Squeeze-and-Excitation gates for any PyTorch network that has residual or Inception blocks."""

from . import errors
from .convert import convert
from .find import find_sites
from .gate.squeeze_excitation import SqueezeExcitation
from .inject import apply, diff, remove
from .optimize import OptimizedGate, optimize, optimized_gates
from .sites.site import Site, Sites, Skipped
from .training import freeze_backbone, gate_parameters, gates

__all__ = [
    "OptimizedGate",
    "Site",
    "Sites",
    "Skipped",
    "SqueezeExcitation",
    "apply",
    "convert",
    "diff",
    "errors",
    "find_sites",
    "freeze_backbone",
    "gate_parameters",
    "gates",
    "optimize",
    "optimized_gates",
    "remove",
]
__version__ = "0.1.0"
