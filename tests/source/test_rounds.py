"""One expression in a loop that serves several layers: each round of the loop has a gate of its own."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

import se_inject

from ..support.blocks import conv
from ..support.forwards import X, assert_works
from ..support.promises import assert_same


class Chain(nn.Module):
    """Each step's output is added to the sum, and goes into the next step."""

    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList(conv() for _ in range(3))
        self.scale = 0.5

    def forward(self, x):
        out = x
        for step in self.steps:
            x = step(x)
            out = out + self.scale * x  # scaled
            x = torch.relu(x)
        return out

    def gated(self, x):
        """As a person would write it."""
        out = x
        for step, gate in zip(self.steps, [gate for _, gate in se_inject.gates(self)], strict=True):
            x = step(x)
            out = out + self.scale * gate(x)
            x = torch.relu(x)
        return out


class Later(Chain):
    """The first round adds nothing; the loop has a counter and takes its items apart already."""

    def forward(self, x):
        previous, se_round = None, 0
        for index, (_, step) in enumerate(self.steps.named_children()):
            if previous is not None:
                x = torch.add(x, previous)
            previous = step(x)
            se_round += index
        return x

    def gated(self, x):
        gates = iter([gate for _, gate in se_inject.gates(self)])
        previous = None
        for step in self.steps:
            x = x if previous is None else torch.add(x, next(gates)(previous))
            previous = step(x)
        return x


class Nested(Chain):
    """Its outer loop gives each step two turns, in which the step's one gate serves."""

    def forward(self, x):
        out = x
        for scale in (0.5, 2.0):
            for step in self.steps:
                x = step(x)
                out = out + x * scale
        return out

    def gated(self, x):
        out = x
        for scale in (0.5, 2.0):
            for step, (_, gate) in zip(self.steps, se_inject.gates(self), strict=True):
                x = step(x)
                out = out + gate(x) * scale
        return out


class InPlace(Chain):
    def forward(self, x):
        out = x * 1
        for i, step in (0, self.steps[0]), (1, self.steps[1]):
            kept = x = step(x)
            x = torch.tanh(x)
            kept += out
            out = kept + i
        return out * x.mean()

    def gated(self, x):
        out = x * 1
        for i, (_, gate) in enumerate(se_inject.gates(self)):
            x = self.steps[i](x)
            kept, x = gate(x), torch.tanh(x)
            out = kept + out + i
        return out * x.mean()


def wake(model):
    for _, gate in se_inject.gates(model):
        nn.init.normal_(gate.fc2.weight)
        nn.init.normal_(gate.fc2.bias)


@pytest.mark.parametrize(("cls", "gates"), [(Chain, 3), (Later, 2), (Nested, 3)])
def test_each_round_has_a_gate_of_its_own(cls, gates):
    assert_works(cls())
    model = se_inject.apply(cls())
    wake(model)
    assert len(list(se_inject.gates(model))) == gates
    assert_same(model(X), model.gated(X))
    assert_same(pickle.loads(pickle.dumps(model))(X), model(X))
    lines = inspect.getsourcelines(type(model).forward)[0]
    assert len(lines) == len(inspect.getsourcelines(cls.forward)[0]) and "se_round" in "".join(lines)


def test_value_that_is_changed_in_place_elsewhere_is_not_gated_on_a_guess():
    with pytest.raises(se_inject.errors.NoBlockError):
        se_inject.apply(InPlace())


def test_rounds_that_come_later_have_no_gate_and_run():
    model = se_inject.apply(Chain())
    wake(model)
    model.steps.append(conv())
    del model.steps[0]
    plain = copy.deepcopy(model)
    assert se_inject.remove(plain)(X).shape == model(X).shape
    assert not torch.equal(plain(X), model(X))


def test_gates_chosen_one_by_one():
    model = Chain()
    paths = [site.gate_path for site in se_inject.find_sites(model)]
    se_inject.apply(model, where=lambda site: site.gate_path == paths[1])
    wake(model)
    [(_, gate)] = se_inject.gates(model)
    h = model.steps[0](X)
    out, h = X + 0.5 * h, model.steps[1](torch.relu(h))
    out, h = out + 0.5 * gate(h), model.steps[2](torch.relu(h))
    assert_same(model(X), out + 0.5 * h)


class Shifted(Chain):
    """Which layer's turn it is, its inner loop alone does not tell."""

    def forward(self, x):
        out = x
        for i in (0, 1):
            for k in (0, 1):
                x = self.steps[i + k](x)
                out = out + x
        return out


class OwnEnumerate(Chain):
    def forward(self, x):
        out, enumerate = x, 1  # noqa: A001
        for step in self.steps:
            x = step(x) * enumerate
            out = out + x
        return out


def test_what_a_round_does_not_tell_is_refused_with_the_place():
    sites = se_inject.find_sites(Shifted())
    assert [site.gate_path for site in sites] == ["steps.2.se"]  # nothing else uses what the last step makes
    assert len(sites.skipped) == 2 and all("test_rounds.py:" in reason for _, reason in sites.skipped)
    with pytest.raises(se_inject.errors.RewriteError, match="enumerate"):
        se_inject.apply(OwnEnumerate())
