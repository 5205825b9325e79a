"""The file of gates in a folder, or why there is none."""

import re
from pathlib import Path

import safetensors

from ..errors import GateFileNotFoundError
from .save import GATES

_OF_GATE = re.compile(r"(^|\.)se(_gate|_out)?(_\d+)?(\.\d+)?\.(fc1|fc2|gate)\.")


def in_folder(folder: Path) -> Path:
    """The file of gates in a folder.

    Raises ``GateFileNotFoundError`` where there are gates in a checkpoint instead, which loaders that know classes only
    leave out: this is the first place where that can be noticed.

    >>> in_folder(Path("gates")).name
    'gates.safetensors'
    """
    file, checkpoint = folder / GATES, folder / "model.safetensors"
    if file.exists() or not checkpoint.exists():
        return file
    try:
        with safetensors.safe_open(checkpoint, "pt") as opened:
            of_gate = next((key for key in opened.keys() if _OF_GATE.search(key)), None)  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return file
    if of_gate is None:
        return file
    raise GateFileNotFoundError(
        f"{folder}: has gates in {checkpoint.name} ({of_gate}), for a model whose class applies gates itself"
        f" (docs/deployment.md), and no {GATES}, which save_gates(model, folder / {GATES!r}) writes beside it"
    )
