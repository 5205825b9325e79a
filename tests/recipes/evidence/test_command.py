"""The command trains what is missing, chooses rates on held-out images, and writes the page."""

from dataclasses import replace

import pytest
from joblib import parallel_config

from recipes.commands import evidence
from recipes.errors import SettingsError, UnknownNameError
from recipes.evidence import page
from recipes.evidence.grid import EXPERIMENTS
from recipes.evidence.records import Record, Records

from .invented import experiment

TINY = experiment(images=20, size=8, epochs=1, arms=("scratch", "scratch, SE"), control="scratch", seeds=2)
TINY = replace(TINY, rates=(0.1, 0.2, 0.3))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "EXPERIMENTS", {"tiny": TINY})
    monkeypatch.setattr(evidence, "EXPERIMENTS", {"tiny": TINY})
    return tmp_path


@pytest.fixture
def trainings(monkeypatch):
    """The jobs that were trained; the error is the lower the higher the rate, on held-out images alone."""
    jobs = []

    def train(job, root, device):
        jobs.append(job)
        return Record(job, 1 - job.lr, 10 + job.lr, 0.5, 1.0, {}, 10, 40, 0.1, 1.0, "cpu", "2.6.0")

    monkeypatch.setattr("recipes.evidence.training.train", train)
    return jobs


def test_trains_what_is_missing_at_rates_chosen_on_held_out_images(folder, trainings):
    evidence.main(["tiny", "--out", str(folder)])
    assert len(trainings) == TINY.planned == 10
    assert {job.lr for job in trainings if job.seed == 1} == {0.2, 0.3}
    kept = Records(folder / "evidence").of(TINY.setting)
    trainings.clear()
    (folder / "evidence" / f"{TINY.setting}.jsonl").write_text(
        "".join((folder / "evidence" / f"{TINY.setting}.jsonl").read_text().splitlines(keepends=True)[:-2])
    )
    evidence.main(["tiny", "--out", str(folder)])
    assert len(trainings) == 2 and Records(folder / "evidence").of(TINY.setting) == kept
    assert "An experiment: tiny" in (folder / "evidence.md").read_text()


def test_what_experiments_share_is_trained_once(folder, trainings, monkeypatch):
    monkeypatch.setitem(evidence.EXPERIMENTS, "other", replace(TINY, name="other", control="scratch, SE"))
    evidence.main(["all", "--out", str(folder)])
    assert len(trainings) == len(set(trainings)) == 10


def test_short_trainings_come_first(folder, trainings, monkeypatch):
    for name, changes in (("all", {"images": 0}), ("long", {"epochs": 9}), ("short", {})):
        monkeypatch.setitem(evidence.EXPERIMENTS, name, replace(TINY, name=name, seeds=1, **changes))
    evidence.main(["all", "--out", str(folder)])
    amounts = [(job.images or 1e5) * job.epochs for job in trainings[: 3 * 6]]
    assert amounts == sorted(amounts) and len(set(amounts)) == 3


def test_refuses_a_folder_of_records_that_cannot_be_written_before_it_trains(folder, trainings):
    (folder / "evidence").touch()
    with pytest.raises(SettingsError, match="cannot be written"):
        evidence.main(["tiny", "--out", str(folder)])
    assert not trainings


def test_lists_experiments_and_writes_the_page_without_a_name(folder, trainings, capsys):
    evidence.main(["--out", str(folder)])
    assert not trainings and "0 of 10" in capsys.readouterr().out
    assert "Not run" in (folder / "evidence.md").read_text()


def test_refuses_an_unknown_name(folder):
    with pytest.raises(UnknownNameError, match="no experiment 'nothing'"):
        evidence.main(["tiny", "nothing", "--out", str(folder)])
    assert not any(folder.iterdir())


def test_trains_several_at_once(folder):
    with parallel_config("threading"):  # processes would take their time to start
        evidence.main(["tiny", "--out", str(folder), "--jobs", "2"])
    records = Records(folder / "evidence").of(TINY.setting)
    assert len(records) == 10 and all(0 < record.top1 <= 100 for record in records)


def test_trains_few_shot_where_the_data_are(folder, monkeypatch):
    monkeypatch.setattr("recipes.evidence.fewshot.train_fewshot", lambda job, root, device: job)
    job = replace(TINY.job("scratch", 0, 0.1), data="fewshot-digits")
    assert evidence._train(job, folder, 1) == job


def test_names_in_the_grid_are_whole():
    for name, one in EXPERIMENTS.items():
        assert one.name == name and one.control in one.arms and one.seeds >= 3
        assert replace(one, name=name) == one
