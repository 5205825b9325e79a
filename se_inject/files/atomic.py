"""Writing files so that a kill at any moment leaves the old content or the new, never a part."""

import os
import secrets
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it; its folder is made. Readable as the umask says.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "gates", "config.json"), b"{}")
    ...     [file.name for file in Path(folder, "gates").iterdir()]
    ['config.json']
    """
    path = Path(os.path.realpath(path))  # not the link to it
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
