"""What finding must not touch, and what a trace would freeze without a mark."""

import collections
import contextlib
import copy
import functools
import itertools
import logging
import warnings
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import se_inject

from ..support.blocks import block, conv
from ..support.forwards import X, assert_works, refused
from ..support.promises import assert_same

SEEN = []


def test_tensors_arrays_iterators_objects_and_globals_stay_what_they_are():
    def tensor(self, x):
        self.kept += 1
        return x + self.conv(x)

    def tensor_in_a_list(self, x):
        self.kept[0].add_(1)
        return x + self.conv(x)

    def array(self, x):
        self.kept[0] += 1
        return x + self.conv(x)

    def iterator(self, x):
        return x + self.conv(x) * next(self.kept)

    def inner(self, x):
        self.kept.inner.items.append(x)
        return x + self.conv(x)

    for forward, kept, held in (
        (tensor, torch.zeros(2), lambda k: k.tolist() == [0, 0]),
        (tensor_in_a_list, [torch.zeros(2)], lambda k: k[0].tolist() == [0, 0]),
        (array, np.zeros(2), lambda k: k.tolist() == [0, 0]),
        (iterator, itertools.count(), lambda k: repr(k) == "count(0)"),
        (inner, SimpleNamespace(inner=SimpleNamespace(items=[])), lambda k: k.inner.items == []),
    ):
        module = block(forward, conv=conv())
        module.kept = kept
        se_inject.find_sites(module)
        with contextlib.suppress(se_inject.errors.NoBlockError):
            se_inject.apply(module)
        assert module.kept is kept and held(kept), forward


def test_globals_stay_what_they_are():
    def forward(self, x):
        SEEN.append(x)
        return x + self.conv(x)

    assert_works(block(forward, conv=conv()))
    SEEN.clear()
    se_inject.find_sites(block(forward, conv=conv()))
    assert SEEN == []


def test_branch_on_a_plain_tensor_stays_one():
    def forward(self, x):
        return x + self.conv(x) if self.steps > 0 else x + 2 * self.conv(x)

    module = block(forward, conv=conv())
    module.steps = torch.tensor(1.0)
    plain = copy.deepcopy(module)
    with contextlib.suppress(se_inject.errors.NoBlockError):
        se_inject.apply(module)
    for model in (plain, module):
        model.steps.fill_(0)
    assert_same(module(X), plain(X))


def no_grad(self, x):
    with torch.no_grad():
        return x + self.conv(x)


def autocast_off(self, x):
    with torch.autocast("cpu", enabled=False):
        return x + self.conv(x)


@pytest.mark.parametrize("around", [torch.no_grad, contextlib.nullcontext])
@pytest.mark.parametrize("forward", [no_grad, autocast_off, torch.no_grad()(lambda self, x: x + self.conv(x))])
def test_modes_that_hold_at_apply_anyway_are_still_set(forward, around):
    module = block(forward, conv=conv())
    plain = copy.deepcopy(module)
    with around(), contextlib.suppress(se_inject.errors.NoBlockError):
        se_inject.apply(module)
    for context in (contextlib.nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            y, expected = module(X), plain(X)
        assert_same(y, expected)
        assert y.dtype == expected.dtype and y.requires_grad == expected.requires_grad


def test_text_of_a_value():
    def by_text(self, x):
        return x + self.conv(x) * (2 if str(x.dtype) == "torch.float64" else 1)

    def by_format(self, x):
        return x + self.conv(x) * (2 if f"{x.dtype}".endswith("64") else 1)

    def message(self, x):
        torch._assert(x.shape[1] == 16, f"got {x.shape}")
        return x + self.conv(x)

    for forward in (by_text, by_format):
        assert_works(block(forward, conv=conv()))
    assert_works(block(message, conv=conv()))


class NoneInEval(nn.Module):
    def forward(self, x):
        return torch.full_like(x, 2.0) if self.training else None


def test_child_that_returns_none_in_one_mode():
    def forward(self, x):
        y, mask = self.conv(x), self.mask(x)
        if mask is not None:
            y = y * mask
        return x + y

    def by_name(self, x):
        y = self.conv(x)
        mask = self.mask(x)
        return x + (y if mask is None else y * mask)

    for odd in (forward, by_name):
        assert_works(block(odd, conv=conv(), mask=NoneInEval()))


@pytest.mark.parametrize("asks", [False, True])
def test_flag_that_rules_a_question_out(asks):
    def forward(self, x):
        y = self.conv(x)
        if self.asks:
            mask = self.mask(x)
            y = y if mask is None else y * mask
        return x + y

    module = block(forward, conv=conv(), mask=NoneInEval())
    module.asks = asks
    assert_works(module)
    module.asks = not asks
    plain = se_inject.remove(copy.deepcopy(module))
    assert_same(se_inject.apply(se_inject.remove(module)).eval()(X), plain.eval()(X))


def test_question_behind_a_flag_and_another_way_to_it():
    def forward(self, x, kind=None):
        y = self.conv(x)
        if kind is not None or self.asks:
            y = y * (1 if type(kind) is str else 2)
        return x + y

    module = block(forward, conv=conv())
    module.asks = False
    assert_works(module)


def test_helper_that_asks_for_none_leaves_the_feature_alone():
    def exists(x):
        return x is not None

    def forward(self, x, scale=None):
        y = self.conv(x)
        if exists(scale):
            y = y * scale
        return x + y

    assert_works(block(forward, conv=conv()))
    assert_works(block(forward, conv=conv()), scale=torch.tensor(2.0))


class Wrapper:
    """A decorator that is no function."""

    def __init__(self, forward):
        functools.update_wrapper(self, forward)

    def __get__(self, module, owner=None):
        return self if module is None else functools.partial(self.__wrapped__, module)

    def __call__(self, *args):
        return self.__wrapped__(*args)


def test_forwards_that_are_no_functions():
    class Partial(nn.Module):
        def scaled(self, x, scale):
            return x + scale * self.conv(x)

        forward = functools.partialmethod(scaled, scale=0.5)

    module = Partial()
    module.conv = conv()
    assert_works(module)
    assert_works(block(Wrapper(lambda self, x: x + self.conv(x)), conv=conv()))


@pytest.mark.parametrize("nothing", [nn.Sequential(), nn.Sequential(nn.Identity(), nn.Dropout(0.0))])
def test_children_that_return_their_input(nothing):
    def forward(self, x):
        z = self.conv(x)
        y = self.nothing(z)
        y += x
        return y * z

    assert "changed in place" in refused(block(forward, conv=conv(), nothing=nothing))


def test_keywords_that_are_handed_on():
    assert_works(block(lambda self, x, *args, **kwargs: self.conv(x, *args, **kwargs) + x, conv=conv()))
    looks = block(lambda self, x, **kwargs: self.conv(x) if kwargs else x + self.conv(x), conv=conv())
    assert_works(looks)


def test_writing_into_a_given_tensor_is_refused():
    def forward(self, x):
        y = self.conv(x)
        torch.add(y, x, out=y)
        return y

    module = block(forward, conv=conv())
    assert not se_inject.find_sites(module)


class Appends(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv()

    def forward(self, x, seen):
        seen.append(x)
        return self.conv(x)


def test_containers_that_children_fill_are_still_filled():
    def forward(self, x):
        seen = []
        return x + self.body(x, seen), seen

    plain = block(forward, body=Appends())
    module = copy.deepcopy(plain)
    with contextlib.suppress(se_inject.errors.NoBlockError):
        se_inject.apply(module)
    assert len(module(X)[1]) == len(plain(X)[1]) == 1


def test_type_of_what_is_returned_stays():
    module = block(lambda self, x: OrderedDict(out=x + self.conv(x)), conv=conv())
    plain = copy.deepcopy(module)
    assert [name for name, _ in se_inject.gates(se_inject.apply(module))] == ["se"]
    assert type(module(X)) is OrderedDict
    assert_same(module(X)["out"], plain(X)["out"])


def test_children_named_by_words_of_python():
    def forward(self, x):
        return x + self.paths["in"](x)

    module = block(forward, paths=nn.ModuleDict({"in": conv()}))
    assert_works(module)


def test_a_tied_block_tells_nothing_of_an_equal_one_that_is_not():
    class Tied(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.conv, self.a = conv(), nn.Parameter(torch.randn(16, 1, 1))
            self.b = self.a if tied else nn.Parameter(torch.randn(16, 1, 1))

        def forward(self, x):
            return x + F.relu(self.conv(x) * self.a) * self.b

    for ties in ((True, False), (False, True)):
        model = nn.Sequential(*map(Tied, ties))
        plain = copy.deepcopy(model)
        assert len(se_inject.find_sites(model)) == 2
        assert_same(se_inject.apply(model)(X), plain(X))
        state = {key: torch.randn_like(value) for key, value in plain.state_dict().items()}
        plain.load_state_dict(state, assign=True)
        model.load_state_dict(state, assign=True, strict=False)
        assert_same(model(X), plain(X))


COUNT = 0
TABLE = {"a": [1]}


class Meter:
    total = 0

    def __init__(self):
        self.sum, self.history = 0, []

    def update(self, value):
        self.sum += 1
        self.history.append(value)
        Meter.total += 1


class Busy(nn.Module):
    """Writes wherever a forward can write to."""

    calls = 0

    def __init__(self, path):
        super().__init__()
        self.conv, self.path = conv(), path
        self.meter, self.box = Meter(), SimpleNamespace(n=0, by={"x": []})
        self.array, self.hooks, self.lists = np.zeros(3), [], collections.defaultdict(list)

    def helper(self, y):
        n = 0

        def count():
            nonlocal n
            n += 1

        count()
        return y * n

    def forward(self, x):
        global COUNT
        COUNT += 1
        Busy.calls += 1
        type(self).calls += 1
        TABLE["a"].append(1)
        TABLE["b"] = 2
        SEEN.append(x)
        self.meter.update(x.mean())
        self.meter.sum += 1
        self.box.n += 1
        self.box.by["x"].append(x)
        self.array[0] += 1
        self.array += 1
        self.lists["k"].append(x)
        self.hooks.append(lambda: x)
        print("shape", x.shape)
        logging.warning("shape %s", x.shape)
        warnings.warn("shape", stacklevel=2)
        with open(self.path, "w") as file:  # noqa: PTH123
            file.write("shape")
        y = self.helper(self.conv(x))
        if (mean := y.mean()) is not None and not torch.isnan(mean):
            y = y + 0 * mean
        self.last = y
        return x + y

    def written(self):
        lists = [len(TABLE["a"]), len(SEEN), len(self.meter.history), len(self.box.by["x"]), len(self.hooks)]
        numbers = [COUNT, Busy.calls, self.meter.sum, Meter.total, self.box.n, *self.array.tolist()]
        return lists, numbers, list(TABLE), list(self.lists), hasattr(self, "last"), self.path.exists()


def test_finding_writes_nothing_anywhere(tmp_path, capsys, caplog):
    SEEN.clear()
    module = Busy(tmp_path / "file")
    before = module.written()
    assert len(se_inject.find_sites(module)) == 1
    assert module.written() == before and not caplog.records and capsys.readouterr().out == ""
    se_inject.apply(module)
    assert module.written() == before
    with pytest.warns(UserWarning, match="shape"):
        module(X)
    after = module.written()
    assert all(a > b for a, b in zip(after[0] + after[1], before[0] + before[1], strict=True)) and module.path.exists()
