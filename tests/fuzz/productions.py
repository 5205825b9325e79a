"""The productions of the grammar: the odd things that forwards do, as text with holes."""


def _table(text):
    """One production a line, its own lines ended by a backslash and n."""
    return [line.replace(r"\n", "\n") for line in text.strip().splitlines()]


PRELUDE = """\
import collections, contextlib, functools, operator, random, types
import torch, torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, spectral_norm
from torch.utils.checkpoint import checkpoint

Point = collections.namedtuple("Point", "x y")

class Twice(nn.Module):
    def forward(self, weight):
        return weight * 2

class Pair(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body
    def forward(self, x):
        return self.body(x), x.mean()

class Named(Pair):
    def forward(self, x):
        return {"out": self.body(x), "skip": x}

def hooked(layer):
    layer.register_forward_hook(lambda module, args, output: output * 1.5)
    return layer

def prehooked(layer):
    layer.register_forward_pre_hook(lambda module, args: tuple(a + 0.5 for a in args))
    return layer

def doubled(layer):
    return parametrize.register_parametrization(layer, "weight", Twice())

def plus(x, m):
    return x if m is None else x + m

def kind(x):
    return 1 if type(x) is torch.Tensor else 2

def mode():
    return 1 if torch.is_grad_enabled() else 2

def passed_on(forward):
    @functools.wraps(forward)
    def wrapper(self, *args, **kwargs):
        return forward(self, *args, **kwargs)
    return wrapper
"""

PARTS = """
class Still(NORM):
    def train(self, mode=True):
        return super().train(False)

class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(0.7))
        self.register_buffer("steps", torch.tensor(0))
        self.table, self.box = torch.tensor(0.9), types.SimpleNamespace(n=0)
        self.yes, self.no, self.extra, self.route, self.calls, self.seen = True, False, None, "b", 0, []

    @property
    def half(self):
        return 0.5 if self.training else 1

    def method_of(self, layer, v):
        return v + layer(v)

def repeated(model):
    return model.append(model[1])
"""

CONVS = _table(
    r"""
CONV(W, W, 3, padding=1)
CONV(W, W, 1, bias=False)
nn.Sequential(CONV(W, W, 3, padding=1, bias=False), NORM(W))
nn.Sequential(NORM(W), nn.ReLU(), CONV(W, W, 3, padding=1, groups=W))
nn.Sequential(CONV(W, W, 1), nn.ReLU(inplace=True), CONV(W, W, 3, padding=1), nn.Dropout(0.2))
CONV(W, W, 3, padding=1).requires_grad_(False)
TRANSPOSED(W, W, 3, padding=1)
LAZY(W, 3, padding=1)
nn.Sequential(LAZY(W, 1), LAZYNORM())
parametrizations.weight_norm(CONV(W, W, 3, padding=1))
spectral_norm(CONV(W, W, 3, padding=1))
doubled(CONV(W, W, 1))
hooked(CONV(W, W, 3, padding=1))
prehooked(nn.Sequential(CONV(W, W, 1), NORM(W)))
"""
)
OTHERS = "NORM(W)|nn.ReLU()|nn.ReLU(inplace=True)|nn.Dropout(0.3)|nn.Identity()|nn.GroupNorm(1, W)|POOL(3, 1, 1)"
OTHERS = [*OTHERS.split("|"), "FROZEN(W)", "hooked(NORM(W))", "torchvision.ops.StochasticDepth(0.3, 'row')"]
LAYERS = {
    "low": ["CONV(W, W // 2, 1)", "nn.Sequential(CONV(W, W // 2, 3, padding=1), nn.ReLU())"],
    "high": ["CONV(W, W - W // 2, 3, padding=1)", "nn.Sequential(POOL(3, 1, 1), CONV(W, W - W // 2, 1))"],
    "reduce": ["CONV(2 * W, W, 1)"],
    "project": ["CONV(W, W, 1)", "nn.Sequential(CONV(W, W, 1, bias=False), NORM(W))"],
    "stride": ["CONV(W, W, 3, stride=2, padding=1)"],
    "shortcut": ["CONV(W, W, 1, stride=2)", "nn.Sequential(CONV(W, W, 1, stride=2), NORM(W))"],
    "pair": ["Pair(CONV(W, W, 1))"],
    "named": ["Named(CONV(W, W, 1))"],
    "same": ["nn.Identity()"],
    "g": OTHERS,
}
CALLS = _table(
    r"""
F(X)
F(X)
F(KEY=X)
F(*[X])
F(**{"KEY": X})
getattr(self, "NAME")(X)
self._modules["NAME"](X)
self.get_submodule("NAME")(X)
functools.partial(F)(X)
(lambda v: F(v))(X)
checkpoint(F, X, use_reentrant=False)
checkpoint(lambda v: F(v) * 2, X, use_reentrant=False)
F.forward(X)
"""
)
JOINS = _table(
    r"""
{x} = {x} + {t}
{x} = {t} + {x}
{x} = torch.add({x}, {t})
{x} = {x}.add({t}, alpha=0.5)
{x} = {t}.add_({x})
{t} += {x}; {x} = {t}
{x} += {t}
{x} = {x} + {t} * self.gamma
{x} = {x} + 0.1 * {t} + {x}
{x} = {project(x)} + {t}
{x} = {t} + {g(x)}
{x} = sum([{x}, {t}])
{x} = operator.iadd({t}, {x})
{x} = functools.reduce(torch.add, [{x}, {t}])
{x} = torch.add(input={x}, other={t})
{x} = {t} - (-{x})
{x} = F.relu_({x} + {t})
values = {"x": {x}, "y": {t}}; {x} = values["x"] + values.pop("y")
{x} = torch.stack([{x}, {t}]).sum(0)
({x}, *rest), unused = ({x}, {t}), 1; {x} = {x} + rest[0]
{x} = torch.where({x} > 0, {x}, {t}) + {t}
"""
)
PLAIN = _table(
    r"""
{t} = {x}\n{branch}\n{join}
{x} = {f(x)}
{x} = {g(x)}
{x} = F.relu({x})
{x} = {f(x)}.relu_().mul_(0.5)\n{x} += 1
{x} = F.dropout({x}, 0.3, self.training)
{x} = {x} * self.gamma
{x} = self.table * {x} / 2
{x} = {f(x)} + {h(x)}
{t} = torch.cat([{x}, {f(x)}], 1)\n{x} = {reduce(t)}
{x} = torch.cat([{low(x)}, {high(x)}], 1)
{x} = torch.cat(tuple(path({x}) for path in {paths}), dim=-DIMS - 1)
{x} = {f(x)} * self.half
{x} = self.method_of({f}, {x})
{x} = {x} + {tied(x)}
{x} = {x} + 0.1 * torch.randn_like({x})
a, b = {x}.tensor_split(2, 1)\n{x} = torch.cat([b, a], 1).reshape({x}.shape)
{x} = {x} * torch.sigmoid({x}.mean(tuple(range(2, DIMS + 2)), keepdim=True))
{x} = {x}.detach() + {f(x)}
self.steps.add_(1)
"""
)
PLUMBING = _table(
    r"""
for layer in {list}:\n    {x} = layer({x})
for i, layer in enumerate(reversed({list}[1:])):\n    {x} = {x} + layer({x}) * (i + 1)
i = 0\nwhile i < len({list}):\n    {x} = {list}[i]({x})\n    i += 1
{x} = functools.reduce(lambda v, layer: layer(v), {list}, {x})
{x} = {x} + nn.Sequential(*{list})({x})
{x} = {dict}[self.route]({x})
for layer in {dict}.values():\n    {x} = {x} + layer({x})
{t}, unused = {pair(x)}\n{x} = {x} + {t}
first, *unused = {pair(x)}\n{x} = {x} + first
{x} = {x} + {named(x)}["out"]
point = Point(y={f(x)}, x={x})\n{x} = point.x + point[1]
def values():\n    yield {x}\n    yield {f(x)}\n{x} = sum(values())
def deep(v, n):\n    return v if n == 0 else deep({f(v)}, n - 1)\n{x} = {x} + deep({x}, 2)
n = 0\ndef counted(v):\n    nonlocal n\n    n += 1\n    return {f(v)} * n\n{x} = counted({x}) + {x}
{x} = {x} + ({t} := {f(x)}) + {t}
layer = {f} if self.no else {h}\n{x} = {x} + layer({x})
{x} = {x} + ({f}({x}) if self.extra is None else self.extra({x}))
"""
)
WRAPPERS = _table(
    r"""
if self.yes:\n    {body}
if self.training:\n    {body}
if self.half == 1:\n    {body}\nelse:\n    {body}
for _ in range(2):\n    {body}
def inner({t}):\n    {branch}\n    return {t}\n{x} = {x} + inner({x})
{x} = {method}({x})
{x} = {helper}(self, {x})
with contextlib.nullcontext():\n    {body}
try:\n    {body}\nfinally:\n    unused = None
with torch.no_grad():\n    {body}
with torch.autocast("cpu", enabled=False):\n    {body}
with torch.autocast("cpu", torch.bfloat16):\n    {body}\n{x} = {x}.to(self.gamma.dtype)
if {x}.sum() > 0:\n    {body}
if {x}.shape[1] == W:\n    {body}
if isinstance({x}, torch.Tensor):\n    {body}
if isinstance({f}, nn.Module):\n    {body}
match {x}:\n    case torch.Tensor():\n        {body}
{x} = checkpoint({method}, {x}, use_reentrant=False)
"""
)
ODD = _table(
    r"""
{x} = {f(x)} if {x}.mean() > 0 else {x}
{x} = {x} * (1 if hasattr({x}, "tensors") else 2)
{x} = {x} * getattr({x}, "scale", 1.5)
{x} = {x} * kind({x})
{x} = {x} * (lambda v: (lambda u: 1 if type(u) is torch.Tensor else 2)(v))({x})
{x} = {x} * (1 if torch.is_tensor({x}) else 2)
{x} = {x} * mode()
{x} = {x} * (1 if torch.is_grad_enabled() else 2)
{x} = {x} * (1 if self.__class__.__name__.startswith("Block") else 2)
{x} = {x} * (1 if {f}.__class__ is nn.Sequential else 2)
{x} = {x} * (1 if {tied}.weight is {tied}_first.weight else 2)
{x} = {x} * (1 if {same(x)} is {x} else 2)
{x} = {x} * (1 if self.__dict__["training"] else 2)
{x} = {x} * (1 if {f}.training else 2)
try:\n    scale = float(len({x}))\nexcept TypeError:\n    scale = 0.5\n{x} = {x} * scale
with contextlib.suppress(Exception):\n    {x} = {x} * (2 if {x}.sum() > 0 else 3)
assert {x}.ndim == DIMS + 2
{x} = {x} * torch.rand(1).to({x}.dtype)
{x} = {x} * random.random()
{x} = {x} * {x}.new_empty(({x}.shape[0],) + (1,) * ({x}.ndim - 1)).bernoulli_(0.7)
{x} = {x} + torch.ones(1, dtype={x}.dtype)
self.calls += 1\n{x} = {x} * self.calls
self.seen.append(1)\n{x} = {x} * len(self.seen)
self.box.n += 1
self.last = {x}
{f}.used = True
self.steps += 1
{x}.data.mul_(0.5)
{x}[:, :1] = 0
if {x}.requires_grad:\n    {x}.register_hook(lambda grad: grad * 2)
{x} = torch.Tensor.mul({x}, 2)
{x} = {x} * {x}.size(1) ** -0.5
"""
)
# Arguments of a forward, what it does with them, how it hands them on, and the ways to call it.
SIGNATURES = [
    ("x", "", "x", ["X"]),
    ("x, m=None", "if m is not None:\n    x = x * m.mean()", "x, m", ["X", "X, None", "X, m=X"]),
    ("x, flag=False", "x = F.relu(x) if flag else x", "x, flag=flag", ["X", "X, True", "X, flag=False"]),
    ("x, k=0.5, *, m=None", "x = plus(x, m) * k", "x, k, m=m", ["X", "X, 2", "x=X, m=X, k=0.1"]),
    ("x, *args", "x = x * (1 + len(args))", "x, *args", ["X", "X, 1"]),
    ("*args, **kwargs", "x = kwargs.get('x', *args)", "*args, **kwargs", ["X", "x=X"]),
    ("x, m", "x = x if m is None else x * m.mean()", "x, m", ["X, None", "X, X"]),
    ("x, m", "x = plus(x, m)", "x, m", ["X, None", "X, X"]),
]
SEQUENTIALS = _table(
    r"""
return x + super().forward(x)
y = x\nfor layer in self:\n    y = layer(y)\nreturn x + y
return x + self[1:](self[0](x))
for layer in self.children():\n    x = x + layer(x)\nreturn x
"""
)
RETURNS = ["x", "(x, x.mean())", '{"out": x, "more": [x.mean(), None, 1]}', "Point(x, 2 * x)"]
HABITS = [
    "self.se = None",
    "self.se = nn.Identity()",
    "hooked(self)",
    "prehooked(self)",
    'parametrize.register_parametrization(self, "gamma", Twice())',
]
