"""Which values of a model would get a gate, and why the other candidates would not. Reads, never writes."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from .sites.scan import Survey
from .sites.selection import Selection, Where
from .sites.site import PAPERS_KINDS, Kind, Position, Sites


def find_sites(
    model: nn.Module,
    *,
    kinds: Iterable[Kind] = PAPERS_KINDS,
    where: Where = None,
    position: Position = "standard",
    example_inputs: Any = None,
) -> Sites:
    """List the values of ``model`` that ``apply`` would gate, and each candidate that it would not, with the reason.

    ``kinds`` selects from "residual" and "inception", the paper's, and "dense" (the new features of a dense concat),
    "noskip" (what a block returns that has no identity, of a class whose other blocks are gated) and "plain" (the
    activation after a convolution and its norm, as in VGG). ``where`` selects sites: a predicate on ``Site``, or one or
    more shell-style patterns that block paths must match, such as ``"layer[34].*"``. ``position`` is the place of a
    residual block's gate: "standard" on the branch, "pre" before the branch, "post" after the add and its activation,
    "identity" on the identity. ``example_inputs`` (one tensor, or a tuple of arguments, shapes as for the model) is run
    through a copy of the model, in eval mode, where the graph alone does not tell how many channels a value has. The
    model is not changed.

    Raises ``NotAModuleError``, ``WrappedModelError``, ``ArgumentTypeError`` and ``InvalidArgumentError``.
    Site rules: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 3.3; positions: section 6.5, figure 5.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv = nn.Conv2d(32, 32, 3, padding=1)
    ...     def forward(self, x):
    ...         return x + self.conv(x)
    >>> print(find_sites(nn.Sequential(Block(), Block()), where="1"))
    block  kind      channels  gate
    -----  --------  --------  ----
    1      residual  32        1.se
    1 site
    <BLANKLINE>
    skipped  why
    -------  --------------------------
    0        left out by kinds or where
    """
    survey = Survey(model, Selection(kinds, where), position, example_inputs)
    return Sites((found.site for found in survey.found), (skip.told for skip in survey.skipped))
