"""Tensors with a description in one safetensors file, under a checksum of all of its bytes.

The checksum stands in the file's header, which has 64 zeros in its place when the bytes are summed.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import GateFileError, GateFileNotFoundError, first_line

_UNSUMMED = "0" * 64
_LONGEST_HEADER = 64 << 20  # bytes; a header has a line for each tensor


def packed(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    """The bytes of a file; the same for the same content.

    >>> import torch
    >>> b"sha256" in packed({"weight": torch.zeros(2)}, {"format": 1})
    True
    """
    # One entry only, as safetensors writes several in any order.
    raw = safetensors.torch.save(tensors, {"se_inject": json.dumps(about | {"sha256": _UNSUMMED})})
    head_size = 8 + _header_size(raw)
    digest = hashlib.sha256(raw).hexdigest()
    return raw[:head_size].replace(_summed(_UNSUMMED), _summed(digest)) + raw[head_size:]


def unpacked(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors and the description in a file. Raises ``GateFileError`` unless every bit is as it was written.

    >>> unpacked(Path("no_such.safetensors"))
    Traceback (most recent call last):
    ...
    se_inject.errors.GateFileNotFoundError: no_such.safetensors: there is no such file
    """
    raw = _read(path)
    header, head_size = _header(raw, path)
    try:
        about = strict_json(header["__metadata__"]["se_inject"])
        digest = about.pop("sha256")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise GateFileError(
            f"{path}: is no file of gates, or damaged; se_inject.save_gates(model, path) writes them"
        ) from error
    if not isinstance(digest, str) or not _is_sum_of(digest, raw, head_size):
        raise GateFileError(f"{path}: its checksum is wrong, so that it is damaged: fetch or save it again")
    try:
        return safetensors.torch.load(raw), about
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise GateFileError(f"{path}: cannot be read: {first_line(error)}") from error


def strict_json(text: str | bytes) -> Any:
    """What JSON says, without what only Python knows, and each name once.

    >>> strict_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: 'a' is there twice
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise GateFileNotFoundError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise GateFileError(f"{path}: cannot be read: {first_line(error)}") from error


def _header_size(raw: bytes) -> int:
    return int(struct.unpack("<Q", raw[:8])[0])


def _header(raw: bytes, path: Path) -> tuple[dict[str, Any], int]:
    """What safetensors' header says, and where it ends."""
    size = _header_size(raw) if len(raw) >= 8 else 0
    if not 2 <= size <= min(len(raw) - 8, _LONGEST_HEADER):
        raise GateFileError(f"{path}: is truncated, or no safetensors file")
    try:
        header = strict_json(raw[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise GateFileError(f"{path}: its header is damaged, or it is no safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise GateFileError(f"{path}: is no safetensors file")
    return header, 8 + size


def _summed(digest: str) -> bytes:
    """How a checksum stands in the header: JSON in JSON, which no name and no text in it can look like."""
    return json.dumps(f'"sha256": "{digest}"')[1:-1].encode()


def _is_sum_of(digest: str, raw: bytes, head_size: int) -> bool:
    head = raw[:head_size]
    if len(digest) != len(_UNSUMMED) or head.count(_summed(digest)) != 1:
        return False
    sum_of_all = hashlib.sha256(head.replace(_summed(digest), _summed(_UNSUMMED)))
    sum_of_all.update(memoryview(raw)[head_size:])
    return sum_of_all.hexdigest() == digest
