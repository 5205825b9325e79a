"""Modules for other libraries are looked into where these are installed."""

from importlib.util import find_spec
from pathlib import Path

_MODULES = Path(__file__).parent.glob("se_inject/integrations/[a-z]*.py")
collect_ignore = [str(module) for module in _MODULES if find_spec(module.stem) is None]
