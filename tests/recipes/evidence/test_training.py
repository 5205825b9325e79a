"""A training learns, is the same each time, and changes what its arm says alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import se_inject
from recipes.evidence import sources, training
from recipes.evidence.corruptions import CORRUPTIONS
from recipes.evidence.records import Job
from recipes.evidence.sources import load
from recipes.evidence.training import Learner, train

CPU = torch.device("cpu")
JOB = Job("scratch, SE", 0, 0.1, "resnet20", "digits", 400, 12, 3)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Small batches, and one thread, as several sum up in another order each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "FROM_SCRATCH", replace(training.FROM_SCRATCH, batch=25))
        patch.setattr(training, "CORRUPTED", 50)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def record():
    return train(JOB, Path(), CPU)


def test_learns_and_measures(record):
    assert record.top1 < 60  # of ten classes; by chance 90
    assert record.held_out == pytest.approx(record.top1, abs=15) and record.held_out != record.top1
    assert 0 < record.ece < 100 and record.loss > 0 and len(record.corrupted) == 5
    assert record.parameters == 275_506 and record.stored > 4 * record.parameters  # and the statistics of norms
    assert 0 < record.step < record.seconds


def test_is_the_same_again(record):
    again = train(JOB, Path(), CPU)
    assert replace(again, step=record.step, seconds=record.seconds) == record


def test_errors_of_several_domains(record, monkeypatch):
    """That of all is their mean by their numbers of images; of one domain, there is none beside that of all."""
    assert record.domains == {}
    corrupted = sources._corrupted(load("digits", Path(), 100, 0))
    monkeypatch.setattr(training, "load", lambda *given: corrupted)
    several = train(replace(JOB, epochs=1), Path(), CPU)
    assert [*several.domains] == [*CORRUPTIONS] and len(set(several.domains.values())) > 1
    counts = corrupted.test.domains.bincount().tolist()
    mean = sum(error * count for error, count in zip(several.domains.values(), counts, strict=True)) / sum(counts)
    assert several.top1 == pytest.approx(mean)


def test_diverged():
    record = train(replace(JOB, lr=1e30, images=100, epochs=1), Path(), CPU)
    assert (record.top1, record.loss, record.ece) == (100, None, None)


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items() if value.is_floating_point()}


def changes(network, before):
    return {name for name, value in network.state_dict().items() if name in before and not value.equal(before[name])}


@pytest.mark.parametrize(
    ("arm", "kinds"),
    [("head", {"head"}), ("norm", {"head", "norm"}), ("frozen gates", {"head", "gate"})],
)
def test_trains_what_the_arm_says_alone(arm, kinds):
    learner = Learner(replace(JOB, arm=arm, epochs=1, images=100, lr=0.01), 10, CPU)
    before = weights(learner.network)
    learner.fit(load("digits", Path(), 100, 0).train)
    found = set()
    for name in changes(learner.network, before):
        module = learner.network.get_submodule(name.rpartition(".")[0])
        parts = {"head": name.startswith("fc."), "gate": ".se." in name}
        parts["norm"] = isinstance(module, torch.nn.BatchNorm2d)
        found |= {kind for kind, is_one in parts.items() if is_one} or {name}
    assert found == kinds


def test_norms_are_trained_with_fixed_statistics():
    learner = Learner(replace(JOB, arm="norm, fixed statistics", epochs=1, images=100, lr=0.01), 10, CPU)
    before = weights(learner.network)
    learner.fit(load("digits", Path(), 100, 0).train)
    changed = changes(learner.network, before)
    norms = [name for name, module in learner.network.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and changed == {f"{name}.{part}" for name in [*norms, "fc"] for part in ("weight", "bias")}
    trained = sum(before[name].numel() for name in changed)
    assert learner.changed() == (trained, 4 * trained)


def test_arms_of_a_seed_begin_with_the_same_network():
    arms = ("scratch", "scratch, SE", "skip")
    plain, *gated = (Learner(replace(JOB, arm=arm), 10, CPU).network for arm in arms)
    for network in gated:
        assert next(iter(se_inject.gates(network)))
        assert all(network.state_dict()[name].equal(value) for name, value in plain.state_dict().items())
    images = torch.randn(2, 3, 12, 12)
    assert gated[1].eval()(images).equal(plain.eval()(images))  # gates of the identity form


def test_gates_learn_at_their_own_rate():
    changed = []
    for arm in ("all", "all, rate x10"):
        learner = Learner(replace(JOB, arm=arm, epochs=1, images=25), 10, CPU)
        learner.fit(load("digits", Path(), 25, 0).train)  # one step
        changed.append(torch.stack([gate.fc2.bias.norm() for _, gate in se_inject.gates(learner.network)]))
    assert torch.allclose(changed[1], 10 * changed[0], rtol=1e-3)
