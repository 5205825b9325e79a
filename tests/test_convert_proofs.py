"""What a factor may be put into, and what it may not: a refused model stays as it was, and its gate is named."""

import collections
import copy
import functools
import operator
import types
import weakref

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations, prune

import se_inject
from se_inject import SqueezeExcitation, convert
from se_inject.errors import ConversionError
from tests.support.awake import awake
from tests.test_convert import Turned, assert_converts, assert_equal_states, copied_state


class Block(nn.Module):
    """A branch of two convolutions, of which ``branch`` is to be overridden, and a projected shortcut."""

    def __init__(self, **children):
        super().__init__()
        self.short = nn.Conv2d(8, 24, 1)
        self.conv1 = nn.Conv2d(8, 16, 1)
        self.conv2 = nn.Conv2d(16, 24, 1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        for name, child in children.items():
            setattr(self, name, child)

    def before(self, x):
        return self.conv2(self.conv1(x).relu())

    def forward(self, x):
        return self.short(x) + self.norm(self.before(x))


def parameter(*shape):
    return nn.Parameter(torch.randn(shape))


def gated(forward=None, wrap=lambda model: model, **children):
    """A gated block with such a forward, and what ``wrap`` makes of it."""
    cls = Block if forward is None else type("Own", (Block,), {"forward": forward})
    return wrap(se_inject.apply(cls(**children)))


def own(forward, **children):
    """A block that its author wrote with a gate."""
    return type("Own", (Block,), {"forward": forward})(se=SqueezeExcitation(24), **children)


def by_hand(*layers):
    return nn.Sequential(*layers, SqueezeExcitation(24))


def returned_too(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + y, y


def held(self, x):
    y = self.norm(self.before(x))
    self.last = y.detach()
    return self.short(x) + y


def kept_in_dict(self, x):
    y = self.norm(self.before(x))
    self.seen["last"] = y
    return self.short(x) + self.se(y)


def twice(self, x):
    return self.short(x) + self.norm(self.norm(self.before(x)))


def by_size(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + y if len(x) > 1 else y


def by_mode(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + self.se(y) if self.training else y


def penalized(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + y, self.norm.weight.abs().mean()


def plus_number(self, x):
    return self.short(x) + F.relu(self.norm(self.before(x)) + 1)


def in_place_and_read(self, x):
    z = self.before(x)
    y = z.mul_(self.scale)
    return self.short(x) + self.se(y), z


def of_a_view_and_read(self, x):
    z = self.before(x)
    y = z.flatten(2).mul_(self.scale)
    return self.short(x) + self.se(y), z


def activated(self, x):
    return self.short(x) + self.act(self.norm(self.before(x)))


def squared(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + self.se(y * y)


def divided(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + self.se(y / y)


def as_numbers(self, x):
    y = self.norm(self.before(x))
    return self.short(x) * torch.full_like(x[:, :1], y.mean()) + self.se(y - y.mean())


def as_its_own_index(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + self.se(y[: y.long().max()])


def by_value(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + (y if y.mean() > 0 else y.relu())


def one_of_two(self, x):
    return self.short(x) + self.pair(self.before(x))[0]


def gated_by_itself(self, x):
    y = self.norm(self.before(x))
    return self.short(x) + y * torch.sigmoid(y)


def rounded(self, x):
    return self.short(x) + self.se(torch.div(self.norm(self.before(x)), 0.5, rounding_mode="floor"))


def as_integers(self, x):
    return self.short(x) + self.norm(self.before(x)).to(torch.int32).float()


# Casts that lose bits or range, and one that takes bits for other numbers.
CASTS = {
    "float8": lambda self, y: y.to(torch.float8_e4m3fn).to(torch.float32),
    "float16": lambda self, y: y.half().float(),
    "float16 by name": lambda self, y: y.to(dtype=torch.float16).float(),
    "the type of a buffer": lambda self, y: y.to(self.number).float(),
    "the type of a buffer, by keyword": lambda self, y: y.to(other=self.number).float(),
    "type_as": lambda self, y: y.type_as(self.number).type_as(y),
    "the data of a buffer": lambda self, y: y.to(self.number.data).float(),
    "the dtype of a buffer": lambda self, y: y.to(self.number.dtype).float(),
    "the dtype of what is made of integers": lambda self, y: y.to(y.long().dtype).float(),
    "a view of the bits": lambda self, y: y.view(torch.bfloat16)[..., : y.shape[-1]].float(),
    "a view by keyword": lambda self, y: y.view(dtype=torch.bfloat16)[..., : y.shape[-1]].float(),
    "a view as another is": lambda self, y: y.view(self.number.dtype).float(),
    "a sum": lambda self, y: y.sum(1, keepdim=True, dtype=torch.float16).float().expand_as(y),
}


def cast_by(cast):
    def forward(self, x):
        return self.short(x) + self.se(cast(self, self.norm(self.before(x))))

    return forward


def cast_by_second_input(self, x, index=None):
    return self.short(x) + self.se(self.norm(self.before(x)).to(index).float())


def with_number(model):
    model.register_buffer("number", torch.zeros(1, dtype=torch.int64))
    return model


class AddsOne:
    """An object that changes what it is called with."""

    def __call__(self, y):
        y.add_(1)


def unbound_method(y, one):
    torch.Tensor.add_(y, 1)


def unbound_method_of_a_part(y, one):
    torch.Tensor.add_(y[:, :4], 1)


def setitem_of_operator(y, one):
    operator.setitem(y, 0, 1.0)


def iadd_of_operator(y, one):
    operator.iadd(y, 1)


def bound_setitem(y, one):
    y.__setitem__(0, 1.0)


def unbound_setitem(y, one):
    torch.Tensor.__setitem__(y, 0, 1.0)


def unbound_iadd(y, one):
    torch.Tensor.__iadd__(y, 1)


def partial_function(y, one):
    functools.partial(torch.Tensor.add_, y)(1)


def methodcaller(y, one):
    operator.methodcaller("add_", 1)(y)


def mapped(y, one):
    list(map(operator.methodcaller("add_", 1), [y]))


def callable_object(y, one):
    one(y)


CHANGES_IN_PLACE = (
    unbound_method,
    unbound_method_of_a_part,
    setitem_of_operator,
    iadd_of_operator,
    bound_setitem,
    unbound_setitem,
    unbound_iadd,
    partial_function,
    methodcaller,
    mapped,
    callable_object,
)


def changing(change):
    def forward(self, x):
        y = self.norm(self.before(x))
        change(y, self.one)
        return self.short(x) + self.se(y)

    return forward


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(24)

    def forward(self, x):
        return self.norm(x), x


class Positive(nn.BatchNorm2d):
    """A norm whose text is its own."""

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight.exp(), self.bias)


class Tripled(nn.BatchNorm2d):
    def __call__(self, x):
        return 3 * super().__call__(x)


class Beside(nn.Module):
    """Calls a block, and a layer of it in a way that cannot be followed."""

    def __init__(self, inner):
        super().__init__()
        self.block = inner

    def forward(self, x):
        y = self.block(x)
        match x.dim():
            case 4:
                return y, self.block.norm(y)
        return y, y


class CallsToo(nn.Module):
    """Calls a block, and a layer of it."""

    def __init__(self, inner):
        super().__init__()
        self.block = inner

    def forward(self, x):
        return self.block(x), self.block.conv2(self.block.conv1(x))


class Reads(nn.Module):
    """Calls a block, and reads a weight of it."""

    def __init__(self, inner):
        super().__init__()
        self.block = inner

    def forward(self, x):
        return self.block(x) * self.block.norm.weight.mean()


class Outer(nn.Module):
    """Calls a block."""

    def __init__(self, inner):
        super().__init__()
        self.block = inner

    def forward(self, x):
        return self.block(x)


class Hidden(nn.Module):
    """Calls a block, and a layer of it that it holds in a list."""

    def __init__(self, inner):
        super().__init__()
        self.block, self.others = inner, [inner.norm]

    def forward(self, x):
        y = self.block(x)
        return y + self.others[0](y)


class Holds(nn.Module):
    """Calls a module that is none of its children."""

    def __init__(self, other):
        super().__init__()
        self.others = [other]

    def forward(self, x):
        return self.others[0](x)


class HoldsUnreadable(Holds):
    """The same in a way that cannot be followed."""

    def forward(self, x):
        match x.dim():
            case 4:
                x = self.others[0](x)
        return x


def beside(block, holds):
    return nn.Sequential(block, holds(block.norm))


class Shift(nn.Module):
    """A norm whose bias is not in the state dict."""

    def __init__(self):
        super().__init__()
        self.register_buffer("bias", torch.ones(24, 1, 1), persistent=False)
        self.weight = nn.Parameter(torch.ones(24, 1, 1))

    def forward(self, x):
        return x * self.weight + self.bias


class OtherFormula(SqueezeExcitation):
    def _excite(self, squeezed):
        return super()._excite(squeezed) ** 2


class Subclass(nn.Parameter):
    """As the weights of libraries that quantize."""


def hooked(path):
    def change(model):
        model.get_submodule(path).register_forward_hook(lambda module, args, output: output + 1)
        return model

    return change


def tied(model):
    model.other = nn.BatchNorm2d(24)
    model.other.weight = model.norm.weight
    return model


def tied_by_memory(model):
    model.other = nn.BatchNorm2d(24)
    model.other.weight.data = model.norm.weight.data[:]
    return model


def tied_outside(model):
    model.others_weight = [model.norm.weight.detach()]
    vars(model)["alias"] = model.norm.weight.data
    return model


class Holder:
    """A plain object, without a dictionary."""

    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight


KEPT = []


def kept_sum():
    return KEPT[0].sum()


def in_a_global(norm):
    KEPT[:] = [norm.weight]
    return kept_sum


HOLDS = {
    "a list": lambda norm: list(norm.parameters()),
    "a dict": lambda norm: {"weight": norm.weight},
    "its dict": lambda norm: norm._parameters,
    "a tuple of views": lambda norm: (norm.weight.detach()[:4],),
    "lists in a deque": lambda norm: collections.deque([[norm.bias]]),
    "a partial function": lambda norm: functools.partial(F.linear, weight=norm.weight.detach()[None]),
    "a closure": lambda norm: (lambda weight: lambda: weight.abs().sum())(norm.weight),
    "a default": lambda norm: lambda weight=norm.weight: weight.sum(),
    "a bound method": lambda norm: norm.weight.sum,
    "an object": lambda norm: Holder(norm.weight),
    "an object in an object": lambda norm: [types.SimpleNamespace(holder=Holder(norm.weight))],
    "a class": lambda norm: type("Keeper", (), {"weight": norm.weight})(),
    "a global": in_a_global,
    "a reference": lambda norm: weakref.ref(norm.weight),
    "an array": lambda norm: [norm.weight.detach().numpy()],
}


def holding(hold, wrap):
    """A block, and a module around it or the block itself, that holds a weight of it in some way."""

    def held(model):
        weight = hold(model.norm)
        holder = wrap(model)
        holder.kept = weight
        return holder

    return gated(wrap=held)


def one_number(model):
    model.conv2.bias = nn.Parameter(torch.empty(0))
    model.conv2.bias.data = torch.ones(1).expand(24)
    return model


def changed(change):
    def do(model):
        change(model)
        return model

    return do


def set_weight(path, value, dtype=torch.float32):
    def do(model):
        with torch.no_grad():
            model.to(dtype).get_submodule(path).weight.flatten()[0] = value
        return model

    return do


def called_twice():
    model = nn.Sequential(nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), gate := SqueezeExcitation(24))
    model.append(gate)
    return model


def shared_norm():
    model = nn.Sequential(gated(), nn.Conv2d(24, 8, 1), gated())
    model[2].norm = model[0].norm
    return model


def in_a_sequential_too():
    def forward(self, x):
        y = self.before(x)
        return self.short(x) + self.both(y), self.both[0](y)

    return gated(forward, both=nn.Sequential(nn.BatchNorm2d(24), nn.ReLU()))


def inception_with_a_pool(self, x):
    return torch.cat([self.conv1(x), F.relu(self.short(x)), self.pool(x)], 1)


def functional_child(self, x):
    return self.short(x) + self.se(F.conv2d(self.conv1(x).relu(), self.conv2.weight))


def weight_by_size(self, x):
    y = F.conv2d(self.conv1(x), self.weight)
    return self.short(x) + self.se(y) if len(x) > 1 else y


REFUSED = {
    "returned, too": (lambda: gated(returned_too), r"^se cannot .*norm\) makes is used elsewhere"),
    "held in an attribute": (lambda: gated(held), "used elsewhere|kept elsewhere"),
    "held in a dict": (lambda: own(kept_in_dict, seen={}), "kept elsewhere"),
    "called twice": (lambda: gated(twice), "serves others"),
    "a way without the gate": (lambda: gated(by_size), "ways without the gate"),
    "a way of a mode without the gate": (lambda: own(by_mode), "ways without the gate"),
    "its weight is read": (lambda: gated(penalized), "serves others|used elsewhere"),
    "its weight is read by another": (lambda: gated(wrap=Reads), r"^block\.se .* serve others|serves others"),
    "called by what cannot be followed": (lambda: gated(wrap=Beside), "serves others|cannot be followed"),
    "called by what holds it in a list": (lambda: gated(wrap=Hidden), "serves others|cannot be followed"),
    "a weight on a way without the gate": (
        lambda: own(weight_by_size, weight=parameter(24, 16, 1, 1)),
        "weight in Own is used elsewhere|weight of Own is used elsewhere",
    ),
    "called by what holds it and is beside it": (lambda: beside(gated(), Holds), "serves others"),
    "called by what holds it and cannot be followed": (lambda: beside(gated(), HoldsUnreadable), "serves others"),
    "its weight is read, and another calls it": (lambda: CallsToo(own(functional_child)), "serves others"),
    "a number is added": (lambda: gated(plus_number), "made with 1"),
    "GELU": (lambda: gated(activated, act=nn.GELU()), r"GELU \(act\) does not pass on a factor of 2"),
    "ReLU6": (lambda: gated(activated, act=nn.ReLU6()), r"ReLU6 \(act\)"),
    "squared": (lambda: own(squared), r"norm\) makes is used elsewhere"),
    "divided by itself": (lambda: own(divided), r"norm\) makes is used elsewhere"),
    "as the numbers of another": (lambda: own(as_numbers), "used elsewhere"),
    "an index of itself": (lambda: own(as_its_own_index), r"norm\) makes is used elsewhere"),
    "by its value": (lambda: gated(by_value), "used elsewhere"),
    "one of two": (lambda: gated(one_of_two, pair=Pair()), "Pair .pair. returns several values"),
    "sigmoid of itself": (lambda: gated(gated_by_itself), "used elsewhere|does not"),
    "rounded": (lambda: own(rounded), "div .*does not pass on"),
    "as integers": (lambda: gated(as_integers), "to .*does not pass on"),
    "in place, and read": (
        lambda: own(in_place_and_read, scale=nn.Parameter(torch.ones(24, 1, 1))),
        "used elsewhere",
    ),
    "a view in place, and read": (
        lambda: own(of_a_view_and_read, scale=nn.Parameter(torch.ones(1))),
        "used elsewhere",
    ),
    **{
        f"in place, {change.__name__}": (lambda change=change: own(changing(change), one=AddsOne()), "elsewhere, too")
        for change in CHANGES_IN_PLACE
    },
    **{
        f"cast: {name}": (lambda cast=cast: with_number(own(cast_by(cast))), "does not pass on")
        for name, cast in CASTS.items()
    },
    "cast: the type of a second input": (lambda: own(cast_by_second_input), "does not pass on"),
    "no affine norm": (lambda: gated(norm=nn.BatchNorm2d(24, affine=False)), r"BatchNorm2d \(norm\) does not"),
    "no weights": (lambda: by_hand(nn.MaxPool2d(2)), "it gates the input of Sequential"),
    "a computed weight": (lambda: gated(norm=Positive(24)), "does not pass on"),
    "parametrized": (
        lambda: gated(norm=nn.Identity(), wrap=changed(lambda m: parametrizations.weight_norm(m.conv2))),
        "hooks",
    ),
    "pruned": (
        lambda: gated(norm=nn.Identity(), wrap=changed(lambda m: prune.l1_unstructured(m.conv2, "weight", 0.5))),
        "hooks",
    ),
    "its own call": (lambda: gated(norm=Tripled(24)), "__call__"),
    "hook on the norm": (lambda: gated(wrap=hooked("norm")), r"BatchNorm2d \(norm\) has hooks"),
    "hook between": (lambda: gated(activated, act=nn.ReLU(), wrap=hooked("act")), r"ReLU \(act\) has hooks"),
    "hook on the gate": (lambda: gated(wrap=hooked("se")), "hooks"),
    "hook in the gate": (lambda: gated(wrap=hooked("se.fc1")), "hooks"),
    "shared norm": (shared_norm, r"(?s)^0\.se .*2\.se .*serves others"),
    "tied": (lambda: gated(wrap=tied), r"weight of BatchNorm2d \(norm\) is shared"),
    "tied by memory": (lambda: gated(wrap=tied_by_memory), "is shared"),
    "an alias": (lambda: gated(wrap=tied_outside), "is shared"),
    **{
        f"held in {name}{where}": (
            lambda hold=hold, wrap=wrap: holding(hold, wrap),
            "of BatchNorm2d .* is shared with other weights, or held",
        )
        for name, hold in HOLDS.items()
        for where, wrap in (("", lambda model: model), (" around it", Outer))
    },
    "one number for all": (lambda: gated(norm=nn.Identity(), wrap=one_number), "is shared"),
    "a Sequential's layer": (in_a_sequential_too, "serves others"),
    "a pool in a concat": (
        lambda: gated(inception_with_a_pool, pool=nn.MaxPool2d(3, 1, 1)),
        "it gates the input of SEOwn",
    ),
    "overflow": (
        lambda: gated(norm=nn.Identity(), wrap=set_weight("conv2", 4e4, torch.float16)),
        "exactly in torch.float16",
    ),
    "too small": (lambda: gated(wrap=set_weight("se.fc1", 6e-8, torch.float16)), "exactly in torch.float16"),
    "too small in float32": (lambda: gated(wrap=set_weight("se.fc1", 1e-45)), "exactly in torch.float32"),
    "a weight of a class of its own": (
        lambda: gated(wrap=changed(lambda m: setattr(m.norm, "weight", Subclass(torch.ones(24))))),
        "Subclass of torch.float32",
    ),
    "not in the state dict": (lambda: gated(norm=Shift()), "not in the state dict"),
    "another formula": (
        lambda: nn.Sequential(nn.Conv2d(8, 24, 1), OtherFormula(24)),
        "OtherFormula, whose formula",
    ),
    "in a blend": (
        lambda: se_inject.apply(Block(), gate=lambda channels: SqueezeExcitation(channels, init="standard")),
        r"^se\.gate cannot take the identity form: .*Blend",
    ),
    "a gate after a gate": (lambda: by_hand(nn.Conv2d(8, 24, 1), SqueezeExcitation(24)), "follows another gate"),
    "the same gate twice": (called_twice, "more than once"),
    "a gate alone": (lambda: SqueezeExcitation(8), "^the model cannot take"),
    "a forward on the instance": (
        lambda: gated(wrap=changed(lambda m: setattr(m.norm, "forward", lambda x: x + 1))),
        "hooks",
    ),
}


def forms_of(model):
    return [module.init for module in model.modules() if isinstance(module, SqueezeExcitation)]


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_proven_is_refused(case):
    make, why = REFUSED[case]
    model = awake(make())
    state, forms = copied_state(model), forms_of(model)
    with pytest.raises(ConversionError, match=why) as caught:
        convert(model, "identity" if case == "in a blend" else "standard")
    assert isinstance(caught.value, ValueError)
    assert_equal_states(model, state)
    assert forms_of(model) == forms


def scaled(self, x):
    return self.short(x) + self.se(self.scale * self.norm(self.before(x)))


def casts(self, x):
    y = self.norm(self.before(x)).to(torch.float64)
    return self.short(x) + self.se(y.to(device=x.device, dtype=x.dtype).to(x).view(x.shape[0], -1, *x.shape[2:]))


def optionally_scaled(self, x):
    y = self.norm(self.before(x))
    if self.scale is not None:
        y = y * self.scale
    return self.short(x) + self.se(y)


def sum_of_two(self, x):
    y = self.before(x)
    return self.short(x) + self.se(F.relu(self.norm(y) - 0.5 * self.other(y)))


def sum_in_place(self, x):
    y = self.norm(self.before(x))
    y += self.other(self.before(x))
    y *= self.scale
    return self.short(x) + self.se(y)


def asks_for_class(self, x):
    y = self.norm(self.before(x)) if type(self.norm) is nn.BatchNorm2d else x
    return self.short(x) + self.se(y)


def by_keyword(self, x):
    return self.short(x) + self.se(self.norm(input=self.conv2(input=self.conv1(x).relu())))


def joined_and_split(self, x):
    parts = torch.cat([self.norm(self.before(x)), self.other(x)], 1).chunk(2, 1)
    a, b = torch.cat(parts, 1).chunk(2, 1)
    return self.short(x) + self.se(torch.cat([b, a[:, :8], a[:, 8:]], dim=1)[:, :24])


def one_relu(self, x):
    y = self.act(self.conv1(self.act(x)))
    return self.act(self.short(x) + self.se(self.act(self.norm(self.conv2(y)))))


def dropped(self, x):
    return self.short(x) + self.se(self.drop(self.norm(self.before(x))))


def functional(self, x):
    y = self.conv1(x).relu()
    y = F.conv2d(y, self.weight, self.bias)
    return self.short(x) + self.se(F.max_pool2d(F.pad(y, (1, 1, 1, 1)), 3, 1).contiguous().to(y.dtype))


def products(self, x):
    y = self.conv1(x).flatten(2)
    return self.short(x) + self.se((self.matrix @ y).view(x.shape[0], -1, *x.shape[2:]))


def asks_for_type_of_weight(self, x):
    y = self.before(x.to(self.norm.weight.dtype))
    return self.short(x) + self.se(self.norm(y)[:, : self.norm.weight.shape[0]])


class Twice(nn.Module):
    """Calls a block, and what it returns, through two gates of one block."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 24, 1), nn.Conv2d(8, 24, 1)
        self.se1, self.se2 = SqueezeExcitation(24), SqueezeExcitation(24)

    def forward(self, x):
        return self.se2(self.b(x)) - self.se1(self.a(x))


class Again(nn.Module):
    """Calls a block twice."""

    def __init__(self):
        super().__init__()
        self.block, self.back = gated(), nn.Conv2d(24, 8, 1)

    def forward(self, x):
        return self.block(self.back(self.block(x)))


class DropPath(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        return x * x.new_empty((len(x), 1, 1, 1)).bernoulli_(0.5).div_(0.5)


def frozen_backbone():
    return se_inject.freeze_backbone(awake(se_inject.apply(Block())))


def frozen_gated_norm():
    """A held norm that has a gate on its output."""
    model = se_inject.apply(nn.Sequential(_InLoop()))
    return se_inject.freeze_backbone(awake(model))


class _InLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)])

    def forward(self, x):
        y = x
        for step in self.steps:
            y = step(y)
        return x + y


CONVERTED = {
    "a norm": lambda: gated(),
    "a layer scale": lambda: own(scaled, scale=parameter(24, 1, 1)),
    "an optimizer in an attribute": lambda: changed(lambda m: setattr(m, "sgd", torch.optim.SGD(m.parameters())))(
        gated()
    ),
    "what holds no weight": lambda: changed(lambda m: setattr(m, "log", [{"last": torch.ones(3)}, len, m.norm]))(
        gated()
    ),
    "casts": lambda: own(cast_by(lambda self, y: y.float().to(y.dtype).to(y.device).bfloat16().to(torch.float32))),
    "casts to what it got": lambda: own(casts),
    "a layer scale on some ways": lambda: own(optionally_scaled, scale=parameter(24, 1, 1)),
    "a sum": lambda: own(sum_of_two, other=nn.BatchNorm2d(24)),
    "a sum in place": lambda: own(sum_in_place, other=nn.BatchNorm2d(24), scale=parameter(1)),
    "asked for the class of": lambda: own(asks_for_class),
    "keywords": lambda: own(by_keyword),
    "joined and split": lambda: own(joined_and_split, other=nn.Conv2d(8, 8, 1)),
    "one ReLU for all": lambda: own(one_relu, act=nn.ReLU()),
    "a PReLU": lambda: own(one_relu, act=nn.PReLU()),
    "drop path": lambda: own(dropped, drop=DropPath()),
    "stochastic depth": lambda: own(dropped, drop=torchvision.ops.StochasticDepth(0.5, "row")),
    "functions": lambda: own(functional, weight=parameter(24, 16, 1, 1), bias=parameter(24)),
    "products of matrices": lambda: own(products, matrix=parameter(24, 16)),
    "a shape that is read": lambda: own(asks_for_type_of_weight),
    "two gates": Twice,
    "a weight of a layer that is not called": lambda: own(functional_child),
    "a block that is called twice": Again,
    "a convolution that is made again": lambda: se_inject.apply(Block(norm=nn.Identity()), memory="recompute"),
    "a norm of buffers": lambda: gated(norm=torchvision.ops.FrozenBatchNorm2d(24)),
    "a norm with a ReLU": lambda: gated(norm=timm.layers.BatchNormAct2d(24)),
    "a norm over the last dimension": lambda: gated(norm=timm.layers.LayerNorm2d(24)),
    "standardized weights": lambda: gated(norm=nn.Identity(), conv2=timm.layers.ScaledStdConv2d(16, 24, 1)),
    "padding as needed": lambda: gated(norm=nn.Identity(), conv2=timm.layers.Conv2dSame(16, 24, 3)),
    "an RMS norm": lambda: by_hand(nn.Conv2d(8, 24, 1), Turned(nn.RMSNorm(24))),
    "SyncBatchNorm": lambda: gated(norm=nn.SyncBatchNorm(24)),
    "a frozen backbone": frozen_backbone,
    "a frozen norm with a gate": frozen_gated_norm,
    "written by hand": lambda: by_hand(nn.Conv2d(8, 24, 1), nn.Sequential(nn.BatchNorm2d(24), nn.ReLU())),
    "in a Sequential in a block": lambda: Block(norm=by_hand(nn.BatchNorm2d(24))),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_what_can_be_proven_is_converted(case):
    model = awake(CONVERTED[case]())
    assert_converts(model, torch.randn(3, 8, 6, 6))
    assert_converts(copy.deepcopy(model).double(), torch.randn(3, 8, 6, 6).double())
