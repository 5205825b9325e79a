"""Numbers as a person reads them."""


def count(number: float) -> str:
    """A large number in thousands, millions or thousand millions.

    >>> count(4_089_184_256), count(2_400), count(12)
    ('4.089 G', '2.400 k', '12')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3f} {unit}"
    return f"{number:.0f}"


def memory(size: int) -> str:
    """A number of bytes.

    >>> memory(12_845_056), memory(1200)
    ('12.25 MiB', '1.17 KiB')
    """
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.2f} {unit}"
    return f"{size} B"


def seconds(time: float) -> str:
    """A time of three digits.

    >>> seconds(0.1123), seconds(0.00042), seconds(2)
    ('112 ms', '420 us', '2 s')
    """
    for size, unit in ((1, "s"), (1e-3, "ms")):
        if time >= size:
            return f"{time / size:.3g} {unit}"
    return f"{time / 1e-6:.3g} us"


def added(ratio: float) -> str:
    """How much more than 1 a ratio is, in per cent.

    >>> added(1.0990), added(0.98)
    ('+9.90 %', '-2.00 %')
    """
    return f"{100 * (ratio - 1):+.2f} %"
