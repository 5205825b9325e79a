"""Files that other packages bring along: pretrained weights and data sets."""

from importlib.util import find_spec
from pathlib import Path

from ..errors import DataError


def packaged(package: str, file: str) -> Path:
    """The path of ``file`` in an installed package, which is not imported, as it may need others.

    Raises ``DataError`` if the package is not installed, or has no such file.

    >>> packaged("sklearn", "datasets/data/digits.csv.gz").name
    'digits.csv.gz'
    """
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, file)
        if path.is_file():
            return path
    why = "is not installed" if spec is None else f"has no file {file}"
    raise DataError(f"the package {package} {why}; pip install 'se-inject[evidence]'")
