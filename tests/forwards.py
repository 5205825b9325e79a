"""The promises for one block with an odd forward: it works with a gate, or is refused and left alone."""

import copy
import random

import pytest
import torch
from torch import nn

import se_inject

from .promises import assert_same, exact_state

X = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def assert_works(module, *arguments, **keywords):
    """Both modes right after apply, with gates that are the identity and then with gates that are not."""
    arguments = arguments or (X,)
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    for training in (True, False, True):
        outputs = []
        for model in (plain.train(training), module.train(training)):
            torch.manual_seed(0)
            outputs.append(model(*[a.clone() if isinstance(a, torch.Tensor) else a for a in arguments], **keywords))
        assert_same(*outputs)
    for _, gate in se_inject.gates(module):
        nn.init.normal_(gate.fc2.bias)
        nn.init.normal_(gate.fc2.weight)
    with torch.no_grad():
        for training in (True, False):
            assert not torch.equal(
                first(module.train(training)(X, **keywords)), first(plain.train(training)(X, **keywords))
            )


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


def assert_gated_on_a_child(module, *children, inputs=None):
    """A forward that cannot be rewritten stays as it is; the gate is on the output of what makes the branch."""
    plain, cls, before = copy.deepcopy(module), type(module), exact_state(module)
    se_inject.apply(module)
    assert type(module) is cls
    assert [name for name, _ in se_inject.gates(module)] == [f"{child}.se" for child in children or ("conv",)]
    with torch.no_grad():
        for training in (True, False):
            outputs = []
            for model in (plain.train(training), module.train(training)):
                torch.manual_seed(0)
                random.seed(0)
                outputs.append(model(X))
            assert_same(*outputs)
        for _, gate in se_inject.gates(module):
            nn.init.normal_(gate.fc2.bias)
        assert not torch.equal(first(module.eval()(X)), first(plain.eval()(X)))
    assert se_inject.remove(module) is module and set(exact_state(module)) == set(before)
