"""A run's log: one row an epoch, in log.csv."""

import csv
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..files import replacing

Row = dict[str, float]


def write_log(folder: Path, rows: list[Row]) -> None:
    """Write all ``rows`` to ``folder/log.csv``.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_log(folder, [{"epoch": 1, "train_top1": 30.0, "val_top1": 25.0}])
    >>> read_log(folder)
    [{'epoch': 1.0, 'train_top1': 30.0, 'val_top1': 25.0}]
    """
    with replacing(folder / "log.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read_log(folder: str | Path) -> list[Row]:
    """The rows of ``folder/log.csv``.

    Raises ``DataError`` if there is none.

    >>> read_log("no_such_run")
    Traceback (most recent call last):
    ...
    recipes.errors.DataError: no_such_run: has no log.csv; it is not the folder of a run, or ...
    """
    path = Path(folder, "log.csv")
    if not path.is_file():
        raise DataError(f"{folder}: has no log.csv; it is not the folder of a run, or its first epoch has not ended")
    try:
        with path.open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: is damaged, or not the log of a run ({error})") from error
    if not rows or not {"epoch", "train_top1", "val_top1"} <= rows[0].keys():
        raise DataError(f"{path}: is not the log of a run")
    return rows


def best_epoch(rows: Sequence[Row]) -> int:
    """The epoch of the lowest top-1 error on the validation images; where errors are equal, of the lowest loss.

    >>> rows = [{"epoch": 1, "val_top1": 3.0, "val_loss": 0.2}, {"epoch": 2, "val_top1": 3.0, "val_loss": 0.1}]
    >>> best_epoch(rows)
    2
    """
    return int(min(rows, key=lambda row: (row["val_top1"], row["val_loss"]))["epoch"])
