"""Gates in a ``torch.export.ExportedProgram``: written out as operations, with their weights in its signature."""

import contextlib
import copy
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from ..errors import RewriteError
from ..graphs.traced import GATE_MARK, Program, copied, erase_gates, gate_paths, whole_graphs
from ..sites.findings import Finding
from ..sites.qualified_names import join
from .graph_module import PlannedGate, Write, insert

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def plan_program(block: Program, gates: Sequence[PlannedGate]) -> Callable[[], None]:
    """Prepare a program with gates; the result exchanges it and cannot fail. Raises ``RewriteError``."""
    changed = _Change(block)
    for finding, gate in gates:
        changed.add(finding, gate)
    return _exchange(block, changed.finished())


def plan_removal(block: Program) -> Callable[[], None]:
    """Prepare a program without gates; the result exchanges it and cannot fail."""
    ours = tuple(f"{path}." for path in gate_paths(block))
    changed = _Change(block)
    changed.remove(ours)
    return _exchange(block, changed.finished())


def _exchange(block: Program, program: "ExportedProgram") -> Callable[[], None]:
    return lambda: vars(block).update(program=program)


class _Change:
    """A copy of a program's graph, signature and weights, to be changed and made a program of."""

    def __init__(self, block: Program) -> None:
        self._block = block
        self._program = block.program
        self._module = copy.copy(block.program.graph_module)
        [traced] = whole_graphs(block)
        self._traced = copied(traced)
        self._inputs = {spec.arg.name: spec for spec in self._program.graph_signature.input_specs}
        self._nodes = {node.name: node for node in self._traced.graph.nodes}
        self._followers = {kind: self._first_after(kind) for kind in ("PARAMETER", "BUFFER")}
        self._outputs = [copy.deepcopy(spec) for spec in self._program.graph_signature.output_specs]
        self._calls = copy.deepcopy(self._program.module_call_graph)
        self._state: dict[str, Any] = dict(self._program.state_dict)
        self._constants: dict[str, Any] = dict(self._program.constants)

    def add(self, finding: Finding, gate: nn.Module) -> None:
        path = join(finding.scope, finding.gate)
        tensors = self._weights(path, gate)
        for placement in finding.placements:
            gated = insert(self._traced, self._nodes, placement, self._writer(finding, gate, path, tensors))
            self._follow_calls(finding.scope, placement.value, gated.name)

    def remove(self, ours: tuple[str, ...]) -> None:
        erase_gates(self._traced, self._block)
        for node in list(self._traced.graph.find_nodes(op="placeholder")):
            if str(self._inputs[node.name].target).startswith(ours):
                self._traced.graph.erase_node(node)
        self._state = {name: value for name, value in self._state.items() if not name.startswith(ours)}
        self._constants = {name: value for name, value in self._constants.items() if not name.startswith(ours)}

    def finished(self) -> "ExportedProgram":
        from torch.export.graph_signature import ExportGraphSignature

        program, graph = self._program, self._traced.graph
        inputs = [self._inputs[node.name] for node in graph.find_nodes(op="placeholder")]
        self._follow_outputs()
        graph.lint()
        make = functools.partial(
            type(program),
            root=fx.GraphModule(self._module, graph),
            graph=graph,
            graph_signature=ExportGraphSignature(inputs, self._outputs),
            state_dict=self._state,
            range_constraints=dict(program.range_constraints),
            module_call_graph=self._calls,
            example_inputs=program.example_inputs,
            constants=self._constants,
            verifiers=program.verifiers,
        )
        try:
            made: ExportedProgram = make()
        except Exception as error:  # torch's own checks of a program
            raise RewriteError(f"torch refuses the program with the gates: {error}") from error
        made.graph_module.meta.update(program.graph_module.meta)
        return made

    def _weights(self, path: str, gate: nn.Module) -> dict[str, tuple[Tensor, fx.Node]]:
        """The gate's weights by their names in it, each with its new placeholder."""
        from torch.export.graph_signature import InputKind

        weights: dict[str, tuple[Tensor, fx.Node]] = {}
        persistent = gate.state_dict(keep_vars=True)
        for name, parameter in gate.named_parameters():
            weights[name] = parameter, self._placeholder(f"{path}.{name}", parameter, InputKind.PARAMETER, None)
        for name, buffer in gate.named_buffers():
            weights[name] = buffer, self._placeholder(f"{path}.{name}", buffer, InputKind.BUFFER, name in persistent)
        return weights

    def _placeholder(self, target: str, tensor: Tensor, kind: Any, persistent: bool | None) -> fx.Node:
        """A placeholder for a weight among those of its kind."""
        from torch.export.graph_signature import InputSpec, TensorArgument

        graph, follower = self._traced.graph, self._followers[kind.name]
        with graph.inserting_before(follower):
            node: fx.Node = graph.placeholder(self._unused(re.sub(r"\W", "_", f"{kind.name[0].lower()}_{target}")))
        if kind.name == "BUFFER" and self._followers["PARAMETER"] is follower:
            self._followers["PARAMETER"] = node
        node.meta["val"] = self._fake(tensor)
        self._nodes[node.name] = node
        self._inputs[node.name] = InputSpec(kind, TensorArgument(node.name), target, persistent)
        (self._constants if persistent is False else self._state)[target] = tensor
        return node

    def _first_after(self, kind: str) -> fx.Node:
        """The first node after the placeholders of a kind."""
        before = ("TOKEN", "PARAMETER") if kind == "PARAMETER" else ("TOKEN", "PARAMETER", "BUFFER")
        nodes = self._traced.graph.nodes
        return next(n for n in nodes if n.op != "placeholder" or self._inputs[n.name].kind.name not in before)  # type: ignore[no-any-return]

    def _unused(self, name: str) -> str:
        """A name that no argument of the program has."""
        while name in self._nodes:
            name += "_"
        return name

    def _fake(self, tensor: Tensor) -> Tensor:
        mode = next(n.meta["val"].fake_mode for n in self._nodes.values() if hasattr(n.meta.get("val"), "fake_mode"))
        fake: Tensor = mode.from_tensor(tensor, static_shapes=True)
        return fake

    def _writer(
        self, finding: Finding, gate: nn.Module, path: str, weights: Mapping[str, tuple[Tensor, fx.Node]]
    ) -> Write:
        def write(graph: fx.Graph, value: fx.Node, user: fx.Node) -> fx.Node:
            operations = self._operations(finding, gate, value, weights)
            stack = _stack((value, user), finding.scope, path, gate)
            known: dict[fx.Node, Any] = {}
            given = iter((value, *(node for _, node in weights.values())))
            for node in operations.graph.nodes:
                if node.op == "placeholder":
                    known[node] = next(given)
                elif node.op == "output":
                    return known[node.args[0]]  # type: ignore[no-any-return]
                else:
                    known[node] = copied = graph.node_copy(node, known.__getitem__)
                    copied.meta = {key: node.meta[key] for key in ("val", "tensor_meta") if key in node.meta}
                    copied.meta["nn_module_stack"] = stack
                    if not node.name.startswith("sym_"):  # sizes are shared, when a program is decomposed
                        copied.meta["custom"] = {GATE_MARK: path}
            raise AssertionError("a graph ends with its output")

        return write

    def _operations(
        self, finding: Finding, gate: nn.Module, value: fx.Node, weights: Mapping[str, tuple[Tensor, fx.Node]]
    ) -> fx.GraphModule:
        """A gate as operations on the value and its weights, as the program's own are."""
        import torch
        from torch.fx.experimental.proxy_tensor import make_fx

        example: Any = value.meta["val"]
        names = list(weights)

        def run(x: Tensor, *tensors: Tensor) -> Any:
            named = dict(zip(names, tensors, strict=True))
            if not finding.channels_last:
                return torch.func.functional_call(gate, named, (x,))
            return torch.func.functional_call(gate, named, (x.movedim(-1, 1),)).movedim(1, -1)

        is_decomposed = self._program.dialect != "TRAINING"
        fakes = [node.meta["val"] for _, node in weights.values()]
        if not hasattr(example, "fake_mode"):
            raise RewriteError(f"the value {value} is not a plain tensor: {type(example).__name__}")
        autocast = torch.autocast(example.device.type, enabled=False) if is_decomposed else contextlib.nullcontext()
        modes = (example.fake_mode, _no_new_guards(example), torch.inference_mode(False), torch.enable_grad(), autocast)
        try:
            with contextlib.ExitStack() as entered:
                for mode in modes:
                    entered.enter_context(mode)
                traced = make_fx(run, pre_dispatch=not is_decomposed)(example, *fakes)
        except Exception as error:  # of the gate, or of what traces it
            raise RewriteError(f"the gate cannot be written as operations: {type(error).__name__}: {error}") from error
        traced.graph.eliminate_dead_code()
        others = [str(node.target) for node in traced.graph.nodes if node.op == "get_attr"]
        if others:
            raise RewriteError(f"the gate holds tensors that are neither parameters nor buffers ({others[0]})")
        return traced

    def _follow_calls(self, scope: str, value: str, gated: str) -> None:
        """Name in the signatures of modules, where they were kept, what the block and those after it get and return."""
        if any(GATE_MARK not in (user.meta.get("custom") or ()) for user in self._nodes[value].users):
            return
        for entry in self._calls:
            if entry.signature is not None and not entry.fqn.startswith(f"{scope}." if scope else ""):
                for spec in (*entry.signature.inputs, *entry.signature.outputs):
                    if getattr(spec, "name", None) == value:
                        spec.name = gated

    def _follow_outputs(self) -> None:
        """Name in the signature what the graph returns now."""
        from torch.export.graph_signature import TensorArgument

        returned: Any = self._traced.graph.output_node().args[0]
        for spec, value in zip(self._outputs, returned, strict=True):
            if isinstance(value, fx.Node) and isinstance(spec.arg, TensorArgument):
                spec.arg = TensorArgument(value.name)


def _no_new_guards(example: Any) -> Any:
    """Sizes that the program leaves open stay open, whatever the gate's operations ask of them."""
    shapes = example.fake_mode.shape_env
    return contextlib.nullcontext() if shapes is None else shapes.suppress_guards()


def _stack(nodes: Iterable[fx.Node], scope: str, path: str, gate: nn.Module) -> dict[str, tuple[str, str]]:
    """The calls around a gate: those of its block, where one of the nodes is, and its own."""
    stacks: list[dict[str, tuple[str, str]]] = []
    for node in nodes:
        noted = (node.meta.get("nn_module_stack") or {}).items()
        stacks.append({key: call for key, call in noted if f"{scope}.".startswith(f"{call[0]}.") or not call[0]})
    cls = type(gate)
    return {**max(stacks, key=len), f"L__self___{path}": (path, f"{cls.__module__}.{cls.__qualname__}")}
