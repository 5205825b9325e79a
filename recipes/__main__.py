"""The commands of the recipes: train, fine-tune, compare, evaluate, the paper's tables, costs, and pictures.

``python -m recipes COMMAND --help`` tells a command's flags.
"""

import importlib
import sys

from .commands.flags import make_parser, run_command


def main() -> None:
    """Run the command that the program's first argument names, with the others."""
    parser = make_parser("", __doc__)
    commands = ["train", "finetune", "compare", "evaluate", "tables", "complexity", "plot", "evidence"]
    parser.add_argument("command", choices=commands)
    name = parser.parse_args(sys.argv[1:2]).command
    command = importlib.import_module(f".commands.{name}", __package__)
    run_command(lambda: command.main(sys.argv[2:]))


if __name__ == "__main__":
    main()
