"""``python -m recipes.plot``, the older spelling of ``python -m recipes plot``."""

from .commands.flags import run_command
from .commands.plot import main

if __name__ == "__main__":
    run_command(main)
