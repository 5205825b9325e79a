"""A run's checkpoint: everything that the rest of the run depends on, in one file that a kill cannot damage.

It is a file of ``torch.save``, which is a zip archive, and the archive's comment is the SHA-256 of all bytes before it.
"""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from se_inject.errors import first_line

from ..errors import CheckpointError, SettingsError
from ..files import replacing

State = dict[str, Any]
_NO_COMMENT, _COMMENT_OF_32_BYTES = b"\0\0", b"\x20\0"  # how an archive's last record ends
_LAST_RECORD = b"PK\5\6"


def save_checkpoint(path: Path, state: State) -> None:
    """Write ``state``, a dictionary of tensors and plain Python values.

    Raises ``SettingsError`` on a full disk.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "last.pt")
    >>> save_checkpoint(path, {"identity": {}, "step": 3})
    >>> load_checkpoint(path)["step"]
    3
    """
    content = io.BytesIO()
    torch.save(state, content)
    content.seek(-len(_NO_COMMENT), os.SEEK_END)
    content.write(_COMMENT_OF_32_BYTES)
    content.write(hashlib.sha256(content.getbuffer()).digest())
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_checkpoint(path: Path) -> State:
    """Read what ``save_checkpoint`` wrote; no pickled code is run.

    Raises ``CheckpointError`` if the file is truncated, damaged in any bit, or something else.

    >>> load_checkpoint(Path("no_such.pt"))
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: no_such.pt: there is no such file
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is no file' if path.exists() else 'there is no such file'}")
    try:
        state = torch.load(io.BytesIO(_checked(path)), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a file that is no checkpoint
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({first_line(error)}); it is damaged, truncated or not a "
            "checkpoint; restore it, or start again with another --out"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise CheckpointError(f"{path}: is not a checkpoint of recipes.train or recipes.finetune")
    return state


def _checked(path: Path) -> bytes:
    """All bytes of a file; raises ``ValueError`` unless they are those that were written.

    The archives of earlier versions end without a comment, and are believed. A file that ends otherwise, and may be of
    any size, is not read.
    """
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 54), os.SEEK_END)
        end = file.read()
        has_no_sum = end[-22:].startswith(_LAST_RECORD) and end.endswith(_NO_COMMENT)
        if not has_no_sum and not end.startswith(_LAST_RECORD):
            raise ValueError("it does not end as one")
        file.seek(0)
        content = file.read()
    if not has_no_sum and hashlib.sha256(memoryview(content)[:-32]).digest() != content[-32:]:
        raise ValueError("its checksum is wrong")
    return content


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
