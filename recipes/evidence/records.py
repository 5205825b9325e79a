"""Records of trainings: what each was, and what it came to; a line of JSON each, in a file a setting."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..errors import CheckpointError
from ..files import replacing


@dataclass(frozen=True, order=True)
class Job:
    """One training: an arm, with its seed and learning rate, on ``images`` of ``size`` pixels; 0 images are all."""

    arm: str
    seed: int
    lr: float
    network: str
    data: str
    images: int
    size: int
    epochs: int

    @property
    def setting(self) -> str:
        """What arms have in common: experiments with the same setting share trainings.

        >>> Job("gates", 0, 0.1, "resnet20", "digits", 0, 28, 2).setting
        'resnet20-digits-all-2'
        """
        return f"{self.network}-{self.data}-{self.images or 'all'}-{self.epochs}"


@dataclass(frozen=True)
class Record:
    """What a training came to; errors are in per cent.

    ``held_out`` is on images held out of the training data, by which learning rates are chosen; ``top1``, ``loss`` and
    ``ece`` (expected calibration error) are on the test images, ``corrupted`` has top-1 errors on other versions of
    them, ``domains`` that of each domain, if there are several. ``parameters`` are those that were trained, ``stored``
    the bytes of all that training changed, ``step`` the mean seconds of a step, ``seconds`` those of the training. A
    training that diverged has errors of 100, and neither ``loss`` nor ``ece``.
    """

    job: Job
    held_out: float
    top1: float
    loss: float | None
    ece: float | None
    corrupted: dict[str, float]
    parameters: int
    stored: int
    step: float
    seconds: float
    device: str
    torch: str
    domains: dict[str, float] = field(default_factory=dict)  # the first records have none


@dataclass(frozen=True)
class Records:
    """The records in a folder, ``<setting>.jsonl`` each; the same records are the same bytes.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> records = Records(Path(folder.name))
    >>> job = Job("gates", 0, 0.1, "resnet20", "digits", 500, 28, 2)
    >>> records.add(Record(job, 9.0, 10.0, 0.3, 2.0, {"noise": 30.0}, 5784, 23136, 0.1, 60.0, "cpu", "2.6.0"))
    >>> [record.top1 for record in records.of(job.setting)], records.done(job).loss
    ([10.0], 0.3)
    >>> folder.cleanup()
    """

    folder: Path

    def of(self, setting: str) -> list[Record]:
        """All of a setting, in the order of their jobs; none if there is no file.

        Raises ``CheckpointError``, with the line, for a damaged file.
        """
        path, found = self._path(setting), dict[Job, int]()
        records = []
        for number, line in enumerate(_lines(path), 1):
            try:
                record = _from_json(line)
                if record.job.setting != setting:
                    raise ValueError(f"it is of the setting {record.job.setting!r}")
                if record.job in found:
                    raise ValueError(f"line {found[record.job]} is of the same training")
            except (ValueError, TypeError, AttributeError) as error:
                raise CheckpointError(
                    f"{path}, line {number}: is no record of a training ({error}); remove the line, and run its "
                    "experiments again, which do what is missing"
                ) from error
            found[record.job] = number
            records.append(record)
        return sorted(records, key=lambda record: record.job)

    def done(self, job: Job) -> Record | None:
        """The record of this training, if it has been done."""
        return next((record for record in self.of(job.setting) if record.job == job), None)

    def add(self, record: Record) -> None:
        """Write a record, in place of one of the same job; several processes may do so at once.

        Raises ``CheckpointError`` for a damaged file, or a record that could not be read again, ``SettingsError`` for a
        file that cannot be written.
        """
        try:
            record = _from_json(_to_json(record))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{record.job}: cannot be recorded ({error})") from error
        path = self._path(record.job.setting)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            others = [other for other in self.of(record.job.setting) if other.job != record.job]
            kept = sorted([*others, record], key=lambda record: record.job)
            with replacing(path) as temporary:
                temporary.write_text("".join(f"{_to_json(each)}\n" for each in kept))

    def _path(self, setting: str) -> Path:
        return self.folder / f"{setting}.jsonl"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); restore it, or remove it") from error


def _to_json(record: Record) -> str:
    """Measured values have six digits, which is more than was measured; the job, which is a key, has all."""
    content = {name: _rounded(value) for name, value in asdict(record).items()} | {"job": asdict(record.job)}
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in sorted(value.items())}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _from_json(line: str) -> Record:
    """Raises ``ValueError``, ``TypeError`` or ``AttributeError`` for what is no record."""
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("it is no object of JSON")
    record = Record(Job(**content.pop("job", {})), **content)
    for part in (record.job, record):
        for each in fields(part):
            _check(each.name, getattr(part, each.name), each.type)
    return record


def _check(name: str, value: object, kind: Any) -> None:
    if kind == dict[str, float]:
        for key, each in value.items():  # type: ignore[attr-defined]
            _check(f"{name}.{key}", each, float)
    elif not (isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))):
        raise ValueError(f"{name} is {value!r}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}")
