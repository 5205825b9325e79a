"""Gates on the Hugging Face Hub."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from torch import nn

from ..errors import ArgumentTypeError, GateFileError, InvalidArgumentError, first_line
from .save import GATES, Path_, contents, write_folder

_SCHEME = "hf://"


def push_gates(
    model: nn.Module,
    repository: str,
    *,
    include: str | Iterable[str] = (),
    digest: bool = False,
    base: str = "",
    metrics: Mapping[str, float | str] | None = None,
    private: bool = False,
) -> str:
    """Save the gates of ``model`` to ``user/name`` on the Hugging Face Hub, which is made if need be; returns the URL.

    ``load_gates(model, "hf://user/name")`` loads them. The other arguments are those of ``save_gates``. Needs
    huggingface_hub (``pip install 'se-inject[hub]'``) and its login.

    Raises the errors of ``save_gates``, and those of huggingface_hub.

    >>> push_gates(nn.ReLU(), "user/name")
    Traceback (most recent call last):
    se_inject.errors.NoGateError: the model has no gates; call se_inject.apply(model) first
    """
    if not isinstance(repository, str):
        raise ArgumentTypeError(f"repository must be a name such as 'user/name', got {type(repository).__name__}")
    description, content = contents(model, include, digest, base, metrics)
    hub = _huggingface_hub()
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), description, content, source=f"{_SCHEME}{repository}")
        api = hub.HfApi()
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Gates saved by se_inject")
    return str(url)


def is_on_hub(path: Path_) -> bool:
    """Whether a path names a repository on the hub.

    >>> is_on_hub("hf://user/name"), is_on_hub("gates.safetensors")
    (True, False)
    """
    return isinstance(path, str) and path.startswith(_SCHEME)


def local_file(address: Path_) -> Path:
    """The file of gates at ``hf://user/name@revision``, downloaded or from the cache. Raises ``GateFileError``."""
    repository, _, revision = os.fspath(address).removeprefix(_SCHEME).partition("@")
    hub = _huggingface_hub()
    try:
        return Path(hub.hf_hub_download(repository, GATES, revision=revision or None))
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        raise GateFileError(f"{address}: cannot be fetched: {first_line(error)}") from error


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub  # an extra: files and folders do without
        import huggingface_hub.errors
    except ImportError as error:
        raise InvalidArgumentError("hf:// needs huggingface_hub: pip install 'se-inject[hub]'") from error
    return huggingface_hub
