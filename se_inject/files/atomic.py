"""Writing files so that a kill at any moment leaves the old content or the new, never a part."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file to write to, which becomes ``path`` when the block ends without an error; readable as the umask says.

    Its folder is made. Where ``path`` is a link, the file that it leads to is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "report.json")) as temporary:
    ...         _ = temporary.write_text("{}")
    ...     [file.name for file in Path(folder).iterdir()]
    ['report.json']
    """
    path = Path(os.path.realpath(path))  # not the link to it
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.partial{path.suffix}")  # writers go by the suffix
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # as safetensors' own writer makes files that only their owner can read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a file as ``replacing`` does.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "gates", "config.json"), b"{}")
    ...     [file.name for file in Path(folder, "gates").iterdir()]
    ['config.json']
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)
