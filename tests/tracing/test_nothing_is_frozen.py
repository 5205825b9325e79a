"""What a gated forward reads is read at every call: modes, attributes, closures, globals, random streams, errors."""

import contextlib
import copy
import functools
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F  # noqa: N812

import se_inject

from ..support.blocks import block, conv
from ..support.forwards import X, assert_works, seeded
from ..support.promises import assert_same

NUMPY_RNG, PYTHON_RNG = np.random.default_rng(0), random.Random(0)
SETTINGS = {"scale": 1.0}


def gated(module):
    """A plain and a gated copy."""
    plain = copy.deepcopy(module)
    assert len(list(se_inject.gates(se_inject.apply(module)))) == 1
    return plain, module


def refused_or_gated(module):
    """Either will do, as long as it goes on as before."""
    with contextlib.suppress(se_inject.errors.NoBlockError):
        se_inject.apply(module)
    return module


def assert_same_outputs(pair, *arguments):
    assert_same(*(seeded(model, arguments or (X,), {}) for model in pair))


def test_numbers_of_numpy():
    assert_works(block(lambda self, x: (x + self.conv(x)) / np.sqrt(2.0), conv=conv()))
    assert_works(block(lambda self, x: np.sqrt(2.0) * x + np.float32(0.5) * self.conv(x), conv=conv()))


def test_mode_read_by_a_function_that_is_an_attribute():
    module = block(lambda self, x: x + self.drop(self.conv(x)), conv=conv())
    module.drop = lambda y: F.dropout(y, 0.5, module.training)
    se_inject.apply(module)
    assert_same(module.eval()(X), X + module.conv(X))
    assert not torch.equal(module.train()(X), module(X))


@pytest.mark.parametrize("draw", [lambda: NUMPY_RNG.random(), PYTHON_RNG.random], ids=["numpy", "python"])
def test_generators_of_the_module_are_drawn_from_at_every_call(draw):
    def forward(self, x):
        return x + self.conv(x) if draw() < 0.5 else x + 2 * self.conv(x)

    states = NUMPY_RNG.bit_generator.state, PYTHON_RNG.getstate()
    _, module = gated(block(forward, conv=conv()))
    assert (NUMPY_RNG.bit_generator.state, PYTHON_RNG.getstate()) == states
    assert len({module(X).sum().item() for _ in range(20)}) == 2


def test_handlers_run_when_what_is_tried_fails():
    def forward(self, x):
        try:
            y = self.conv(x) if x.shape[2] > 2 else self.missing(x)
        except AttributeError:
            y = self.conv(x) * 2
        return x + y

    pair = gated(block(forward, conv=conv()))
    assert_same_outputs(pair)
    assert_same_outputs(pair, X[:, :, :2])


def test_site_in_a_handler():
    def forward(self, x):
        try:
            return x + self.conv(x[:, :, 4])
        except RuntimeError:
            return x + self.conv(x)

    plain, module = gated(block(forward, conv=conv()))
    assert_same_outputs((plain, module))
    nn.init.normal_(module.se.fc2.bias)
    assert not torch.equal(module(X), plain(X))


@pytest.mark.filterwarnings("ignore:TF32")  # setting these flags back makes torch warn
def test_contexts_are_entered():
    seen = []

    def flags(self, x):
        with torch.backends.mkldnn.flags(enabled=False):
            seen.append(torch.backends.mkldnn.enabled)
            return x + self.conv(x)

    def hooks(self, x):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append("saved") or t, lambda t: t):
            return x + self.conv(x)

    for forward in (flags, hooks):
        seen.clear()
        _, module = gated(block(forward, conv=conv()))
        assert not seen
        module(X)
        assert seen and True not in seen


def test_method_without_gradients_found_without_gradients():
    @torch.no_grad()
    def forward(self, x):
        return x + self.conv(x)

    with torch.no_grad():
        _, module = gated(block(forward, conv=conv()))
    assert not module(X.clone().requires_grad_()).requires_grad


def test_state_of_libraries(tmp_path):
    def forward(self, x):
        y = self.conv(x)
        return x + (y * dist.get_world_size() * 3 if dist.is_initialized() else y)

    pair = gated(block(forward, conv=conv()))
    assert_same_outputs(pair)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert_same_outputs(pair)
        assert not torch.equal(pair[1](X), X + pair[1].conv(X))
    finally:
        dist.destroy_process_group()


class Config:
    scale = 1.0


class DropPath(nn.Module):
    drop_prob = 0.0

    def forward(self, x):
        return x * (1 - self.drop_prob)


def test_schedules_of_objects_children_and_globals():
    def forward(self, x):
        y = self.conv(x) * self.cfg.scale * SETTINGS["scale"]
        return x + (self.path(y) if self.path.drop_prob else y)

    module = block(forward, conv=conv(), path=DropPath())
    module.cfg = Config()
    pair = gated(module)
    for model in pair:
        model.cfg.scale, model.path.drop_prob = 0.5, 0.25
    assert_same_outputs(pair)
    assert_same(pair[1](X), X + module.conv(X) * 0.5 * 0.75)
    SETTINGS["scale"] = 2.0
    try:
        assert_same_outputs(pair)
    finally:
        SETTINGS["scale"] = 1.0


def test_what_can_be_called_and_who_is_who():
    def called(self, x, d=None):
        return x + (d(self.conv(x)) if callable(d) else self.conv(x))

    def by_id(self, x, known=()):
        return x + self.conv(x) * (2 if id(x) in known else 1)

    module = block(called, conv=conv())
    assert_same(module(X, F.relu), refused_or_gated(copy.deepcopy(module))(X, F.relu))
    assert_same(module(X), refused_or_gated(copy.deepcopy(module))(X))
    plain, module = gated(block(by_id, conv=conv()))
    assert_same(module(X, {id(X)}), plain(X, {id(X)}))
    assert_same(module(X), plain(X))


def test_child_chosen_by_the_text_of_a_size():
    def forward(self, x):
        k = str(x.shape[2])
        head = self.heads[k] if k in self.heads else self.conv  # noqa: SIM401
        return x + head(x)

    module = block(forward, conv=conv(), heads=nn.ModuleDict({"4": conv(), "8": conv()}))
    plain = copy.deepcopy(module)
    refused_or_gated(module)
    for size in (4, 8, 6):
        assert_same(module(X[:, :, :size]), plain(X[:, :, :size]))


@functools.lru_cache
def grid(size):
    return torch.linspace(0, 1, size)


def test_caches_hold_real_things():
    grid.cache_clear()
    module = block(lambda self, x: x + self.conv(x) * grid(8), conv=conv())
    expected = module(X)
    grid.cache_clear()
    se_inject.find_sites(module)
    assert type(grid(8)) is torch.Tensor
    assert_same(module(X), expected)
    by_size = block(lambda self, x: x + self.conv(x) * grid(x.shape[3]), conv=conv())
    se_inject.find_sites(by_size)
    assert_same(by_size(X), by_size(X))
    assert_works(by_size)
