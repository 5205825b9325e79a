"""What rules a way is followed, whoever sets it, and what finding runs leaves no trace: strangers' ways to do both."""

import collections
import contextlib
import copy
import functools
import random
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch
from torch import nn

import se_inject

from ..support.blocks import block, conv
from ..support.forwards import X, assert_works
from ..support.promises import assert_same, exact_state

LOCK = threading.Lock()
STEP, NOTES, RAN = 0, [], []
SEEDS = types.ModuleType("seeds_of_a_test")
SEEDS.rng = sys.modules["seeds_of_a_test"] = np.random.default_rng(0)
SCALES = {}


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.other = conv(), conv()


def assert_gate_runs(module):
    """The only gate is where the forward really goes."""
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    assert_same(module(X), plain(X))
    [(_, gate)] = se_inject.gates(module)
    nn.init.normal_(gate.fc2.bias)
    assert not torch.equal(module(X), plain(X))


# What the forward sets


class State:
    on = False

    def __init__(self, h=None):
        self.h = h

    def push(self, function):
        self.h = function(self.h)

    def enable(self):
        self.on = True


class Config(dict):
    """A dictionary of the author's."""


class ByContext(Base):
    mode = "a"

    @contextlib.contextmanager
    def using(self, mode):
        old, self.mode = self.mode, mode
        try:
            yield
        finally:
            self.mode = old

    def forward(self, x):
        with self.using("b"):
            return x + (self.conv(x) if self.mode == "a" else self.other(x))


class ByObject(Base):
    class Using:
        def __init__(self, module):
            self.module = module

        def __enter__(self):
            self.module.mode = "b"

        def __exit__(self, *_):
            self.module.mode = "a"

    mode = "a"

    def forward(self, x):
        with ByObject.Using(self):
            return x + (self.conv(x) if self.mode == "a" else self.other(x))


class BySetter(Base):
    _mode = "a"

    @property
    def mode(self):
        return self._mode

    @mode.setter
    def mode(self, value):
        self._mode = value

    def forward(self, x):
        self.mode = "b"
        return x + (self.conv(x) if self.mode == "a" else self.other(x))


class ByItem(Base):
    def __init__(self):
        super().__init__()
        self.config = Config(mode="a")

    def forward(self, x):
        self.config["mode"] = "b"
        return x + (self.conv(x) if self.config["mode"] == "a" else self.other(x))


class ByClass(Base):
    ready = False

    def forward(self, x):
        type(self).ready = True
        return x + (self.other(x) if self.ready else self.conv(x))


class ByMethod(Base):
    def forward(self, x):
        state = State()
        state.enable()
        return x + (self.other(x) if state.on else self.conv(x))


@pytest.mark.parametrize("cls", [ByContext, ByObject, BySetter, ByItem, ByClass, ByMethod])
def test_what_a_forward_sets_rules_its_way(cls):
    assert_gate_runs(cls())


def test_objects_that_carry_a_value_are_followed():
    def forward(self, x):
        state = State(self.conv(x))
        state.push(self.other)
        return x + state.h

    module = block(forward, conv=conv(), other=conv())
    assert_works(module)
    gate = module.se
    nn.init.normal_(gate.fc2.bias)
    assert_same(module(X), X + gate(module.other(module.conv(X))))  # after the last convolution


def test_values_that_an_object_changes_in_place_are_not_gated():
    class Helper:
        def into(self, h, x):
            h.add_(x)

    def forward(self, x):
        h = self.conv(x)
        y = x + h
        self.helper.into(h, x)
        return y, h

    module = block(forward, conv=conv())
    module.helper = Helper()
    with pytest.raises(se_inject.errors.NoBlockError, match="changed in place"):
        se_inject.apply(module)


def test_contexts_that_suppress_errors_leave_what_is_returned_after_them_ungated():
    class Quiet:
        def __enter__(self):
            pass

        def __exit__(self, kind, *_):
            return kind is not None

    @contextlib.contextmanager
    def caught():
        try:
            yield
        except TypeError as error:
            assert error.args

    def by_object(self, x, t=None):
        h = self.conv(x)
        with Quiet():
            t = t + 1
            return x + h
        return h

    def by_generator(self, x, t=None):
        h = self.conv(x)
        with caught():
            t = t + 1
            return x + h
        return h

    def by_stack(self, x, t=None):
        h = self.conv(x)
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(TypeError))
            t = t + 1
            return x + h
        return h

    def by_argument(self, x, t=None, context=Quiet):
        h = self.conv(x)
        with context():
            t = t + 1
            return x + h
        return h

    for forward in (by_object, by_generator, by_stack, by_argument):
        module = block(forward, conv=conv())
        plain = copy.deepcopy(module)
        se_inject.apply(module)
        nn.init.normal_(module.se.fc2.bias)
        assert_same(module(X), plain(X))
        assert not torch.equal(module(X, 1), plain(X, 1))


# What a class is


class ByTable(Base):
    def forward(self, x):
        return x + self.conv(x) * SCALES[type(self)]


SCALES[ByTable] = 2.0


class Counted(Base):
    steps = 0

    def forward(self, x):
        type(self).steps += 1
        return x + self.conv(x) * Counted.steps


class ByName(Base):
    def forward(self, x):
        named = self._get_name() == "ByName" and f"{self}".startswith("ByName") and "ByName" in str(self)
        return x + self.conv(x) * (2.0 if named else 1.0)


@pytest.mark.parametrize("cls", [ByTable, Counted, ByName])
def test_what_asks_for_the_class_of_a_block_gets_what_it_got(cls):
    Counted.steps = 0
    module = cls()
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    expected = plain(X)
    Counted.steps = 0
    assert_same(module(X), expected)
    assert Counted.steps == (cls is Counted)


# What finding leaves alone


class Counter:
    n = 0

    def tick(self):
        self.n += 1
        return self.n

    def __iadd__(self, other):
        self.n += other
        return self


class Stack(list):
    """A list of the author's."""


class Schedule:
    n = 0

    def __get__(self, owner, cls=None):
        self.n += 1
        return float(self.n)


class Sampler:
    rng = np.random.default_rng(0)

    def sample(self):
        return self.rng.random()


class Slotted:
    __slots__ = ("rng",)

    def __init__(self):
        self.rng = random.Random(0)

    def sample(self):
        return self.rng.random()


class Noise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        RAN.append(1)
        return x * (1 + torch.zeros(1).bernoulli_(0.5)) if x.numel() > 10 else x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def warmup():
    global STEP
    STEP += 1
    NOTES.append(STEP)
    return STEP


def drawn():
    return SEEDS.rng.random()


class Stateful(Base):
    schedule = Schedule()

    def __init__(self, path):
        super().__init__()
        self.path, self.counter, self.counters, self.stack = path, Counter(), {"a": Counter()}, Stack([3.0, 2.0, 1.0])
        self.mapping = collections.UserDict(a=1.0)
        self.sampler, self.slotted = Sampler(), Slotted()
        self.sobol = torch.quasirandom.SobolEngine(1)

    @functools.cached_property
    def cached(self):
        return torch.randn(1)

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def mask(self, n):
        return torch.ones(n)

    def __getattr__(self, name):
        return torch.rand(1) if name == "noise" else super().__getattr__(name)

    def forward(self, x):
        self.counter += 1
        self.counters["a"] += 1
        scale = self.counter.tick() * self.stack.pop() * self.mapping.pop("a", 0.5) * warmup() * self.schedule
        scale = scale * drawn() * self.sampler.sample() * self.slotted.sample() * self.sobol.draw(1).item()
        with torch.autograd.set_detect_anomaly(True, check_nan=False), self.path.open("a") as file:
            file.write("x")
        if not LOCK.acquire(blocking=False):
            raise RuntimeError("it is run twice at once")
        try:
            return x + Noise.apply(self.conv(x)) * scale * self.noise * self.cached * self.mask(1)
        finally:
            LOCK.release()

    def state(self):
        numbers = [self.counter.n, self.counters["a"].n, *self.stack, dict(self.mapping), STEP, *NOTES, *RAN]
        streams = [SEEDS.rng.bit_generator.state, Sampler.rng.bit_generator.state, self.slotted.rng.getstate()]
        streams += [torch.get_rng_state().tolist(), self.sobol.num_generated, vars(Stateful)["schedule"].n]
        others = [
            LOCK.locked(),
            torch.is_anomaly_enabled(),
            self.path.exists(),
            Stateful.mask.cache_info(),
        ]
        return copy.deepcopy([numbers, streams, others, sorted(vars(self))])


def test_finding_leaves_whatever_a_forward_uses_as_it_was(tmp_path):
    module = Stateful(tmp_path / "log")
    before = module.state()
    assert len(se_inject.find_sites(module)) == 1
    assert module.state() == before
    se_inject.apply(module)
    assert module.state()[::2] == before[::2]  # gates are initialized at random
    module(X)
    assert all(a != b for a, b in zip(module.state(), before, strict=True))


def test_other_threads_never_see_their_numbers_again():
    def table(n):
        time.sleep(0.05)
        return float(n)

    def forward(self, x):
        return x + self.conv(x) * table(3)

    stop, seen = threading.Event(), []

    def draw():
        while not stop.is_set():
            seen.append(random.random())
            time.sleep(0.0005)

    thread = threading.Thread(target=draw)
    thread.start()
    se_inject.find_sites(block(forward, conv=conv()))
    time.sleep(0.1)
    stop.set()
    thread.join()
    assert len(set(seen)) == len(seen) > 10


def test_classes_that_guard_their_attributes():
    class Guarded(Base):
        def __init__(self):
            super().__init__()
            self.is_done = True

        def __setattr__(self, name, value):
            if self.__dict__.get("is_done"):
                raise AttributeError("it cannot be changed")
            super().__setattr__(name, value)

        def forward(self, x):
            return x + self.conv(x)

    module = Guarded()
    before = exact_state(module)
    assert_gate_runs(module)
    se_inject.remove(module)
    assert exact_state(module) == before


class WithKeywords(Base):
    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, width=1):
        super().__init__()

    def __getnewargs_ex__(self):
        return (), {"width": 1}

    def forward(self, x):
        return x + self.conv(x)


def test_copies_of_blocks_that_are_made_with_keywords():
    module = se_inject.apply(WithKeywords())
    nn.init.normal_(module.se.fc2.bias)
    assert_same(copy.deepcopy(module)(X), module(X))
