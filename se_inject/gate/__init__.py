"""Gate modules: Squeeze-and-Excitation, and others by name or function."""

from .squeeze_excitation import SqueezeExcitation

__all__ = ["SqueezeExcitation"]
