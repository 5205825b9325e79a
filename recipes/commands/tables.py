"""The paper's tables, your networks on your data beside its figures: ``python -m recipes tables WEIGHTS --data DIR``.

WEIGHTS are NAME=FILE, or folders with NAME.safetensors, NAME.pth or NAME/model.safetensors in them, such as runs/ after
train. NAME is one of recipes.list_networks(), or LIBRARY/NAME, and "-plain" may follow it; the file tells whether its
network has gates. All are evaluated by the paper's protocol. Without WEIGHTS, the paper's figures are shown alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from tabulate import tabulate

from ..data.datasets import Data
from ..errors import CheckpointError, SettingsError
from ..files import check_writable, replacing
from ..networks.paper import TEAMS, Errors
from ..networks.systems import System, at_larger_crop, list_systems
from ..training.accelerator import make_accelerator
from ..training.metrics import mean_probability, score
from ..weights.described import describe
from ..weights.open import open_network
from .evaluate import Evaluation, check_ensemble, papers_inputs
from .flags import add_data_flags, data_from_flags, make_parser


class Which(NamedTuple):
    """A network by its name, with gates or plain, at its own size of inputs or at the larger one of Table 4."""

    name: str
    gated: bool
    larger: bool = False


Results = dict[Which, Errors]


def _named_files(weights: Sequence[str]) -> Iterator[tuple[str | None, Path]]:
    """The names and files that the arguments tell; files of ours in folders need no name."""
    for text in weights:
        name, equals, file = text.partition("=")
        folder = Path(text)
        if equals and name and file and not folder.exists():
            yield name, Path(file)
            continue
        if folder.is_file() and describe(folder):
            yield None, folder
            continue
        if not folder.is_dir():
            raise SettingsError(f"{text}: give NAME=FILE, a file of ours, or a folder; there is none of that name")
        if (folder / "model.safetensors").is_file():  # a run's own folder, with its checkpoints
            yield None, folder / "model.safetensors"
            continue
        files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".pth", ".pt")]
        runs = sorted(folder.glob("*/model.safetensors"))
        if not files and not runs:
            raise CheckpointError(f"{folder}: holds neither NAME.safetensors or NAME.pth nor NAME/model.safetensors")
        for path in [*files, *runs]:
            yield (None if describe(path) else path.stem), path


def _evaluations(weights: Sequence[str], size: int | None, data: Data) -> dict[Which, Evaluation]:
    """What is to be evaluated, all checked."""
    found: dict[Which, Evaluation] = {}
    for name, path in _named_files(weights):
        plain = name is not None and name.endswith("-plain")
        network, about = open_network(path, data, name.removesuffix("-plain") if name else None, plain)
        native = data.size is not None
        inputs = papers_inputs(about.preprocess.at(size, native) if size else about.preprocess, native)
        one = Evaluation(path, network, about.model, inputs)
        which = Which(about.model.name, about.model.gates != "none")
        if which in found:
            form = "with gates" if which.gated else "plain"
            raise SettingsError(
                f"{path}: there is a {form} {which.name} already, {found[which].path}; give one of them"
            )
        found[which] = one
        if any(which.name in system.networks and system.recipe.size <= 224 for system in list_systems(4)):
            larger = round(inputs.size * 320 / 224)
            found[which._replace(larger=True)] = replace(one, preprocess=inputs.at(larger, native))
    check_ensemble(found.values())
    return found


def measure(
    evaluations: dict[Which, Evaluation], data: Data, accelerator: Accelerator, workers: int = 0
) -> tuple[Results, Errors | None]:
    """The errors of each on the data, and of all fused, if there are several."""
    results, predictions = {}, []
    for which, one in evaluations.items():
        log_probability, labels = one.predict(data, accelerator, workers)
        predictions.append(log_probability)
        results[which] = _errors(score(log_probability, labels))
    several = len(predictions) > 1
    return results, _errors(score(mean_probability(predictions), labels)) if several else None


def _errors(scores: dict[str, float]) -> Errors:
    return Errors(scores["top1"], scores["top5"])


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [["-" if value is None else str(value) for value in row] for row in rows]
    text: str = tabulate(cells, headers, tablefmt="github", disable_numparse=True)
    return text


def _of(results: Results, names: Sequence[str], gated: bool, larger: bool = False) -> Errors | None:
    return next((results[which] for name in names if (which := Which(name, gated, larger)) in results), None)


def _beside(plain: Errors | None, gated: Errors | None) -> list[Errors | None]:
    return [plain, gated, gated - plain if plain and gated else None]


def _with_and_without(systems: Sequence[System], results: Results) -> str:
    """The layout of Tables 1 and 2."""
    rows = []
    for system in systems:
        paper, size = system.paper, system.recipe.size
        printed = [paper.original.get(size), *_beside(paper.plain.get(size), paper.se.get(size))]
        ours = _beside(*(_of(results, system.networks, gated) for gated in (False, True)))
        rows.append([system.title, *printed, *ours])
    printed_headers = ["its authors", "re-implemented", "SE", "difference"]
    return _table(["", *printed_headers, "here: plain", "here: SE", "here: difference"], rows)


def _two_crops(systems: Sequence[System], results: Results) -> str:
    """The layout of Table 4."""
    rows = []
    for system in systems:
        paper, wide = system.paper, system.recipe.size > 224  # then there is no smaller crop
        printed = [(paper.original or paper.se).get(224), at_larger_crop(paper)]
        ours = [
            None if wide and not larger else _of(results, system.networks, gated, larger and not wide)
            for gated in (False, True)
            for larger in (False, True)
        ]
        rows.append([system.title, *printed, *ours])
    here = [f"here: {form}{crop}" for form in ("plain", "SE") for crop in ("", ", larger crop")]
    return _table(["", "224 x 224", "320 x 320 / 299 x 299", *here], rows)


def page(results: Results, fused: Errors | None = None, data: str = "") -> str:
    """All tables as Markdown; errors are top-1 / top-5 in per cent.

    >>> results = {Which("se_resnet50", True): Errors(23.0, 6.5)}
    >>> "| 23.29 / 6.62 | -1.51 / -0.86 | -             | 23.00 / 6.50" in page(results)
    True
    """
    known = {name for system in list_systems() for name in system.networks}
    others = [
        [name, *_beside(*(_of(results, [name], gated) for gated in (False, True)))]
        for name in dict.fromkeys(which.name for which in results if which.name not in known)
    ]
    teams: list[list[Any]] = [[team.name, team.year, f"{team.top5:.3f}"] for team in TEAMS]
    if fused:
        teams.append([f"here: the {len(results)} above, fused", "", f"{fused.top5:.3f}"])
    sections = {
        "Table 1: deeper networks": _with_and_without(list_systems(1), results),
        "Table 2: other architectures": _with_and_without(list_systems(2), results),
        "Table 4: comparison with the state of the art": _two_crops(list_systems(4), results),
        "Table 5: the challenge, top-5 error on its test images": _table(["team", "year", "top-5 error"], teams),
    }
    if others:
        sections["Other networks"] = _table(["", "here: plain", "here: SE", "here: difference"], others)
    intro = "Errors are top-1 / top-5 in per cent; the paper's are of single crops of ImageNet's validation images."
    if data:
        intro += f'\n"here" is {data}.'
    intro += "\nThe larger crop has 320 pixels where the other has 224; Inception networks have 299 alone, PolyNet 331."
    return "\n\n".join([intro, *(f"## {title}\n\n{table}" for title, table in sections.items())]) + "\n"


def main(arguments: Sequence[str] | None = None) -> Results:
    """Run the command with these arguments, or the program's; returns the errors that were measured.

    Raises the errors of ``recipes.errors``.
    """
    parser = make_parser("tables", __doc__)
    parser.add_argument("weights", nargs="*", metavar="WEIGHTS", help="NAME=FILE, or folders of weights or of runs")
    parser.add_argument("--out", type=Path, default=Path("tables.md"), help="Markdown page (default: %(default)s)")
    add_data_flags(parser)
    flags = parser.parse_args(arguments)

    check_writable(flags.out)
    accelerator = make_accelerator()
    results: Results = {}
    fused, source = None, ""
    if flags.weights:
        data = data_from_flags(flags, accelerator, train=False)
        evaluations = _evaluations(flags.weights, flags.size, data)
        results, fused = measure(evaluations, data, accelerator, flags.workers)
        source = f"{len(data.val.labels):,} images of {data.name}"
    text = page(results, fused, source)
    if accelerator.is_main_process:
        with replacing(flags.out) as temporary:
            temporary.write_text(text)
        print(text)
    return results
