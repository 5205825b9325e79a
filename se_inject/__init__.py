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
from .reports.activations import activations
from .reports.compare import Comparison, compare
from .reports.costs import Cost, Spread
from .reports.gate_values import Activations
from .reports.measure import report
from .reports.page import write_page
from .reports.table import Report
from .sites.site import Site, Sites, Skipped
from .training import freeze_backbone, gate_parameters, gates, param_groups
from .version import __version__ as __version__

__all__ = [
    "Activations",
    "Comparison",
    "Cost",
    "OptimizedGate",
    "Report",
    "Site",
    "Sites",
    "Skipped",
    "Spread",
    "SqueezeExcitation",
    "activations",
    "apply",
    "compare",
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
    "param_groups",
    "push_gates",
    "remove",
    "report",
    "save_gates",
    "to_layout",
    "write_page",
]
