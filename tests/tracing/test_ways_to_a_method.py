"""A gate is written only where it runs, and nowhere else: however a method is reached, whatever ways there are."""

import contextlib
import contextvars
import copy
import functools
import itertools
import random
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import se_inject

from ..support.blocks import Residual, block, conv
from ..support.forwards import X, assert_works, first
from ..support.promises import assert_same

CACHE = type("Cache", (dict,), {})()
WIDTH = contextvars.ContextVar("width", default=16)
COUNTER, RNG = itertools.count(), random.Random(0)


class Meter:
    total = 0

    def __iadd__(self, value):
        self.total = self.total + value
        return self


METER, PAIR, SETTINGS = Meter(), namedtuple("Pair", "log other")([], 1), SimpleNamespace()


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.other = conv(), conv()

    def branch(self, x):
        return self.conv(x)


class Alias(Base):
    again = Base.branch

    def forward(self, x):
        return x + (self.branch(x) if self.training else self.again(x))


class Kept(Base):
    def __init__(self):
        super().__init__()
        self.branch = self.branch

    def forward(self, x):
        return x + self.branch(x)


class ByClass(Base):
    def forward(self, x):
        return x + (Base.branch(self, x) if self.training else self.branch(x))


def counted(forward):
    def call(self, x):
        call.number += 1
        return forward(self, x)

    call.number = 0
    return call


def nested(forward):
    quiet = torch.enable_grad()(forward)

    @functools.wraps(forward)
    def wrapper(self, x):
        return quiet(self, x)

    return wrapper


class Counted(Base):
    @counted
    def forward(self, x):
        return x + self.conv(x)


class Nested(Base):
    @nested
    def forward(self, x):
        return x + self.conv(x)


class Partial(Base):
    def scaled(self, x, scale):
        return x + self.conv(x) * scale

    forward = functools.partialmethod(scaled, scale=0.5)


class Next(Base):
    def forward(self, x):
        return x + next(self.children())(x)


class Sets(Base):
    def forward(self, x):
        h = self.conv(x)
        self.se = h.mean()
        return x + h


class Imports(Base):
    def forward(self, x):
        layer = self.conv
        import math as self

        return x + layer(x) * self.sqrt(4)


class Exits(Base):
    def forward(self, x):
        if x.dim() != 4:
            raise SystemExit("images only")
        return x + self.conv(x)


@pytest.mark.parametrize("cls", [Alias, Kept, ByClass, Counted, Nested, Partial, Next, Sets, Imports, Exits])
def test_gates_have_influence_however_a_method_is_reached(cls):
    assert_works(cls())


def test_state_of_a_decorator_stays_its_own():
    class Scaling:
        def __init__(self, function):
            functools.update_wrapper(self, function)
            self.function, self.scale = function, 1.0

        def __get__(self, owner, cls=None):
            return self if owner is None else functools.partial(self, owner)

        def __call__(self, owner, x):
            return self.function(owner, x) * self.scale

    class Scaled(Base):
        @Scaling
        def forward(self, x):
            return x + self.conv(x)

    module = se_inject.apply(Scaled())
    before = module(X)
    Scaled.forward.scale = 2.0
    assert not torch.equal(module(X), before)
    module = se_inject.apply(Counted())
    module(X)
    assert Counted.forward.number > 0


def test_methods_that_builtins_call_are_seen():
    def forward(self, x):
        return x + self.branch(x), next(iter(map(self.branch, [2 * x])))

    module = Base()
    type_ = type("Mapped", (Base,), {"forward": forward})
    module.__class__ = type_
    plain = copy.deepcopy(module)
    nn.init.normal_(se_inject.apply(module).se.fc2.bias)
    assert_same(module(X)[1], plain(X)[1])
    assert not torch.equal(module(X)[0], plain(X)[0])


def test_ways_that_nobody_walked_keep_what_they_return():
    def keywords(self, x, **options):
        h = self.conv(x)
        return h if len(options) else x + h

    def suppressed(self, x, t=None):
        h = self.conv(x)
        with contextlib.suppress(TypeError):
            t = t + 1
            return x + h
        return h

    def loop(self, x):
        for i in range(x.shape[2]):
            h = self.conv(x)
            if i == 3:
                return h
            x = x + h
        return x

    for forward, bare, added in (
        (keywords, {"bare": True}, {}),
        (suppressed, {}, {"t": 1}),
    ):
        module = block(forward, conv=conv())
        plain = copy.deepcopy(module)
        nn.init.normal_(se_inject.apply(module).se.fc2.bias)
        assert_same(module(X, **bare), plain(X, **bare))
        assert not torch.equal(module(X, **added), plain(X, **added))
    module = block(loop, conv=conv())
    plain = copy.deepcopy(module)
    with contextlib.suppress(se_inject.errors.NoBlockError):
        se_inject.apply(module)
    assert_same(module(X), plain(X))


def assert_refused_or_right(module, *arguments):
    plain = copy.deepcopy(module)
    try:
        se_inject.apply(module)
    except se_inject.errors.NoBlockError:
        return
    assert_same(first(module(*arguments)), first(plain(*arguments)))
    for parameter in se_inject.gate_parameters(module):
        nn.init.normal_(parameter)
    assert not torch.equal(first(module(*arguments)), first(plain(*arguments)))


def test_questions_in_other_words():
    def matched(self, x, t=None):
        match (x, t):
            case (_, None):
                return x + self.a(x)
            case _:
                return x + self.b(x) * 2

    def of_class(self, x):
        return x + self.a(x) if x.__class__ is torch.Tensor else x + self.b(x) * 2

    def looked_up(self, x):
        layer = {4: self.a}.get(x.dim())
        return x + self.b(x) if layer is None else x + layer(x) * 2

    def formatted(self, x):
        key = "c{}".format(x.shape[1])  # noqa: UP032
        return x + self.heads[key](x) if key in self.heads else x + self.b(x)

    def chained(self, x, t=None, u=None):
        return x + self.a(x) if t is u is None else x + self.b(x)

    for forward in (matched, of_class, looked_up, formatted, chained):
        heads = nn.ModuleDict({"c16": conv()})
        assert_refused_or_right(block(forward, a=conv(), b=conv(), heads=heads).eval(), X)


def test_blocks_whose_forward_does_not_run_or_runs_by_its_class():
    def by_class(self, x):
        return Residual.forward(self.block, x)

    def inside(self, x):
        return self.block.conv1(x) * 2

    def part(self, x):
        return x + self.block.branch(x)

    assert not se_inject.find_sites(block(by_class, block=Residual()))
    assert not se_inject.find_sites(block(inside, block=Residual()))
    assert [site.gate_path for site in se_inject.find_sites(block(part, block=Residual()))] == ["se"]


def test_modules_around_a_block_that_walk_through_it():
    def forward(self, x):
        pooled = []
        for module in self.block.children():
            x = module(x)
            pooled.append(x.mean((2, 3)))
        return torch.cat(pooled, 1)

    found = se_inject.find_sites(block(forward, block=Residual()))
    assert not found and "iterates over" in found.skipped[0].reason


def test_child_that_asks_for_its_own_class_takes_no_gate_on_its_output():
    class Asks(Base):
        def forward(self, x):
            return self.conv(x) * (1.0 if type(self) is Asks else 0.5)

    def loop(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x

    found = se_inject.find_sites(block(loop, layers=nn.ModuleList([Asks(), conv()])))
    assert [site.gate_path for site in found] == ["se", "layers.1.se"]


def test_stand_ins_stay_out_of_real_objects_and_real_iterators_stay_where_they_are():
    def cached(self, x):
        return x + self.conv(x) * CACHE.setdefault("ones", x.new_ones(1))

    def context(self, x):
        width = WIDTH.get()
        token = WIDTH.set(x.shape[1])
        try:
            return x + self.conv(x) * (width / 16)
        finally:
            WIDTH.reset(token)

    def counting(self, x):
        return x + self.conv(x) * (next(COUNTER) + 1)

    def metered(self, x):
        global METER
        h = self.conv(x)
        METER += h.mean()
        log, _ = PAIR
        log.append(h)
        vars(SETTINGS)["last"] = h
        return x + h

    for forward in (cached, context, counting, metered):
        module = block(forward, conv=conv())
        se_inject.find_sites(module)
        assert not CACHE and WIDTH.get() == 16 and repr(COUNTER) == "count(0)"
        assert METER.total == 0 and PAIR.log == [] and vars(SETTINGS) == {}
    assert type(block(cached, conv=conv())(X)) is torch.Tensor


def draw(_=0):
    return random.random()


@pytest.mark.parametrize(
    "number",
    [
        lambda: torch.distributions.Beta(1.0, 1.0).sample(),
        lambda: nn.Linear(3, 3).weight.mean(),
        lambda: torch.rand(1, generator=torch.manual_seed(0)),
        lambda: next(iter(map(draw, range(2)))),
        lambda: [RNG.random() for _ in range(2)][0],  # noqa: RUF015
    ],
)
def test_random_streams_stay_where_they_are(number):
    module = block(lambda self, x: x + self.conv(x) * number(), conv=conv())
    before = torch.get_rng_state().tolist(), random.getstate(), RNG.getstate()
    se_inject.find_sites(module)
    assert (torch.get_rng_state().tolist(), random.getstate(), RNG.getstate()) == before
