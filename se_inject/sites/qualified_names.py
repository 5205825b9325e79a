"""Qualified names of modules."""

from collections.abc import Iterator


def is_at_or_below(path: str, above: str) -> bool:
    """Whether a path is another one, or below it.

    >>> is_at_or_below("layer1.0", "layer1"), is_at_or_below("layer10", "layer1")
    (True, False)
    """
    return f"{path}.".startswith(f"{above}.")


def join(prefix: str, name: str) -> str:
    """A path below another one; either may be empty.

    >>> join("layer1", "0"), join("", "0")
    ('layer1.0', '0')
    """
    return f"{prefix}.{name}" if prefix and name else prefix or name


def with_parents(path: str) -> Iterator[str]:
    """A path and all that it is below.

    >>> list(with_parents("a.b"))
    ['a.b', 'a']
    """
    while path:
        yield path
        path = path.rpartition(".")[0]
