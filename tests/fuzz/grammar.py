"""Modules with odd forwards, as the text of Python files, composed of productions.

A file defines ``build()``, ``inputs(shape)``, ``SHAPES`` and ``META``. A production is lines of a forward with holes:
``{x}`` is the variable to transform, ``{t}`` a fresh one, ``{f(x)}`` a call of a child on x, ``{f}`` the child; a
line that is only ``{body}`` or ``{branch}`` holds more productions, on x or on t. No production changes the shape of x,
so that all compose. Equal holes of one production are filled alike. Earlier choices are simpler, for shrinking.
"""

import itertools
import re

from hypothesis import strategies as st

from .productions import (
    CALLS,
    CONVS,
    HABITS,
    JOINS,
    LAYERS,
    ODD,
    OTHERS,
    PARTS,
    PLAIN,
    PLUMBING,
    PRELUDE,
    RETURNS,
    SEQUENTIALS,
    SIGNATURES,
    WRAPPERS,
)

_HOLE = re.compile(r"\{(\w+)(?:\((\w+)\))?\}")


class _Block:
    """Writes one class, with the children that its forward comes to need."""

    def __init__(self, writer, depth, *, unary=True, strides=False, returns=("x",)):
        self.writer, self.pick, self.rarely, self.depth = writer, writer.pick, writer.rarely, depth
        self.children, self.init, self.methods = [], [], []
        self.signature, use, handed_on, self.calls = self.pick(
            SIGNATURES[:1] * 12 + SIGNATURES[1 : 6 if unary else None]
        )
        body = [*use.splitlines(), *self.body("x", 0)]
        if strides and self.rarely(3):
            body += self.fill("{t} = {stride(x)}\n{branch}\n{x} = {shortcut(x)} + {t}", "x", 0)
        forward = ["@passed_on"] * self.rarely(16)
        forward += [f"def forward(self, {self.signature}):", *_indented([*body, f"return {self.pick(returns)}"])]
        habit = [self.pick(HABITS)] if self.rarely(8) else []
        self.name = self.define(
            "Part",
            [["def __init__(self):", *_indented(["super().__init__()", *self.init, *habit])], *self.methods, forward],
        )
        if self.rarely(8):
            self.name = self.define(
                self.name, [[f"def forward(self, {self.signature}):", f"    return super().forward({handed_on})"]]
            )

    def define(self, base, members):
        """Write a class and return its name."""
        name = f"Block{self.writer.number()}"
        self.writer.define([f"class {name}({base}):", *_indented(itertools.chain(*members))])
        return name

    def body(self, x, depth):
        """Some productions on x, the wrappers not too deep."""
        tables = [PLAIN] * 6 + [PLUMBING] * 3 + [WRAPPERS] * (2 if depth < 2 else 0) + [ODD]
        count = self.writer.draw(st.integers(1, 3 if depth == 0 else 2))
        return [line for _ in range(count) for line in self.fill(self.pick(self.pick(tables)), x, depth)]

    def fill(self, production, x, depth):
        """The lines of one production."""
        filled = {"{x}": x, "{t}": f"t{self.writer.number()}"}
        lines = []
        for line in production.splitlines():
            text = line.lstrip()
            if text == "{body}":
                new = self.body(x, depth + 1)
            elif text == "{branch}":
                new = [*self.fill("{x} = {f(x)}", filled["{t}"], depth), *self.body(filled["{t}"], depth + 1)]
            else:
                text = self.pick(JOINS) if text == "{join}" else text
                new = [_HOLE.sub(lambda hole: self.hole(hole, filled, depth), text)]
            lines += [line[: len(line) - len(line.lstrip())] + each for each in new]
        return lines

    def hole(self, hole, filled, depth):
        """What stands in a hole that is a part of a line."""
        text, (kind, argument) = hole[0], hole.groups()
        if text not in filled:
            if argument:
                filled[text] = self.call(kind, filled.get(f"{{{argument}}}", argument))
            elif kind in ("method", "helper"):
                filled[text] = self.function(kind, depth)
            else:
                filled[text] = f"self.{self.child(kind)[0]}"
        return filled[text]

    def function(self, kind, depth):
        """Write a method of the class or a function of the file."""
        name = f"{kind}{self.writer.number()}"
        lines = [f"def {name}(self, x):", *_indented([*self.body("x", depth + 1), "return x"])]
        self.methods.append(lines) if kind == "method" else self.writer.define(lines)
        return f"self.{name}" if kind == "method" else name

    def call(self, kind, argument):
        """A call of a child, new or called before."""
        name, key, calls = self.child(kind)
        call = self.pick(CALLS) if kind in "fh" and len(calls) == 1 else f"F({self.pick(calls)})"
        call = re.sub(r"\bF\b", f"self.{name}", call)
        return call.replace("NAME", name).replace("KEY", key).replace("X", argument)

    def child(self, kind):
        """Name, keyword and ways to call of a child."""
        if kind in "fh" and self.children and self.rarely(5):
            return self.pick(self.children)
        name, number = f"c{self.writer.number()}", self.writer.draw(st.integers(1, 3))
        if kind == "list":
            made = f"nn.ModuleList([{', '.join(self.layer('f')[0] for _ in range(number))}])"
        elif kind == "dict":
            made = f"nn.ModuleDict(dict(a={self.layer('g')[0]}, b={self.layer('f')[0]}))"
        elif kind == "paths":
            made = f"nn.ModuleList([{self.pick(LAYERS['low'])}, {self.pick(LAYERS['high'])}])"
        elif kind == "tied":
            self.init.append(f"self.{name}_first = CONV(W, W, 3, padding=1)")
            made = "CONV(W, W, 3, padding=1)"
        else:
            made, key, calls = self.layer(kind, unary=False)
        self.init.append(f"self.{name} = {made}")
        if kind == "tied":
            self.init.append(f"self.{name}.weight = self.{name}_first.weight")
        if kind in ("list", "dict", "paths", "tied"):
            return name, "input", ["X"]
        if kind in "fh":
            self.children.append((name, key, calls))
        return name, key, calls

    def layer(self, kind, unary=True):
        """An expression that makes a layer, its keyword and the ways to call it."""
        if kind not in "fh":
            return self.pick(LAYERS[kind]), "input", ["X"]
        if self.depth < 2 and self.writer.blocks < 4 and self.rarely(4):
            return self.writer.block(self.depth + 1, unary=unary)
        return self.pick(CONVS), "input", ["X"]


class _Writer:
    """Writes one file."""

    def __init__(self, draw):
        self.draw, self.lines, self.blocks, self._numbers = draw, [], 0, itertools.count(1)

    def pick(self, options):
        return self.draw(st.sampled_from(options))

    def rarely(self, one_in):
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def number(self):
        return next(self._numbers)

    def define(self, lines):
        self.lines += ["", *lines]

    def block(self, depth, **options):
        """Write a class; return an expression that makes it, its keyword and the ways to call it."""
        self.blocks += 1
        if depth and self.rarely(6):
            name = f"Block{self.number()}"
            forward = ["def forward(self, x):", *_indented(self.pick(SEQUENTIALS).splitlines())]
            self.define([f"class {name}(nn.Sequential):", *_indented(forward)])
            return f"{name}({self.pick(CONVS)}, {self.pick(OTHERS)}, {self.pick(CONVS)})", "x", ["X"]
        block = _Block(self, depth, **options)
        return f"{block.name}()", "x", block.calls


def _indented(lines):
    return [f"    {line}" for line in lines]


@st.composite
def cases(draw):
    """The text of a file that defines a model."""
    writer = _Writer(draw)
    dims, width = writer.pick([2, 1, 3]), writer.pick([4, 2, 5])
    layers = {"CONV": "Conv", "TRANSPOSED": "ConvTranspose", "NORM": "BatchNorm", "POOL": "MaxPool"}
    layers |= {"LAZY": "LazyConv", "LAZYNORM": "LazyBatchNorm"}
    frozen = "torchvision.ops.FrozenBatchNorm2d" if dims == 2 and writer.rarely(2) else "Still"
    if writer.rarely(3):  # a network that is a forward of its own, or a chain of blocks, one perhaps twice
        model = writer.block(0, strides=True, returns=RETURNS)[0]
    else:
        chain = [writer.block(0, strides=True)[0] for _ in range(draw(st.integers(1, 2)))]
        model = f"nn.Sequential(CONV(W, W, 1), {', '.join(chain)})"
        model = f"repeated({model})" if writer.rarely(6) else model
    lazy = any("LAZY" in line for line in writer.lines)
    dtype = writer.pick(["float32"] * 5 + ["float64", "bfloat16"])
    fix = ""
    if lazy:
        fix = writer.pick(["", "model.eval()(*inputs(SHAPES[0])); model.train()"])
    elif dims > 1 and writer.rarely(6):
        fix = f"model.to(memory_format=torch.channels_last{'_3d' * (dims == 3)})"
    meta = not lazy and writer.rarely(20)
    shapes = [(draw(st.integers(2, 3)), width, *(draw(st.integers(4, 7)) for _ in range(dims))) for _ in range(2)]
    build = ["torch.manual_seed(0)", f"model = {model}.to(torch.{dtype})", *fix.splitlines()]
    build += ['return model.to("meta")' if meta else "return model"]
    head = [
        f"W, DIMS, SHAPES, META = {width}, {dims}, {shapes}, {meta}",
        *(f"{name} = nn.{layer}{dims}d" for name, layer in layers.items()),
        PARTS.strip(),
        f"FROZEN = {frozen}",
    ]
    tail = ["", "def build():", *_indented(build), "", "def inputs(shape):"]
    tail += [f"    return (torch.randn(shape, dtype=torch.{dtype}),)"]
    return "\n".join([PRELUDE, *head, *writer.lines, *tail]) + "\n"
