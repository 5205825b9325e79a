"""A run's checkpoint: everything that the rest of the run depends on, in one file that a kill cannot damage."""

from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, SettingsError
from ..files import replacing

State = dict[str, Any]


def save_checkpoint(path: Path, state: State) -> None:
    """Write ``state``, a dictionary of tensors and plain Python values.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "last.pt")
    >>> save_checkpoint(path, {"identity": {}, "step": 3})
    >>> load_checkpoint(path)["step"]
    3
    """
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> State:
    """Read what ``save_checkpoint`` wrote; no pickled code is run.

    Raises ``CheckpointError`` if the file is truncated or something else.

    >>> load_checkpoint(Path("no_such.pt"))
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: no_such.pt: cannot be read as a checkpoint (FileNotFoundError...
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged file
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}); it is truncated or not a checkpoint; "
            "restore it, or start again with another --out"
        ) from error
    if not isinstance(state, dict) or "identity" not in state:
        raise CheckpointError(f"{path}: is not a checkpoint of recipes.train or recipes.finetune")
    return state


def check_identity(path: Path, saved: State, now: State) -> None:
    """Raise unless a checkpoint of the run ``saved`` can be continued as the run ``now``.

    Raises ``CheckpointError`` for another network, ``SettingsError`` for other settings or data.

    >>> check_identity(Path("last.pt"), {"model.name": "a"}, {"model.name": "b"})
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: last.pt: is of another run: model.name is 'a' there, 'b' here; give ...
    """
    differ = [key for key in now if saved.get(key) != now[key]]
    if differ:
        kind = CheckpointError if any(key.startswith("model.") for key in differ) else SettingsError
        raise kind(
            f"{path}: is of another run: "
            + "; ".join(f"{key} is {saved.get(key)!r} there, {now[key]!r} here" for key in differ[:5])
            + "; give the same flags to resume it, or another --out to start a new one"
        )
