"""The promises for one block with an odd forward: it works with a gate, or is refused and left alone."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

import se_inject

from .promises import assert_same, exact_state

X = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def assert_works(module, *arguments, **keywords):
    """Both modes right after apply, with gates that are the identity and then with gates that are not."""
    arguments = arguments or (X,)
    plain, before = copy.deepcopy(module), exact_state(module)
    se_inject.apply(module)
    for training in (True, False, True):
        assert_same(*(seeded(model.train(training), arguments, keywords) for model in (plain, module)))
    assert [attributes(m) for m in own(module)] == [attributes(m) for m in own(plain)]
    assert se_inject.remove(module) is module and set(exact_state(module)) == set(before)
    se_inject.apply(module)
    for _, gate in se_inject.gates(module):
        nn.init.normal_(gate.fc2.bias)
        nn.init.normal_(gate.fc2.weight)
    with torch.no_grad():
        for training in (True, False):
            outputs = [first(seeded(model.train(training), arguments, keywords)) for model in (plain, module)]
            assert not torch.equal(*outputs)


def seeded(model, arguments, keywords):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    return model(*[a.clone() if isinstance(a, torch.Tensor) else a for a in arguments], **keywords)


def own(module):
    """The modules that are no gates, nor hold some."""
    gates = {m for _, gate in se_inject.gates(module) for m in gate.modules()}
    holders = {m for m in module.modules() if isinstance(m, nn.ModuleDict) and gates.issuperset(m.children())}
    return [m for m in module.modules() if m not in gates | holders]


def attributes(module):
    """What a forward may have counted or set, but for values."""
    return {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str))}


def first(output):
    return output if isinstance(output, torch.Tensor) else first(next(iter(output)))


def refused(module):
    before = exact_state(module)
    with pytest.raises(se_inject.errors.NoBlockError) as error:
        se_inject.apply(module)
    assert exact_state(module) == before
    [(path, reason)] = se_inject.find_sites(module).skipped
    assert path == "" and reason in str(error.value)
    return reason


def assert_gated_on_a_child(module, *children):
    """Where no expression is the value, the class stays as it is; the gate is on the output of what makes the value."""
    cls = type(module)
    assert [site.gate_path for site in se_inject.find_sites(module)] == [f"{child}.se" for child in children]
    assert_works(module)
    assert type(module) is cls
