"""What names of layers tell: their place in the tree, their order by number, which of them belong together."""

import re
from collections.abc import Collection, Iterable, Sequence

Tokens = tuple[str, ...]

# 3x3 is a word; 4 counts, and so does the b of 4b
_PARTS = re.compile(r"(?P<word>\d+x\d+)|(?P<number>\d+)|(?P<letter>(?<=\d)[a-z](?![a-zA-Z]))|[a-zA-Z]+")


def tokens(path: str) -> Tokens:
    """A path's names, in any library's spelling.

    >>> tokens("features.stage1.unit2.identity_conv"), tokens("conv2_1_1x1_reduce/bn")
    (('features', 'stage1', 'unit2', 'identity', 'conv'), ('conv2', '1', '1x1', 'reduce', 'bn'))
    """
    return tuple(filter(None, re.split(r"[./_]", path)))


def _read(names: Tokens) -> tuple[Tokens, tuple[int, ...]]:
    """Names without their numbers, and the numbers."""
    words, numbers = [], []
    for part in _PARTS.finditer(".".join(names)):
        counts = part.lastgroup in ("number", "letter")
        words.append("#" if counts else part[0])
        if counts:
            numbers.append(int(part[0]) if part.lastgroup == "number" else ord(part[0]))
    return tuple(words), tuple(numbers)


def template(names: Tokens) -> Tokens:
    """Names that differ in their numbers alone have the same template.

    >>> template(("layer1", "0")) == template(("layer2", "10"))
    True
    """
    return _read(names)[0]


def in_order(names: Collection[Tokens]) -> list[Tokens] | None:
    """Names by their numbers; None where they differ in more than those.

    >>> in_order([("unit10",), ("unit2",)]), in_order([("conv3",), ("downsample",)])
    ([('unit2',), ('unit10',)], None)
    """
    read = {name: _read(name) for name in names}
    if len({template for template, _ in read.values()}) > 1 or len(set(read.values())) < len(names):
        return None
    return sorted(names, key=lambda name: read[name][1])


def nearest(name: Tokens, others: Iterable[Tokens]) -> Tokens | None:
    """The one of ``others`` that ``name`` belongs to, as a norm to its convolution; None if it may be several.

    >>> nearest(("bn2",), [("conv1",), ("conv2",), ("se", "fc2")])
    ('conv2',)
    >>> nearest(("body", "conv1", "bn"), [("body", "conv1", "conv"), ("body", "conv2", "conv")])
    ('body', 'conv1', 'conv')
    """
    ranked: dict[tuple[int, bool], list[Tokens]] = {}
    for other in others:
        ranked.setdefault(_nearness(name, other), []).append(other)
    best = ranked[max(ranked)] if ranked else []
    return best[0] if len(best) == 1 and max(ranked) > (0, False) else None


def _nearness(name: Tokens, other: Tokens) -> tuple[int, bool]:
    shared = _shared(name, other)
    same_length = len(name) == len(other) == shared + 1
    return shared, same_length and _read(name[-1:])[1] == _read(other[-1:])[1] != ()


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
