"""The command ``se-inject``, a thin face of the library."""

import io
import sys


def main() -> None:
    """Run the command with the program's arguments; without typer and rich, say what to install."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("typer", "rich"):
            raise
        sys.exit(f"error: se-inject needs {missing}: pip install 'se-inject[cli]'")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not have all letters of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="se-inject")
