"""The command ``se-inject``, a thin face of the library."""

import sys


def main() -> None:
    """Run the command with the program's arguments; without typer and rich, say what to install."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.exit(f"error: se-inject needs {error.name}: pip install 'se-inject[cli]'")
    app(prog_name="se-inject")
