"""``python -m recipes.results``, the older spelling of ``python -m recipes results``."""

from .commands.flags import run_command
from .commands.results import main

if __name__ == "__main__":
    run_command(main)
