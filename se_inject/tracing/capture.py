"""Every way through a block's forward, as one graph each, its children as leaves. Graphs are evidence, never code."""

import ast
import functools
import inspect
import traceback
import types
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from ..errors import first_line
from ..source.edits import Reach
from ..source.function_text import FunctionText
from ..source.functions import functions_in
from ..source.locations import where
from .calls import perform
from .errors import InfeasiblePath, UntraceableError
from .evaluation import Attr, Evaluation, Expression
from .instrument import expression_at, is_instrumented
from .run import Run
from .ways import Paths


@dataclass(frozen=True, eq=False)
class Way:
    """One way through a forward, and what each expression of the text was evaluated to."""

    graph: fx.Graph
    evaluations: tuple[Evaluation, ...]
    modes: frozenset[tuple[str, bool]]  # what rules it of which modules are in training

    @functools.cached_property
    def values(self) -> dict[Expression, set[tuple[str | None, int]]]:
        """The names of the values of each expression, and in which round of a loop it has them."""
        found: dict[Expression, set[tuple[str | None, int]]] = {}
        for evaluation in self.evaluations:
            found.setdefault(evaluation.expression, set()).add((evaluation.value, evaluation.turn))
        return found

    @property
    def key(self) -> Any:
        """Equal for ways that do the same in the same places."""
        return str(self.graph), tuple((*e.expression, e.value, e.arguments, e.turn) for e in self.evaluations)


@dataclass(frozen=True, eq=False)
class Capture:
    """All ways through a forward."""

    ways: tuple[Way, ...]
    reads: frozenset[Attr]  # attributes of the block ("", name) and of modules below it
    writes: frozenset[Attr]
    reached: dict[FunctionText, frozenset[Reach | None]]  # how the methods of the block are found
    is_partial: bool  # whether there are ways that were not walked
    walked: frozenset[str]  # the modules below whose children are walked through
    asked: frozenset[str]  # the modules whose class makes a difference
    walks: frozenset[Expression | None]  # where it walks through the block's own children; None for somewhere

    @property
    def graphs(self) -> list[fx.Graph]:
        """The graphs alone."""
        return [way.graph for way in self.ways]


def capture(block_class: type[nn.Module], state: dict[str, Any], block: nn.Module) -> Capture:
    """Run ``block_class.forward`` on stand-ins for ``block`` with the attributes ``state``, as often as it has ways.

    Raises ``UntraceableError``.

    >>> model = nn.Sequential(nn.ReLU())
    >>> [node.op for node in capture(nn.Sequential, vars(model), model).graphs[0].nodes]
    ['placeholder', 'call_module', 'output']
    """
    if "forward" in state:
        raise UntraceableError("its forward is assigned on the instance; define it in the class")
    parameters = _parameters(block_class)
    unsettled: set[Attr] = set()
    while True:
        runs = _all_ways(block_class, state, block, parameters, unsettled)
        read_and_written = {attr for run in runs for attr in run.writes if any(attr in other.reads for other in runs)}
        if read_and_written <= unsettled:
            break
        unsettled |= read_and_written
    ways = _distinct([Way(run.graph, tuple(run.evaluations), frozenset(run.modes.items())) for run in runs])
    union = frozenset[Any]().union
    return Capture(
        tuple(ways),
        reads=union(*(run.reads for run in runs)),
        writes=union(*(run.writes for run in runs)),
        reached={text: union(*(run.reached.get(text, ()) for run in runs)) for run in runs for text in run.reached},
        is_partial=any(run.is_partial for run in runs),
        walked=union(*(run.walked for run in runs)),
        asked=union(*(run.asked for run in runs)),
        walks=union(*(run.walks for run in runs)),
    )


def _distinct(ways: list[Way]) -> list[Way]:
    """The ways without those that do the same as an earlier one, which their modes then do not rule."""
    if len(ways) == 1:  # nearly always; a graph's text takes its time
        return ways
    found: dict[Any, Way] = {}
    for way in ways:
        first = found.setdefault(way.key, way)
        found[way.key] = replace(first, modes=first.modes & way.modes)
    return list(found.values())


def _parameters(block_class: type[nn.Module]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(block_class.forward).parameters.values())[1:]
        for function in functions_in(block_class.forward):  # the first may be a decorator's, which takes anything
            if all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
                parameters = list(inspect.signature(function).parameters.values())[1:]
        return parameters
    except (TypeError, ValueError) as error:
        raise UntraceableError(f"its forward has no readable signature: {error}") from error


def _all_ways(
    block_class: type[nn.Module],
    state: dict[str, Any],
    block: nn.Module,
    parameters: list[inspect.Parameter],
    unsettled: set[Attr],
) -> list[Run]:
    paths, runs = Paths(), []
    dead_ends: list[InfeasiblePath] = []
    while paths.start():
        run = Run(block, state, paths, unsettled)
        try:
            _run_forward(run, block_class, parameters)
        except InfeasiblePath as end:
            dead_ends.append(end)
            continue
        except UntraceableError:
            if run.is_doubtful:
                continue
            raise
        run.modes = paths.modes
        runs.append(run)
    if not runs:
        raise UntraceableError(f"every way through it ends in an error: {dead_ends[-1]}")
    for run in runs:
        run.is_partial |= not all(end.is_certain for end in dead_ends)
    return runs


def _run_forward(run: Run, block_class: type[nn.Module], parameters: list[inspect.Parameter]) -> None:
    if inspect.isgeneratorfunction(block_class.forward) or inspect.iscoroutinefunction(block_class.forward):
        raise UntraceableError("its forward is a generator or a coroutine")
    shadow = run.shadows.root(block_class)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in parameters:
        default = () if parameter.default is parameter.empty else (parameter.default,)
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += _extra(run, parameter, 2 if not args else 1)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = run.create_proxy("placeholder", parameter.name, default, {})
        elif parameter.kind is not parameter.VAR_KEYWORD:
            args.append(run.create_proxy("placeholder", parameter.name, default, {}))
    try:
        forward = shadow.forward
        if isinstance(forward, types.MethodType):
            run.bind(forward, "forward", False)
        result = perform(run, forward, tuple(args), kwargs)
        run.create_node("output", "output", (run.create_arg(result),), {})
        del result, args, kwargs
        run.mark_held()
    except (Exception, SystemExit, GeneratorExit) as error:  # the user's forward runs here
        raise _judged(run, error) from error
    if any(user.target not in _SHAPING for n in run.graph.nodes if "shape_only" in n.meta for user in n.users):
        raise UntraceableError("it unpacks a value into arguments, whose number is known only at run time")


_SHAPING = frozenset("view reshape expand unflatten new_zeros new_ones new_empty new_full zeros ones empty".split())


def _extra(run: Run, parameter: inspect.Parameter, most: int) -> list[Any]:
    """Values for ``*args``: none or one, and at least one where the forward has no other arguments."""
    count = most if run.expect(f"{most} in *{parameter.name}", False) else most - 1
    return [run.create_proxy("placeholder", f"{parameter.name}_{i}", (), {}) for i in range(count)]


def _judged(run: Run, error: BaseException) -> BaseException:
    """Whether a forward's error means that such inputs do not occur, or that stand-ins would not do."""
    message = f"{first_line(error)}{_place_of(error)}"
    if run.is_doubtful or error in run.missing or _is_raised_by_a_check(error):
        return InfeasiblePath(message)
    if run.paths.taken and _is_raised_by_the_author(error, is_loop=bool(run.loops)):
        return InfeasiblePath(message, is_certain=False)
    return UntraceableError(run.loops[0] if run.loops else message)


def _place_of(error: BaseException) -> str:
    places = [(frame.f_code.co_filename, line) for frame, line in _frames(error) if is_instrumented(frame.f_code)]
    return f" ({where(*places[-1])})" if places else ""


def _frames(error: BaseException) -> list[tuple[types.FrameType, int]]:
    """The frames that an error went through, the one that raised it last, and the lines that they are at."""
    return list(traceback.walk_tb(error.__traceback__))


def _is_raised_by_a_check(error: BaseException) -> bool:
    """Whether the user's own code raises it, as an assert on shapes does."""
    if isinstance(error, UnboundLocalError):
        return True
    frame, line = _frames(error)[-1]
    place = expression_at(frame)
    if place is not None and is_instrumented(frame.f_code):
        checks = [n for n in ast.walk(place[0].node) if isinstance(n, ast.Raise | ast.Assert)]
        return any(n.lineno <= line <= (n.end_lineno or n.lineno) for n in checks)
    is_error_of_use = isinstance(error, AssertionError | ValueError | RuntimeError)
    return is_error_of_use and not frame.f_globals.get("__name__", "").startswith(("torch.", "se_inject."))


def _is_raised_by_the_author(error: BaseException, is_loop: bool) -> bool:
    """Whether the author's own text raises it, on things that are none of the run's."""
    if is_loop and "'NoneType' object" not in str(error):
        return False  # how often the loop runs may have caused it
    frames = [frame for frame, _ in _frames(error) if frame.f_globals.get("__name__") not in _ANSWERING]
    names_a_stand_in = any(name in str(error) for name in ("Value", "Attribute", "Shadow", "generator", "Items"))
    return is_instrumented(frames[-1].f_code) and not names_a_stand_in


_ANSWERING = frozenset(f"{__package__}.{name}" for name in ("builtin_calls", "calls", "attributes", "questions", "run"))
