"""Tensors with a description in one safetensors file, under a checksum of all of its bytes.

The checksum stands in the file's header, which has 64 zeros in its place when the bytes are summed.
"""

import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import GateFileError, GateFileNotFoundError, first_line

_UNSUMMED = "0" * 64
_SUM = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')  # JSON in JSON, which no name and no text in it can look like
_LONGEST_HEADER = 16 << 20  # bytes; a header has a line for each tensor


def packed(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    """The bytes of a file; the same for the same content.

    >>> import torch
    >>> b"sha256" in packed({"weight": torch.zeros(2)}, {"format": 1})
    True
    """
    # One entry only, as safetensors writes several in any order.
    raw = safetensors.torch.save(tensors, {"se_inject": json.dumps(about | {"sha256": _UNSUMMED}, allow_nan=False)})
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
    raw, digest = _read(path)
    try:
        about = strict_json(strict_json(raw[8 : 8 + _header_size(raw)])["__metadata__"]["se_inject"])
        if about.pop("sha256") != digest:
            raise ValueError("the checksum is elsewhere")
        return safetensors.torch.load(raw), about
    except (
        *(safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError),
        *(RecursionError, RuntimeError, AssertionError),
    ) as error:
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


def _read(path: Path) -> tuple[bytes, str]:
    """A file, and its checksum, which is right; nothing else is believed before that is known."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            longest = min(path.stat().st_size - 8, _LONGEST_HEADER)
            if len(head) < 8 or not 2 <= _header_size(head) <= longest:
                raise GateFileError(f"{path}: is truncated, or no safetensors file")
            head += file.read(_header_size(head))
            digests = _SUM.findall(head)
            if len(digests) != 1:
                raise GateFileError(
                    f"{path}: has no checksum: it is damaged, or not one that se_inject.save_gates(model, path) wrote"
                )
            digest: str = digests[0].decode()
            sum_of_all = hashlib.sha256(head.replace(_summed(digest), _summed(_UNSUMMED)))
            parts = [head]
            while part := file.read(1 << 20):
                sum_of_all.update(part)
                parts.append(part)
    except FileNotFoundError as error:
        raise GateFileNotFoundError(f"{path}: there is no such file") from error
    except (OSError, MemoryError) as error:
        raise GateFileError(f"{path}: cannot be read: {first_line(error)}") from error
    if sum_of_all.hexdigest() != digest:
        raise GateFileError(f"{path}: its checksum is wrong, so that it is damaged: fetch or save it again")
    return b"".join(parts), digest


def _header_size(raw: bytes) -> int:
    return int(struct.unpack("<Q", raw[:8])[0])


def _summed(digest: str) -> bytes:
    """How a checksum stands in the header."""
    return json.dumps(f'"sha256": "{digest}"')[1:-1].encode()
