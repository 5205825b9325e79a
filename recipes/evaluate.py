"""``python -m recipes.evaluate``, the older spelling of ``python -m recipes evaluate``."""

from .commands.evaluate import main
from .commands.flags import run_command

if __name__ == "__main__":
    run_command(main)
