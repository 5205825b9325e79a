"""The commands of the recipes: train, fine-tune, evaluate, the paper's tables, costs, plot, and whether gates learn.

``python -m recipes COMMAND --help`` tells a command's flags.
"""

import argparse
import importlib
import sys

from .commands.flags import run_command


def main() -> None:
    """Run the command that the program's first argument names, with the others."""
    parser = argparse.ArgumentParser("python -m recipes", description=__doc__)
    parser.add_argument("command", choices=["train", "finetune", "evaluate", "tables", "complexity", "plot", "results"])
    name = parser.parse_args(sys.argv[1:2]).command
    command = importlib.import_module(f".commands.{name}", __package__)
    run_command(lambda: command.main(sys.argv[2:]))


if __name__ == "__main__":
    main()
