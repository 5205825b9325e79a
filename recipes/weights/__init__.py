"""Trained weights: files that describe themselves, and those of others."""

from .load import from_timm, load_weights, read_weights

__all__ = ["from_timm", "load_weights", "read_weights"]
