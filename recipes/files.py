"""Writing files so that a kill at any moment, or a full disk, leaves the old content or the new, never a part."""

import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from se_inject.files import atomic

from .errors import SettingsError


def check_writable(path: Path) -> None:
    """Raise ``SettingsError`` unless ``path`` can be written; makes its folder.

    >>> check_writable(Path("/proc/report.json"))
    Traceback (most recent call last):
    ...
    recipes.errors.SettingsError: /proc/report.json: cannot be written ...
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError("it is there, and no regular file")
    except (OSError, ValueError) as error:  # ValueError for a name with a null character
        raise SettingsError(f"{path}: cannot be written ({error}); choose another --out") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` when the block ends without an error.

    Raises ``SettingsError`` where it cannot be written, such as on a full disk; ``path`` is then as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "report.json")) as temporary:
    ...         _ = temporary.write_text("{}")
    ...     [file.name for file in Path(folder).iterdir()]
    ['report.json']
    """
    try:
        with atomic.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be written ({error.strerror or error}); what was there is unchanged; free space on its "
            "disk, or choose another --out; training goes on from its last checkpoint with --resume"
        ) from error


def remove_partial(folder: Path) -> None:
    """Remove what killed processes had begun to write in a folder that is nobody else's.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / ".0123456789abcdef.partial.pt").touch()
    >>> remove_partial(folder)
    >>> list(folder.iterdir())
    []
    """
    for path in folder.glob(".*.partial*"):
        path.unlink(missing_ok=True)
