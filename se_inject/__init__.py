"""Squeeze-and-Excitation gates for any PyTorch network that has residual or Inception blocks."""

from . import errors
from .find import find_sites
from .gate.squeeze_excitation import SqueezeExcitation
from .inject import apply, diff, remove
from .layouts import load_se_weights, to_layout
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
    "diff",
    "errors",
    "find_sites",
    "freeze_backbone",
    "gate_parameters",
    "gates",
    "load_se_weights",
    "optimize",
    "optimized_gates",
    "remove",
    "to_layout",
]
__version__ = "0.1.0"
