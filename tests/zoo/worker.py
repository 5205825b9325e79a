"""What each process of the long run does with one model."""

import signal
import traceback
import warnings
from typing import Any

import torch

from .check import check
from .exported import compare_exported
from .twins import compare, twins

Task = tuple[str, str]


def check_task(task: Task, timeout: int, run_up_to: int, export_up_to: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the models' own
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(timeout)
    library, name = task
    try:
        if library == "twins":
            return _check_twins(int(name))
        if library == "exported":
            return {"library": library, "model": name, **compare_exported(*name.split("/", 1), export_up_to)}
        return check(library, name, run_up_to)
    except Exception as error:  # the row tells, and the next model follows
        where = traceback.format_exc().strip().splitlines()[-3:]
        return {"library": library, "model": name, "error": f"{type(error).__name__}: {error}", "where": where}
    finally:
        signal.alarm(0)


def _check_twins(index: int) -> dict[str, Any]:
    pair = list(twins())[index]
    about = {
        "library": "twins",
        "model": str(index),
        "gated": pair.gated,
        "plain": pair.plain or "",
        "of": pair.library,
    }
    try:
        return {**about, "sites": compare(pair)}
    except Exception as error:
        return {**about, "error": f"{type(error).__name__}: {error}"}


def _too_slow(*_: Any) -> None:
    raise TimeoutError("took too long")
