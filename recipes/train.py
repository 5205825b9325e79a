"""``python -m recipes.train``, the older spelling of ``python -m recipes train``."""

from .commands.flags import run_command
from .commands.train import main

if __name__ == "__main__":
    run_command(main)
