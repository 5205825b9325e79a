"""What a command prints: its answer alone on standard output, all else on standard error, errors in one line."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from ..errors import InvalidArgumentError, SEInjectError

Answer = Callable[[dict[str, Any], Any], None]


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Answer]:
    """Give a function that takes a command's answer, as JSON and as text, of which one is printed at the end.

    What runs in between prints to standard error. An error that the library raises on purpose ends the program with its
    message and the status 1.
    """
    answers: list[tuple[dict[str, Any], Any]] = []
    try:
        with _children_on_stderr(), contextlib.redirect_stdout(sys.stderr):
            yield lambda data, text: answers.append((data, text))
    except (SEInjectError, OSError) as error:
        if as_json:
            print(_json({"error": {"type": type(error).__name__, "message": str(error)}}))
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    for data, text in answers:
        if as_json:
            print(_json(data))
        elif isinstance(text, str):
            print(text)
        else:
            Console(highlight=False).print(text, soft_wrap=True)


@contextlib.contextmanager
def _children_on_stderr() -> Iterator[None]:
    """What other programs print, that the user's code starts, goes to standard error."""
    try:
        out, err = sys.stdout.fileno(), sys.stderr.fileno()
    except (AttributeError, OSError):  # streams that are no files have no children
        yield
        return
    sys.stdout.flush()
    kept = os.dup(out)
    os.dup2(err, out)
    try:
        yield
    finally:
        os.dup2(kept, out)
        os.close(kept)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that something is being done."""
    with Console(stderr=True).status(what):
        yield


def check_writable(path: Path) -> None:
    """Raise ``InvalidArgumentError`` where a file cannot be written, before what takes long.

    >>> check_writable(Path("page.html"))
    """
    folder = next((parent for parent in path.absolute().parents if parent.exists()), path)  # the root has no parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "it is a folder" if path.is_dir() else f"no file can be made in {folder}"
        raise InvalidArgumentError(f"{path}: cannot be written: {what}")


def _json(data: Any) -> str:
    return json.dumps(_finite(data), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
