"""Weights in other libraries' layouts, matched with a gated network by structure: shapes and names, no order."""

from .weights import load_se_weights, to_layout

__all__ = ["load_se_weights", "to_layout"]
