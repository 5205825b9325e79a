"""Gate modules: Squeeze-and-Excitation, and others by name or function."""
