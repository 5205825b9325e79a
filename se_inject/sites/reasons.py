"""Why a candidate gets no gate, in the user's words, and what to do about it."""

from enum import Enum
from typing import NamedTuple

_CHOOSE = "write the gate into the forward yourself, if you want one there"
_EXTRACT = "compute the value in one expression of the block's own forward"


class Reason(Enum):
    """A reason: its text, with a place for a detail, and the remedy; ``docs/limits.md`` lists them all.

    >>> Reason.ALREADY_GATED.text
    'already gated'
    """

    # What the user asked for
    ALREADY_GATED = "already gated", "nothing; for other gates, call `se_inject.remove(model)` first"
    LEFT_OUT = "excluded by kinds or where", "widen `kinds` or `where`"
    OTHER_POSITION = "position={} is for residual blocks", 'use `position="standard"` for Inception blocks'
    CHANNELS_UNTOLD = "its channels cannot be inferred from the graph: pass example_inputs", "pass `example_inputs`"
    CHANNELS_UNKNOWN = "its channels are unknown: {}", "pass `example_inputs` that reach it, of another spatial size"
    NO_FEATURE_MAP = "it is not a feature map (N, C, *): its shape is {}", "nothing: a gate averages over positions"

    # Adds
    TWO_BRANCHES = "ambiguous add: both operands have convolutions of their own", _CHOOSE
    AGGREGATION = "ambiguous add: its branch aggregates several values, one of which is added", _CHOOSE
    SPLIT_IDENTITY = "ambiguous add: its identity is a part of a split value", _CHOOSE
    NO_IDENTITY = "ambiguous add: its identity is neither a common input nor a linear projection of it", _CHOOSE
    NORMALIZED_IDENTITY = "ambiguous add: its identity is normalized, but not projected", _CHOOSE
    TWO_SCALES = "ambiguous add: one operand is upsampled, as where feature maps of two scales are merged", _CHOOSE
    SUM_OF_OUTPUTS = (
        "ambiguous add: it sums the outputs of several layers, as WaveNet's skip connections do",
        _CHOOSE,
    )
    ATTENTION = "ambiguous add: its branch mixes positions by attention", _CHOOSE
    SUM_OF_PATHS = "ambiguous add: its branch is a sum of similar paths", _CHOOSE
    PART_OF_CONCAT = "ambiguous add: it is a part of a concat that the block returns", _CHOOSE
    ITEMS_OF_ONE_TUPLE = "its operands come from different items of one tuple", _CHOOSE
    NO_COMMON_ANCESTOR = "the operands of its add have no common ancestor", _CHOOSE
    SAME_BRANCH = "its branch is already gated for another add", "nothing: one gate serves both"
    UNUSED_SUM = "the result of its add is not used", 'use another `position` than "post"'
    SEVERAL_ENTRIES = "its branch reads {} values, not one", 'use another `position` than "pre"'

    # Concats
    DIFFERENT_INPUTS = "the paths of its concat come from different inputs", _CHOOSE
    DENSE = "dense concat: it contains the input of one of its own paths", 'pass `kinds=("residual", "dense")`'
    PARTS_OF_SPLIT = "its concat rejoins the parts of a split value", _CHOOSE
    ONE_PATH = "fewer than two paths of its concat have convolutions", _CHOOSE
    PART_OF_BLOCK = "its concat is a part of a larger block", "nothing: the larger block has the gate"

    # Places
    CHANGED_IN_PLACE = "its value is changed in place and also used elsewhere", "replace the in-place operation"
    INSIDE_CHILD = "its gate would have to go inside a child that returns several values", _EXTRACT
    NO_PLACE = (
        "neither an expression of its class nor the output of a child is exactly the value to gate",
        _EXTRACT,
    )
    SHARED_CHILD = (
        "the child that makes its value ({}) is shared or cannot hold a gate",
        "give each block a child of its own; run lazy layers once; take parametrizations off",
    )
    ADAPTER = (
        "the child that makes its value is an adapter of PEFT, which would take the gate along when it is merged",
        "apply first, then add adapters",
    )
    WALKED_BY_ITSELF = "its forward iterates over its children, which would include the gate", _EXTRACT
    WALKED = (
        "a module around it iterates over its children, which would include the gate",
        "call the children by name in the forward around it",
    )
    ASKS_FOR_CLASS = (
        "its forward inspects its own class, which a gate would change",
        "ask with `isinstance`, which holds for a gated block too",
    )
    ASKED_FOR_CLASS = (
        "its parent inspects its class, which a gate would change",
        "ask with `isinstance`, which holds for a gated block too",
    )
    BYPASSED = "its forward is bypassed: a module around it calls its children directly", "call the block itself"

    INSIDE_OPERATOR = (
        "its place is inside the graph of an operator, such as that of a part under torch.no_grad or torch.autocast",
        "apply to the model before it is exported",
    )

    # Ways through the forward
    DEPENDS = "its sites differ between the ways through its forward", "gate it in a forward with one way"
    ONE_MODE = "it is computed only in training, or only in eval mode", "fold such layers after training, then apply"
    UNREADABLE = "its forward cannot be followed: {}", "see below"
    UNREADABLE_CHILD = "se_inject cannot tell whether its {} is a gate: {}", "see below"
    UNREADABLE_CALL = "{}", "see below"
    QUANTIZED = (
        "it is prepared for quantization or quantized already (node {})",
        "apply to the model, or to its graph, before it is prepared",
    )
    WRAPPED = (
        "it is wrapped or compiled already: apply first, then wrap",
        "apply before wrapping, compiling or scripting",
    )

    def __init__(self, text: str, remedy: str) -> None:
        self.text = text
        self.remedy = remedy


class Refusal(NamedTuple):
    """A reason with its details.

    >>> str(Refusal(Reason.SEVERAL_ENTRIES, 2))
    'its branch reads 2 values, not one'
    """

    reason: Reason
    detail: object = ""
    more: object = ""

    def __str__(self) -> str:
        return self.reason.text.format(self.detail, self.more)
