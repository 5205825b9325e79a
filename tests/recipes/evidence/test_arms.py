"""What records were made with: a changed arm or setting needs a name of its own, as records are found by name alone."""

from pathlib import Path

import pytest
import torch

from recipes.evidence import networks, training
from recipes.evidence.arms import ARMS
from recipes.evidence.grid import EXPERIMENTS
from recipes.evidence.page import read_evidence
from recipes.evidence.training import Learner
from recipes.training.settings import Settings

RECORDS = Path(__file__).parents[3] / "docs" / "evidence"
DECLARED = dict(ARMS)  # as long as no invented ones are among them


@pytest.fixture(autouse=True)
def declared(arms, monkeypatch):
    for name, arm in DECLARED.items():
        monkeypatch.setitem(ARMS, name, arm)


def test_settings_of_the_records():
    fine = Settings(optimizer="adamw", batch=64, schedule="cosine", weight_decay=0.01)
    assert fine == training.FINE_TUNING
    assert Settings(optimizer="sgd", batch=512, schedule="cosine", weight_decay=5e-4) == training.FROM_SCRATCH
    assert training.CORRUPTED == 1000


def test_records_are_of_the_arms_as_they_are_now(monkeypatch):
    """By what is trained and stored, of which little is left to chance."""
    monkeypatch.setattr(networks, "packaged", lambda *names: Path("weights"))
    monkeypatch.setattr(networks, "read_weights", lambda path: {})
    monkeypatch.setattr(networks, "_load", lambda *parts: None)
    found = (record for records in read_evidence(RECORDS).values() for record in records)
    trained = {record.job: record for record in found if "fewshot" not in record.job.data}  # which have no head
    several = {(job.arm, job.network, "three" in job.data): record for job, record in trained.items()}
    assert several
    for record in several.values():
        if record.job.arm == "lora":
            pytest.importorskip("peft")
        learner = Learner(record.job, 30 if record.job.data == "three-datasets" else 10, torch.device("cpu"))
        assert learner.changed() == (record.parameters, record.stored), record.job


def test_arms_of_the_ablations_differ_from_their_control_in_one_thing():
    ablations = EXPERIMENTS["ablations"]
    assert ablations.control_of("pre") == "skip" and ARMS["pre"].place == ARMS["skip"].place
    for arm in ("r4", "r64", "standard", "max", "eca"):
        assert ablations.control_of(arm) == "all" and ARMS[arm].place == ARMS["all"].place
