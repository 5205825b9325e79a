"""What to say where a state dict cannot be that of a model: what is left, what is missing, which gates would fit."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from ..gate.squeeze_excitation import squeezed_channels
from .layers import Layer, Look


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
    left, missing = _surplus(theirs, ours), _surplus(ours, theirs)
    if not left and not missing:
        return None
    plain = [layer for layer in ours if layer.path not in gates]
    if not _surplus(plain, theirs):
        of_gates = _layers(_surplus(theirs, plain))
        if not of_gates:
            return "the state dict is of a network without gates: load it with load_state_dict, before se_inject.apply"
        found, made = _widths(of_gates), _widths(layer for layer in ours if layer.path in gates)
        if found is not None and made is not None and found.keys() == made.keys():
            return _other_widths(found, made)
    parts = [f"{what}: {_listed(surplus)}" for what, surplus in (("left over", left), ("missing", missing)) if surplus]
    return "; ".join(["the state dict does not fit the model", *parts])


Surplus = list[tuple[int, list[Layer]]]  # so many of these layers, which look the same


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


def _layers(surplus: Surplus) -> list[Layer]:
    return [layer for number, group in surplus for layer in group if len(group) == number]


def _listed(surplus: Surplus) -> str:
    texts = [
        text
        for number, group in surplus
        for text in (map(str, group) if len(group) == number else [f"{number} of the {len(group)} like {group[0]}"])
    ]
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _widths(layers: Iterable[Layer]) -> dict[int, int] | None:
    """Widths of gates by their channels, if these layers are gates, all of one width where channels are equal."""
    found: dict[int, int] = {}
    for layer in layers:
        width, *channels = sorted(dict(layer.look).get("weight", ()))
        if len(channels) != 1 or found.setdefault(channels[0], width) != width:
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
    return (  # of a width that max(channels // reduction, 8) never is
        "gate=lambda channels: torchvision.ops.SqueezeExcitation(channels,"
        f' {dict(sorted(widths.items()))}[channels]), init="standard"'
    )
