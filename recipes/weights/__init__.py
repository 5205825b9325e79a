"""Trained weights: files that describe themselves, and those of others."""

from .load import load_weights, read_weights

__all__ = ["load_weights", "read_weights"]
