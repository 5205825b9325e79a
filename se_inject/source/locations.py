"""Files and lines, as a person would look them up."""

import sys
from pathlib import Path


def where(filename: str, line: int) -> str:
    """A file and a line.

    >>> import torch
    >>> where(torch.__file__, 3)
    'torch/__init__.py:3'
    """
    return f"{short(filename)}:{line}"


def short(filename: str) -> str:
    """A file by the path that one would import it by.

    >>> import torch
    >>> short(torch.__file__)
    'torch/__init__.py'
    """
    path = Path(filename)
    parents = [Path(entry) for entry in sys.path if entry]
    inside = max((p for p in parents if path.is_relative_to(p)), key=lambda p: len(p.parts), default=None)
    return str(path.relative_to(inside)) if inside else filename
