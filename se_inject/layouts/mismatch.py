"""What to say where a state dict cannot be that of a model: what is left, what is missing, which gates would fit."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator

from ..gate.squeeze_excitation import squeezed_channels
from .layers import Layer, Look, Shape

Surplus = list[tuple[int, list[Layer]]]  # so many of these layers, which look the same


def mismatch(theirs: Collection[Layer], ours: Collection[Layer], gates: Collection[str]) -> str | None:
    """How the two sides differ in what they hold, None where they do not; ``gates`` are the paths of ours in gates.

    >>> def layer(path, *shape):
    ...     return Layer(path, {}, frozenset([("weight", shape)]))
    >>> model = [layer("conv", 64, 3, 3, 3), layer("se.fc1", 8, 64), layer("se.fc2", 64, 8)]
    >>> mismatch(model, model, ["se.fc1", "se.fc2"])
    >>> mismatch(model[:1], model, ["se.fc1", "se.fc2"])
    'the state dict is of a network without gates: load it with load_state_dict, before se_inject.apply'
    >>> mismatch([model[0], layer("fc1", 16, 64), layer("fc2", 64, 16)], model, ["se.fc1", "se.fc2"])
    'gates of 64 channels have width 16 in the state dict, 8 in the model: se_inject.apply with reduction=4'
    >>> mismatch([layer("stem", 64, 1, 3, 3), *model[1:]], model, ["se.fc1", "se.fc2"]).split("; ")[1:]
    ['left over: stem (weight [64, 1, 3, 3])', 'missing: conv (weight [64, 3, 3, 3])']
    """
    theirs, ours = sorted(theirs, key=_by_name), sorted(ours, key=_by_name)
    left, missing = _surplus(theirs, ours), _surplus(ours, theirs)
    if not left and not missing:
        pairs = list(zip(theirs, ours, strict=True))
        if any(a.path != b.path for a, b in pairs):
            return None
        # by the same names, the layers are those; shapes must not make others of them
        texts = [text for a, b in pairs for text in _other_shapes(a.path, dict(a.look), dict(b.look))]
        return _some(texts) or None
    plain = [layer for layer in ours if layer.path not in gates]
    but_gates = not _surplus(plain, theirs)
    if but_gates and not _surplus(theirs, plain):
        return "the state dict is of a network without gates: load it with load_state_dict, before se_inject.apply"
    if but_gates:
        of_gates = _widths(_named(_surplus(theirs, plain)))
        made = _widths(layer for layer in ours if layer.path in gates)
        if of_gates and made and of_gates != made and of_gates.keys() == made.keys():
            return _other_widths(of_gates, made)
    what = "it does not fit"
    if but_gates and missing:
        what = "all but its gates fits; those are elsewhere, or of another kind"
    return "; ".join([f"the state dict is of another network: {what}", *_differences(left, missing)])


def _differences(left: Surplus, missing: Surplus) -> Iterator[str]:
    theirs, ours = ({layer.path: dict(layer.look) for layer in _named(side)} for side in (left, missing))
    same = theirs.keys() & ours.keys()
    texts = [text for path in theirs if path in same for text in _other_shapes(path, theirs[path], ours[path])]
    if texts:
        yield _some(texts)
    for side, surplus in (("left over", left), ("missing", missing)):
        texts = [text for number, group in surplus for text in _texts(number, group, same)]
        if texts:
            yield f"{side}: {_some(texts)}"


def _other_shapes(path: str, theirs: dict[str, Shape], ours: dict[str, Shape]) -> Iterator[str]:
    """How layers of the same name differ."""
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in ours:
            yield f"{path}.{name} is left over"
        elif name not in theirs:
            yield f"{path}.{name} is missing"
        elif theirs[name] != ours[name]:
            yield f"{path}.{name} is {theirs[name]}, not {ours[name]}"


def _texts(number: int, group: list[Layer], told: Collection[str]) -> list[str]:
    if number < len(group):
        return [f"{number} of the {len(group)} like {group[0]}"]
    return [str(layer) for layer in group if layer.path not in told]


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _by_name(layer: Layer) -> list[tuple[str, int]]:
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", layer.path)]


def _surplus(layers: Collection[Layer], others: Collection[Layer]) -> Surplus:
    """What the first side has more of; by name, where those names are not on the other side."""
    counts = Counter(layer.look for layer in others)
    named = {(layer.path, layer.look) for layer in others}
    groups: dict[Look, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[layer.look].append(layer)
    surplus = []
    for look, group in groups.items():
        number = len(group) - counts[look]
        unnamed = [layer for layer in group if (layer.path, look) not in named]
        if number > 0:
            surplus.append((number, unnamed if len(unnamed) == number else group))
    return surplus


def _named(surplus: Surplus) -> list[Layer]:
    return [layer for number, group in surplus for layer in group if len(group) == number]


def _widths(layers: Iterable[Layer]) -> dict[int, int] | None:
    """Widths of gates by their channels, if these layers are gates, all of one width where channels are equal."""
    found: dict[int, int] = {}
    for layer in layers:
        shape = sorted(dict(layer.look).get("weight", ()))
        if len(shape) != 2 or found.setdefault(shape[1], shape[0]) != shape[0]:
            return None
    return found


def _other_widths(theirs: dict[int, int], ours: dict[int, int]) -> str:
    other = {channels: width for channels, width in sorted(theirs.items()) if width != ours[channels]}
    channels, width = next(iter(other.items()))
    more = f" (and {len(other) - 1} more differ)" if len(other) > 1 else ""
    return (
        f"gates of {channels} channels have width {width} in the state dict, {ours[channels]} in the model{more}:"
        f" se_inject.apply with {_advice(theirs)}"
    )


def _advice(widths: dict[int, int]) -> str:
    for reduction in range(1, max(widths) + 1):
        if all(squeezed_channels(channels, reduction) == width for channels, width in widths.items()):
            return f"reduction={reduction}"
    if all(squeezed_channels(channels, channels // width) == width for channels, width in widths.items()):
        by_site = {channels: channels // width for channels, width in widths.items()}
        return f"reduction=lambda site: {by_site}[site.channels]"
    # max(channels // reduction, 8) is none of these widths
    width = f"{dict(sorted(widths.items()))}[channels]"
    if all(channels // 16 == width for channels, width in widths.items()):
        width = "channels // 16"
    return f'init="standard", gate=lambda channels: torchvision.ops.SqueezeExcitation(channels, {width})'
