"""Squeeze-and-Excitation gates for any PyTorch network that has residual or Inception blocks."""

from . import errors
from .convert import convert
from .files.hub import push_gates
from .files.load import load_gates
from .files.save import save_gates
from .find import find_sites
from .gate.squeeze_excitation import SqueezeExcitation
from .inject import apply, diff, remove
from .layouts import load_se_weights, to_layout
from .optimize import OptimizedGate, optimize, optimized_gates
from .sites.site import Site, Sites, Skipped
from .training import freeze_backbone, gate_parameters, gates
from .version import __version__ as __version__

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
    "load_gates",
    "load_se_weights",
    "optimize",
    "optimized_gates",
    "push_gates",
    "remove",
    "save_gates",
    "to_layout",
]
