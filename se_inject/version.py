"""The library's version, which files of gates note."""

__version__ = "0.1.0"
