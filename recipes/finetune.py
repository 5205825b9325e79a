"""``python -m recipes.finetune``, the older spelling of ``python -m recipes finetune``."""

from .commands.finetune import main
from .commands.flags import run_command

if __name__ == "__main__":
    run_command(main)
