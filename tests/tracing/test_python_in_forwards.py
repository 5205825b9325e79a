"""What Python has to offer, used in forwards: each answer that can be known is, and each that cannot is explored."""

import contextlib
import copy
import functools
import math
import operator
import queue
import random
import tempfile
import threading
import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint_sequential

import se_inject

from ..support.blocks import block, conv
from ..support.forwards import X, assert_works, refused
from ..support.promises import assert_same

Pair = namedtuple("Pair", "first second")
HALF, ELSEWHERE = torch.full((1,), 0.5), nn.Linear(3, 3)


class Base(nn.Module):
    """``known`` is in the forward's real way, ``other`` in no way at all."""

    def __init__(self):
        super().__init__()
        self.known, self.other = conv(), conv()
        self.flag, self.names, self.n = False, {"a"}, 3
        self.heads = nn.ModuleDict({"c3": conv()})
        self.keep = self.switch

        self.current, self.leaving = self.other, Leaving()

    def switch(self):
        self.flag = True

    @classmethod
    def is_a(cls, name):
        return cls.__name__ == name


def deleted_attribute(self, x):
    self.note = 1
    del self.note
    return x + (self.other(x) if hasattr(self, "note") else self.known(x))


def deleted_item(self, x):
    notes = {"a": 1}
    del notes["a"]
    return x + (self.other(x) if "a" in notes else self.known(x))


def own_dict(self, x):
    return x + (self.other(x) if self.__dict__["flag"] or vars(self)["flag"] else self.known(x))


def set_by_name(self, x):
    setattr(self, "on", True)  # noqa: B010
    return x + (self.known(x) if self.on else self.other(x))


def got_by_name(self, x):
    layer = getattr(self, "known" if getattr(self, "missing", None) is None else "other")
    return x + layer(x)


def made_bool(self, x):
    return x + (self.known(x) if bool(self.n) else self.other(x))


def not_in(self, x):
    return x + (self.known(x) if "b" not in self.names else self.other(x))


def class_of_a_number(self, x):
    return x + (self.known(x) if type(self.n) is int else self.other(x))


def formatted(self, x):
    is_text = f"{self.n!r:>2}|{1.25:.1f}" == " 3|1.2"
    return x + (self.known(x) if is_text and "%d%s" % (self.n, "!") == "3!" else self.other(x))  # noqa: UP031


def kept_method(self, x):
    self.keep()
    return x + (self.known(x) if self.flag else self.other(x))


def arithmetic_is_not_none(self, x):
    half, mean = x * 0.5, x.mean()
    return x + (self.other(x) if half is None or mean is None else self.known(x))


def annotated(self, x):
    h: torch.Tensor
    h = self.known(x)
    return x + h


def child_set_anew(self, x):
    self.current = self.known
    return x + self.current(x)


def child_by_its_name(self, x):
    return x + self._modules.get("known", self.other)(x)


def class_method(self, x):
    return x + (self.known(x) if self.is_a("Known") else self.other(x))


class Leaving:
    is_left = False

    def __init__(self):
        self.options = {"on": False}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_left = True


def left_context(self, x):
    with self.leaving as leaving:
        h = x * 2
    return x + (self.known(h) if leaving.is_left else self.other(h))


def item_of_an_object(self, x):
    self.leaving.options["on"] = True
    return x + (self.known(x) if self.leaving.options["on"] else self.other(x))


def one_of_classes(self, x):
    return x + (self.known(x) if type(self) in Base.__subclasses__() else self.other(x))


def differs_from_a_class(self, x):
    [cls] = [cls for cls in Base.__subclasses__() if cls.forward is differs_from_a_class]
    return x + (self.other(x) if type(self) != cls else self.known(x))  # noqa: E721


@pytest.mark.parametrize(
    "forward",
    [
        left_context,
        item_of_an_object,
        one_of_classes,
        differs_from_a_class,
        child_set_anew,
        child_by_its_name,
        class_method,
        deleted_attribute,
        deleted_item,
        own_dict,
        set_by_name,
        got_by_name,
        made_bool,
        not_in,
        class_of_a_number,
        formatted,
        kept_method,
        arithmetic_is_not_none,
        annotated,
    ],
)
def test_what_can_be_known_is_known(forward):
    module = type("Known", (Base,), {"forward": forward})()
    plain = copy.deepcopy(module)
    [(_, gate)] = se_inject.gates(se_inject.apply(module))
    assert_same(module(X), plain(X))
    nn.init.normal_(gate.fc2.bias)
    assert not torch.equal(module(X), plain(X))


def with_layers(forward):
    layers, heads = nn.Sequential(conv(), conv()), nn.ModuleDict({"c16": conv()})
    module = block(forward, a=conv(), b=conv(), layers=layers, heads=heads)
    module.halving = Halving()
    module.ids, module.n, module.pair, module.flags = {id(module.a)}, 1, Pair(module.a, module.b), [torch.ones(1)]
    return module


def by_index(self, x):
    return x + self.layers[x.shape[1] - 16](x)


def by_key(self, x):
    return x + self.a(x) * {16: 0.5, 8: 2.0}[x.shape[1]]


def by_text(self, x):
    key = "c%d" % x.shape[1]  # noqa: UP031
    return x + self.heads[key](x) if key in self.heads else x + self.a(x)


def by_identity(self, x):
    return x + (self.a(x) if id(self.a) in self.ids else self.b(x))


def by_guard(self, x, t=None):
    match self.n:
        case _ if t is None:
            return x + self.a(x)
        case _:
            return x + self.b(x)


def by_a_tensor_in_a_list(self, x):
    return x + self.a(x) if self.flags[0] > 0 else x + self.b(x)


def by_the_clock(self, x):
    return x + self.a(x) if time.time() > 0 else x + self.b(x)


def by_mode(self, x):
    return x + self.a(x) if torch.is_grad_enabled() else x + self.b(x)


@pytest.mark.parametrize(
    "forward", [by_index, by_text, by_identity, by_guard, by_a_tensor_in_a_list, by_the_clock, by_mode]
)
def test_what_only_a_run_tells_is_not_taken_for_known(forward):
    assert "sites differ between" in refused(with_layers(forward))


def masked(self, x):
    h = self.a(x)
    h = h * h[h > 0].mean()
    return x + h


def own_dtype(self, x):
    return x + self.a(x.to(next(self.parameters()).dtype))


def forward_of_a_child(self, x):
    return x + self.get_submodule("a").forward(x)


def part_of_a_sequential(self, x):
    return x + self.layers[:1](x)


def checkpointed(self, x):
    return x + checkpoint_sequential(self.layers, 2, x, use_reentrant=False)


def summed(self, x):
    return sum([x, self.a(x)]) + sum([])


def mapped(self, x):
    def branch(x):
        return x + self.a(x)

    return list(map(branch, [x]))[0]  # noqa: RUF015


def partial(self, x):
    def branch(x, scale):
        return self.a(x) * scale

    return x + functools.partial(branch, scale=0.5)(x)


def modules_of_a_named_tuple(self, x):
    h = x
    for layer in self.pair:
        h = layer(h)
    return x + h


class Halve(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x / 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


def differentiated(self, x):
    return x + Halve.apply(self.a(x))


def many_comparisons(self, x):
    channels, scale = x.shape[1], 1
    for size in range(10):  # it can be but one of them
        if channels == size:
            scale = 2
    return x + self.a(x) * scale


def many_classes(self, x):
    scale = 1
    for kind in (list, tuple, dict, set, str, bytes, int, float):
        if isinstance(x, kind):
            scale = 2
    return x + self.a(x) * scale


def called_often(self, x):
    h = self.a(x)
    for _ in range(40):
        h = nearly(h)
    return x + h


def nearly(x):
    return x * 0.99


def square_root(self, x):
    return x + self.a(x) / math.sqrt(x.shape[1])


class Halving:
    @functools.lru_cache(maxsize=1)  # noqa: B019
    def half(self, n):
        return n / 2

    def __call__(self, x):
        return x * self.half(1)


def callable_object(self, x):
    return x + self.halving(self.a(x))


def cached_method_of_an_object(self, x):
    return x + self.a(x) * self.halving.half(1)


def caller(self, x):
    return x + operator.methodcaller("mul", 0.5)(self.a(x))


def handled(self, x):
    try:
        h = self.a(x)
    except MemoryError:
        h = getattr(self, f"small{x.shape[1]}")(x)
    return x + h


def bound_on_one_way(self, x):
    if x.numel() > 0:
        h = self.a(x)
    return x + h


def local_context(self, x):
    @contextlib.contextmanager
    def doubled():
        yield 2

    with doubled() as factor:
        return x + self.a(x) * factor


def tensors_of_a_named_tuple(self, x):
    h = self.a(x)
    for scale in Pair(HALF, HALF):
        h = h * scale
    return x + h


def weight_of_another_model(self, x):
    return x + self.a(x) * ELSEWHERE.weight.mean()


@pytest.mark.parametrize(
    "forward",
    [
        called_often,
        square_root,
        callable_object,
        cached_method_of_an_object,
        caller,
        handled,
        bound_on_one_way,
        local_context,
        tensors_of_a_named_tuple,
        weight_of_another_model,
        by_key,
        masked,
        own_dtype,
        forward_of_a_child,
        part_of_a_sequential,
        checkpointed,
        summed,
        mapped,
        partial,
        modules_of_a_named_tuple,
        differentiated,
        many_comparisons,
        many_classes,
    ],
)
def test_what_python_offers_works(forward):
    assert_works(with_layers(forward))


def test_other_items_of_an_input_are_handed_on():
    def forward(self, batch):
        x = batch["image"]
        return {**batch, "out": x + self.conv(x)}

    module = block(forward, conv=conv())
    plain = copy.deepcopy(module)
    nn.init.normal_(se_inject.apply(module).se.fc2.bias)
    output, expected = module({"image": X, "label": 3}), plain({"image": X, "label": 3})
    assert output["label"] == 3 and not torch.equal(output["out"], expected["out"])


def test_methods_of_a_child_of_the_same_class():
    class Chain(nn.Module):
        def __init__(self, inner=None):
            super().__init__()
            self.conv, self.inner = conv(), inner

        def branch(self, x):
            return self.conv(x)

        def forward(self, x):
            return x + self.branch(x if self.inner is None else self.inner.branch(x))

    module = Chain(Chain())
    assert "se" in [site.gate_path for site in se_inject.find_sites(module)]
    assert_works(module)


def test_a_decorator_with_other_functions_at_hand():
    def noting(note):
        def decorate(forward):
            def wrapper(self, *args):
                note("forward")
                return forward(self, *args)

            return wrapper

        return decorate

    class Noted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        @noting(lambda text: None)
        def forward(self, x, scale=1.0):
            return x + self.conv(x) * scale

    class Three(Noted):
        @noting(lambda text: None)
        def forward(self, x, y, z):
            return x + self.conv(x) * y * z

    assert_works(Noted())
    assert_works(Three(), X, 0.5, 2.0)


def test_options_by_any_name():
    def popped(self, x, **options):
        return x + self.conv(x) * options.pop("scale", 0.5)

    def looked_through(self, x, **options):
        for name in options:
            x = x * options[name]
        return x + self.conv(x)

    assert_works(block(popped, conv=conv()))
    assert_works(block(popped, conv=conv()), scale=2.0)
    assert "keyword arguments" in refused(block(looked_through, conv=conv()))


def test_what_only_real_inputs_tell_is_refused():
    def named(self, x):
        return x + getattr(self, f"conv{x.shape[1]}")(x)

    def unpacked(self, x):
        return x + self.conv(x) * max(*x)

    def lettered(self, x):
        return x + self.conv(x) * ord("abc"[x.shape[1] - 16])

    def asking(self, x):
        for i in range(300):
            if x.sum() > i:
                x = x / 2
        return x + self.conv(x)

    def itself(self, x):
        return x + self(x)

    def failing(self, x):
        assert self.conv is None, "there is nothing to run"
        return x + self.conv(x)

    for forward, reason in (
        (lettered, "by a value"),
        (asking, "branches more than"),
        (itself, "calls itself"),
        (failing, "there is nothing to run"),
    ):
        assert reason in refused(block(forward, conv=conv()))
    assert "by a name" in refused(block(named, conv16=conv()))
    assert "unpacks" in refused(block(unpacked, conv=conv()))


def test_attributes_that_cannot_be_copied_or_seen_are_refused():
    class Meter:
        def __init__(self):
            self.lock = threading.Lock()

        def __iadd__(self, value):
            return self

    class Slotted(nn.Module):
        __slots__ = ("scale",)

        def forward(self, x):
            return x + self.conv(x) * self.scale

    def metered(self, x):
        meter = self.meter
        meter += 1
        return x + self.conv(x)

    module = block(metered, conv=conv())
    module.meter = Meter()
    assert "copied" in refused(module)
    module = Slotted()
    module.conv, module.scale = conv(), 1.0
    assert "slot" in refused(module)


class Drawing:
    """Called, it draws from a generator of its own."""

    def __init__(self, rng, draw):
        self.rng, self.draw = rng, draw

    def __call__(self):
        return float(self.draw(self.rng))


RNG = random.Random(0)
GAUSS, DRAW = functools.partial(RNG.gauss, 0.0, 1.0), RNG.random


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: random.Random(0), lambda rng: rng.random()),
        (lambda: np.random.default_rng(0), lambda rng: rng.random()),
        (lambda: np.random.RandomState(0), lambda rng: rng.rand()),
        (lambda: torch.Generator().manual_seed(0), lambda rng: torch.rand(1, generator=rng)),
        (lambda: torch.quasirandom.SobolEngine(1, scramble=True, seed=0), lambda rng: rng.draw(1)),
    ],
    ids=["random", "numpy", "legacy", "torch", "sobol"],
)
def test_objects_that_draw_are_put_back(make, draw):
    module = block(lambda self, x: x + self.conv(x) * self.drawing(), conv=conv())
    module.drawing = Drawing(make(), draw)
    assert len(se_inject.find_sites(module)) == 1
    assert float(draw(module.drawing.rng)) == float(draw(make()))


def gauss():
    return GAUSS()


def uniform():
    return DRAW()


@pytest.mark.parametrize("number", [gauss, uniform])
def test_functions_that_draw_from_generators_of_others(number):
    before = RNG.getstate()
    assert len(se_inject.find_sites(block(lambda self, x: x + self.conv(x) * number(), conv=conv()))) == 1
    assert RNG.getstate() == before


def test_finding_warns_of_nothing_that_a_forward_would_warn_of():
    def number():
        return 0.5 if np.log(np.zeros(1))[0] < 0 else 2.0

    def forward(self, x):
        return x + self.conv(x) * number()

    assert len(se_inject.find_sites(block(forward, conv=conv()))) == 1


def test_a_loop_over_an_iterator_leaves_it_unread():
    def forward(self, x):
        h = self.conv(x)
        for scale in self.scales:
            h = h * scale
        return x + h

    module = block(forward, conv=conv())
    module.scales = iter([0.5, 2.0, 3.0])
    se_inject.find_sites(module)
    assert list(module.scales) == [0.5, 2.0, 3.0]


def test_no_directory_is_made_while_finding(tmp_path):
    def forward(self, x):
        return x + self.conv(x) * len(tempfile.mkdtemp(dir=self.path))

    module = block(forward, conv=conv())
    module.path = str(tmp_path)
    assert len(se_inject.find_sites(module)) == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_put_into_a_queue_while_finding():
    def forward(self, x):
        return x + self.conv(x) * (0.5 if self.queue.put(x) is None else 2.0)

    module = block(forward, conv=conv())
    module.queue = queue.SimpleQueue()
    assert len(se_inject.find_sites(module)) == 1
    assert module.queue.empty()


def test_children_walked_through_by_their_names_are_the_authors():
    def forward(self, x):
        h = x
        for name in self._modules.keys():  # noqa: SIM118
            h = self._modules[name](h)
        return x + h

    assert_works(block(forward, a=conv(), b=conv()))
