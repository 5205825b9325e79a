"""The commands of ``se-inject``."""

from typing import Annotated

import torch
import typer

import se_inject

from .commands.apply import apply
from .commands.compare import compare
from .commands.convert import convert
from .commands.diff import diff
from .commands.export import export
from .commands.report import report
from .commands.sites import sites

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _start(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Squeeze-and-Excitation gates for a network that you already have.

    'se-inject COMMAND --help' has examples. Exit codes: 0 fine, 1 a refusal, such as nothing to gate, 2 wrong usage.
    """
    if version:
        print(f"se-inject {se_inject.__version__}, torch {torch.__version__}")
        raise typer.Exit()


for command in (sites, diff, apply, convert, compare, export, report):
    app.command()(command)
