"""The comparison of ways to adapt a network: same budget, rates chosen without the validation images, resumable."""

import json
import shlex
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from recipes.commands import compare, study
from recipes.commands.comparison import Record, picture, table
from recipes.errors import CheckpointError, RecipeError, SettingsError
from recipes.networks.any_model import Model
from recipes.training.step_costs import StepCosts

COSTS = {"plain": StepCosts(1000, 4000, 8, 0.25, 10**6), "gates": StepCosts(50, 200, 8, 0.125, 2 * 10**8)}


@pytest.fixture
def flags(tmp_path, folders):
    """Of a comparison of two ways with the control on three classes."""
    torch.manual_seed(0)
    torch.save(Model("se_resnet20", "none", 10).build().state_dict(), tmp_path / "w.pth")
    start = ["--model", "se_resnet20", "--weights", str(tmp_path / "w.pth"), "--data", str(folders), "--size", "16"]
    settings = ["--epochs", "2", "--batch", "4", "--seeds", "2", "--factors", "1", "3", "--augmentation", "none"]
    return [*start, *settings, "--train", "gates", "head", "--out", str(tmp_path / "out")]


class Trainings:
    """Stands for the training loop: notes what was to be trained, and ends with errors that follow from the rates."""

    def __init__(self, monkeypatch, best=3.0, killed_after=None, diverges=()):
        self.runs, self._best, self._killed_after, self._diverges = [], best, killed_after, diverges
        monkeypatch.setattr(study, "fit", self)
        monkeypatch.setattr(study, "step_costs", lambda arms, _: dict.fromkeys(arms, COSTS["plain"]))
        monkeypatch.setattr(study.Study, "network", lambda *_: nn.Linear(1, 1))
        monkeypatch.setattr(study, "check_input", lambda *_: None)

    def __call__(self, run, network, accelerator):
        if len(self.runs) == self._killed_after:
            raise KeyboardInterrupt
        self.runs.append(run)
        factor = run.settings.lr / 2e-4
        if factor in self._diverges:
            raise RecipeError("the loss is no longer a number")
        run.folder.mkdir(parents=True, exist_ok=True)
        run.checkpoint.write_bytes(b"")
        error = 20 + abs(factor - self._best) + run.settings.seed
        return [{"epoch": run.settings.epochs, "val_loss": 1.0, "val_top1": error, "val_top5": 0.0, "seconds": 1.5}]


def test_compare(flags, tmp_path, capsys):
    """The real thing, small: its files say the same, and a second call trains nothing."""
    flags += ["--epochs", "1", "--factors", "1"]
    final = compare.main(flags)
    out = tmp_path / "out"
    assert [(record.way, record.seed) for record in final] == [
        (way, seed) for way in ("plain", "gates", "head") for seed in (0, 1)
    ]
    found = json.loads((out / "compare.json").read_text())
    assert found["trainings"] == [asdict(record) for record in final] and not found["choosing"]
    text = (out / "compare.md").read_text()
    assert text in capsys.readouterr().out and "12 training images" not in text and "18 training images" in text
    mean = np.mean([record.top1 for record in final if record.way == "gates"])
    assert f"| gates                               | {mean:.2f} ±" in text
    with Image.open(out / "compare.png") as image:
        assert image.size[0] > 500
    costs = {way: StepCosts(**cost) for way, cost in found["costs"].items()}
    plain, gated = Model("se_resnet20", "none", 3).build(), Model("se_resnet20", "identity", 3).build()
    count = sum(p.numel() for p in plain.parameters())
    assert costs["plain"].parameters == count and costs["head"].parameters == 64 * 3 + 3
    assert costs["gates"].parameters == sum(p.numel() for p in gated.parameters()) - count + 195
    assert costs["head"].stored == 4 * 195
    assert costs["plain"].stored == sum(value.nbytes for value in plain.state_dict().values())
    assert costs["plain"].peak_memory > costs["gates"].peak_memory > costs["head"].peak_memory > 4 * count
    assert all(cost.seconds > 0 and cost.images == 4 for cost in costs.values())
    assert not list(out.rglob("last.pt"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("record.json")}
    assert compare.main(flags) == final and before == {path: path.stat().st_mtime_ns for path in before}


def test_rates_are_chosen_for_each_way_on_a_part_of_the_training_images(flags, monkeypatch):
    trainings = Trainings(monkeypatch)
    final = compare.main(flags)
    choosing, by_seed = trainings.runs[:2], trainings.runs[2:4]
    assert [run.settings.lr for run in choosing] == pytest.approx([2e-4, 6e-4])
    assert [run.settings.gate_lr for run in choosing] == pytest.approx([2e-3, 6e-3])
    assert [run.settings.head_lr for run in choosing] == pytest.approx([2e-3, 6e-3])
    train, val = ({run.data.train.digest for run in runs} for runs in (choosing, by_seed))
    assert len(train) == len(val) == 1 and train != val
    assert {len(run.data.train.labels) for run in choosing} == {15}
    assert {run.data.val.digest for run in choosing}.isdisjoint({run.data.val.digest for run in by_seed})
    assert all(run.settings.lr == pytest.approx(6e-4) for run in by_seed) and {r.factor for r in final} == {3.0}
    assert [run.settings.seed for run in by_seed] == [0, 1]
    assert [(run.trained, run.model.gates) for run in trainings.runs[::4]] == [
        ("all", "none"),
        ("gates", "identity"),
        ("head", "none"),
    ]
    assert all(run.head == ("fc",) for run in trainings.runs)


def test_one_rate_needs_no_choice(flags, monkeypatch):
    trainings = Trainings(monkeypatch)
    compare.main([*flags, "--factors", "0.5"])
    assert [run.settings.lr for run in trainings.runs] == pytest.approx([1e-4] * 6)


def test_rates_that_diverge_are_not_chosen(flags, monkeypatch):
    Trainings(monkeypatch, diverges=[pytest.approx(3)])
    assert {record.factor for record in compare.main(flags)} == {1.0}
    Trainings(monkeypatch, diverges=[pytest.approx(30), pytest.approx(90)])
    with pytest.raises(RecipeError, match="plain: the loss is no number at any of the rates"):
        compare.main([*flags, "--factors", "30", "90"])


def test_a_killed_comparison_goes_on_where_it_was(flags, tmp_path, monkeypatch):
    whole = Trainings(monkeypatch)
    expected = compare.main([*flags, "--out", str(tmp_path / "whole")])
    first = Trainings(monkeypatch, killed_after=7)
    with pytest.raises(KeyboardInterrupt):
        compare.main(flags)
    second = Trainings(monkeypatch)
    assert compare.main(flags) == expected
    names = [[run.folder.relative_to(run.folder.parents[1]) for run in each.runs] for each in (whole, first, second)]
    assert names[1] + names[2] == names[0] and len(names[2]) == 5


def test_another_comparison_needs_another_folder(flags, tmp_path, monkeypatch):
    Trainings(monkeypatch)
    compare.main(flags)
    for more in (["--weight-decay", "0.5"], ["--epochs", "3"], ["--reduction", "4"], ["--per-class", "5"]):
        with pytest.raises(SettingsError, match="is of another comparison"):
            compare.main([*flags, *more])
    (tmp_path / "out" / "head" / "seed-1" / "record.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"record\.json: is damaged \(JSONDecodeError\); remove it"):
        compare.main(flags)


def test_compare_at_the_same_time(flags, monkeypatch):
    """An epoch is 18 / 8 steps of a quarter of a second."""
    trainings = Trainings(monkeypatch)
    without = [flag for i, flag in enumerate(flags) if "--epochs" not in flags[max(i - 1, 0) : i + 1]]
    compare.main([*without, "--seconds", "3"])
    assert {run.settings.epochs for run in trainings.runs} == {5}
    with pytest.raises(SettingsError, match="instead of --epochs"):
        compare.main([*flags, "--seconds", "3"])


@pytest.mark.parametrize("more", [["--factors", "0"], ["--factors", "1", "1"], ["--factors", "nan"]])
def test_compare_refuses(flags, more, tmp_path):
    with pytest.raises(SettingsError, match="different numbers above 0"):
        compare.main([*flags, *more])
    assert not (tmp_path / "out").exists()


def test_compare_evaluate_prints_the_papers_tables(tmp_path, capsys):
    assert compare.main(["--evaluate", "--out", str(tmp_path / "tables.md")]) == []
    assert (tmp_path / "tables.md").read_text() in capsys.readouterr().out


def _records(errors):
    return [
        Record(way, seed, 1.0, 2, 0.5, error, 0.0, 1.0)
        for way, values in errors.items()
        for seed, error in enumerate(values)
    ]


def test_the_table_pairs_differences_by_seed():
    records = _records({"plain": [10.0, 20.0], "gates": [9.0, 19.0]})
    header, _, control, gated = table(records, COSTS).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (header, control, gated)]
    assert cells[0][:3] == ["trained", "top-1 error %", "to the control"]
    assert cells[2] == ["gates", "14.00 ± 63.53", "-1.00 ± 0.00", "50", "0.2 kB", "125 ms", "200 MB", "1", "2"]
    assert cells[1][0] == "everything, without gates (control)" and cells[1][2] == ""
    diverged = table([replace(record, loss=None) for record in records[:3]] + records[3:], COSTS)
    assert "| 14.00 ± 63.53, 1 diverged |" in diverged
    single = table(_records({"plain": [10.0], "gates": [9.0]}), COSTS)
    assert "| 9.00 " in single and "nan" not in single


def test_the_picture_draws_the_table():
    figure = picture(_records({"plain": [10.0, 20.0], "gates": [9.0, 19.0]}), COSTS)
    axes = figure.axes[0]
    points = {one.get_label(): one for one in axes.containers}
    assert list(points) == ["everything, without gates (control)", "gates"]
    line, _, (bar,) = points["gates"].lines
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (50, 14.0)
    (low, high) = bar.get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(63.53, abs=0.01)
    assert axes.get_xscale() == "log" and figure.legends and axes.get_ylim()[0] == 0


def test_nothing_is_held_out_for_one_rate(flags, monkeypatch):
    trainings = Trainings(monkeypatch)
    compare.main([*flags, "--factors", "1", "--per-class", "2", "--batch", "1"])
    assert {len(run.data.train.labels) for run in trainings.runs} == {6}
    compare.main([*flags, "--factors", "1", "--per-class", "1", "--batch", "1", "--out", f"{flags[-1]}-single"])


def test_lengths_are_not_chosen_on_the_validation_images(flags, monkeypatch):
    Trainings(monkeypatch)
    with pytest.raises(SettingsError, match=r"--patience would choose .* on the validation images; leave it out"):
        compare.main([*flags, "--patience", "1"])
    without = [flag for i, flag in enumerate(flags) if "--epochs" not in flags[max(i - 1, 0) : i + 1]]
    with pytest.raises(SettingsError, match="--seconds is of steps as they are without --cache"):
        compare.main([*without, "--seconds", "3", "--cache"])


def test_features_are_cached_where_possible(flags, tmp_path, monkeypatch):
    fit, cached = study.fit, []

    def noted(run, network, accelerator):
        cached.append(run.cache)
        return fit(run, network, accelerator)

    monkeypatch.setattr(study, "fit", noted)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100, total=1 << 40))
    more = ["--train", "head", "--seeds", "1", "--factors", "1", "--epochs", "1", "--cache"]
    compare.main([*flags, *more])
    assert cached == [False, True, False]  # the control, and the head, for whose features there is no memory


def test_the_page_has_a_command_that_a_shell_reads(flags, tmp_path, monkeypatch):
    Trainings(monkeypatch)
    compare.main([*flags, "--out", str(tmp_path / "my comparison")])
    text = (tmp_path / "my comparison" / "compare.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("python -m recipes compare"))
    assert shlex.split(line)[-1] == str(tmp_path / "my comparison")


def test_budgets_that_cannot_be_kept_are_told_before_anything_is_trained(flags, monkeypatch):
    trainings = Trainings(monkeypatch)
    with pytest.raises(
        SettingsError, match=r"a batch of 16 is more than the 15 training images that are left when some"
    ):
        compare.main([*flags, "--batch", "16"])
    without = [flag for i, flag in enumerate(flags) if "--epochs" not in flags[max(i - 1, 0) : i + 1]]
    with pytest.raises(SettingsError, match=r"plain: an epoch takes 0\.562 seconds of steps, more than --seconds 0\.5"):
        compare.main([*without, "--seconds", "0.5"])
    assert not trainings.runs
