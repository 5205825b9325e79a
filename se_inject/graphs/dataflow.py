"""What a block's graph says about its values: ancestry, convolutions, squeezes."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn

from ..gate.marks import own_modules
from .folded import Folded
from .layers import GLOBAL_POOLS, flatten, is_conv, is_one, is_upsampling_layer, reduces
from .operations import (
    ADD,
    DIV,
    MUL,
    SHAPE_ATTRIBUTES,
    argument,
    is_a,
    is_in_place,
    is_part_of_split,
    layers,
    op_name,
)
from .rebuilt import enlarges_by_index, shape_of


class Flow:
    """A graph with each value's ancestors as a bit mask, so that regions are set arithmetic on integers."""

    def __init__(
        self,
        graph: fx.Graph,
        owner: nn.Module,
        depth_of: Callable[[nn.Module], int],
        starts_in_place: Callable[[nn.Module], bool],
    ) -> None:
        self.owner = owner
        self.depth_of = depth_of
        self._starts_in_place = starts_in_place
        self.nodes = list(graph.nodes)
        self.bit = {node: 1 << i for i, node in enumerate(self.nodes)}
        self.everything = (1 << len(self.nodes)) - 1
        self.ancestors: dict[fx.Node, int] = {}
        self.known: dict[str, Any] = {}  # what rules found out, to be asked once
        sizes = self._sizes()
        for node in self.nodes:
            mask = 0
            for source in node.all_input_nodes:
                mask |= self.ancestors[source]
            is_data = node not in sizes and (node.op == "placeholder" or (mask and not self._is_shape_only(node)))
            self.ancestors[node] = mask | self.bit[node] if is_data else 0

    def _sizes(self) -> set[fx.Node]:
        """The values that are used as sizes only, such as the height and width that a transformer hands on."""
        sizes: set[fx.Node] = set()
        for node in reversed(self.nodes):
            shapes = [is_a("reshape", user) and argument(user, 0, "input") is not node for user in node.users]
            computes = [user in sizes and is_a("arithmetic", user) for user in node.users]
            if shapes and all(a or b for a, b in zip(shapes, computes, strict=True)):
                sizes.add(node)
        return sizes

    @functools.cached_property
    def conv_mask(self) -> int:
        """The nodes that run convolutions."""
        return self._mask(lambda node: self.convs(node) > 0)

    @functools.cached_property
    def split_mask(self) -> int:
        """The nodes that take a value apart."""
        return self._mask(is_part_of_split)

    @functools.cached_property
    def upsampling_mask(self) -> int:
        """The nodes that enlarge a feature map."""
        return self._mask(self._is_upsampling)

    @functools.cached_property
    def add_mask(self) -> int:
        """The nodes that add two values, in the block itself."""
        return self._mask(lambda node: op_name(node) in ADD and "inner" not in node.meta and self._is_binary(node))

    def _is_binary(self, node: fx.Node) -> bool:
        return len(list(filter(self.is_data, node.all_input_nodes))) > 1

    @functools.cached_property
    def linear_mask(self) -> int:
        """The nodes that run linear layers."""
        return self._mask(lambda node: isinstance(self.module(node), layers("linear")))

    @functools.cached_property
    def nonlinear_mask(self) -> int:
        """The nodes that run activations or multiply two values."""
        return self._mask(self._is_nonlinear)

    @functools.cached_property
    def attention_mask(self) -> int:
        """The nodes that mix positions by attention, in the block itself."""
        return self._mask(lambda node: self._is_attention(node) and "inner" not in node.meta)

    def _is_attention(self, node: fx.Node) -> bool:
        return is_a("attention", node) or isinstance(self.module(node), layers("attention"))

    @functools.cached_property
    def parameter_mask(self) -> int:
        """The nodes that run layers with parameters, but for learned scales."""
        return self._mask(lambda node: any(True for _ in self._module_parameters(node)) and not self.only_scales(node))

    def _mask(self, predicate: Any) -> int:
        return sum(bit for node, bit in self.bit.items() if predicate(node))

    @staticmethod
    def _is_shape_only(node: fx.Node) -> bool:
        return is_a("shape", node) or (op_name(node) == "getattr" and node.args[1] in SHAPE_ATTRIBUTES)

    def members(self, mask: int) -> Iterator[fx.Node]:
        """The nodes of a mask, in order."""
        while mask:
            low = mask & -mask
            yield self.nodes[low.bit_length() - 1]
            mask ^= low

    def members_backwards(self, mask: int) -> Iterator[fx.Node]:
        """The nodes of a mask, the last one first."""
        while mask:
            last = mask.bit_length() - 1
            yield self.nodes[last]
            mask ^= 1 << last

    def is_passed_by_all(self, node: fx.Node) -> bool:
        """Whether all data of the forward goes through a value: what comes after takes nothing from before it."""
        position = self.nodes.index(node)
        before = {n for n in self.nodes[:position] if self.is_data(n)}
        return bool(before) and not any(before.intersection(n.all_input_nodes) for n in self.nodes[position + 1 :])

    def is_data(self, value: Any) -> bool:
        """Whether numbers of the block's inputs flow into ``value``."""
        return isinstance(value, fx.Node) and self.ancestors[value] != 0

    def module(self, node: fx.Node) -> nn.Module | None:
        """The child that a node calls, if it calls one."""
        return self.owner.get_submodule(str(node.target)) if node.op == "call_module" else None

    def is_in_place(self, node: fx.Node) -> bool:
        """Whether a node changes its first input."""
        module = self.module(node)
        return is_in_place(node) if module is None else self._starts_in_place(module)

    def convs(self, node: fx.Node) -> int:
        """How many convolutions a node runs, one after the other."""
        module = self.module(node)
        if module is not None:
            return self.depth_of(module)
        return int(is_a("convolution", node) or ("opaque" in node.meta and "scope" in node.meta))

    def conv_depth(self, region: int) -> int:
        """The most convolutions on one way through a region; parallel ones count once."""
        depth: dict[fx.Node, int] = {}
        for node in self.members(region):
            depth[node] = self.convs(node) + max((depth.get(source, 0) for source in node.all_input_nodes), default=0)
        return max(depth.values(), default=0)

    def spatial_ranks(self, region: int) -> set[int]:
        """The numbers of spatial dimensions that the convolutions of a region work on."""
        children = [child for node in self.members(region) if (child := self.module(node)) is not None]
        convs = [m for child in children for m in own_modules(child) if isinstance(m, nn.modules.conv._ConvNd)]
        called = re.findall(
            r"\bconv(?:_transpose)?([123])d\b", " ".join(op_name(node) for node in self.members(region))
        )
        return {len(m.kernel_size) for m in convs} | set(map(int, called))

    def only_scales(self, node: fx.Node) -> bool:
        """Whether a node is a constant or learned scale, dropout or stochastic depth."""
        module = self.module(node)
        if module is not None:
            # timm's ScaledStdConv2d is a convolution, whatever its name says.
            is_layer = module._modules or is_conv(module) or isinstance(module, nn.Linear)
            names_one = re.search("drop|scale|identity|stochasticdepth", type(module).__name__, re.I)
            return not is_layer and names_one is not None
        name = op_name(node)
        if name in MUL | DIV:
            x, factor = argument(node, 0, "input"), argument(node, 1, "other")
            return self.is_data(x) != self.is_data(factor) and (name in MUL or self.is_data(x))
        return is_a("dropout", node)

    def is_activation(self, node: fx.Node) -> bool:
        """Whether a node runs an activation and nothing else."""
        module = self.module(node)
        if module is not None:
            return not module._modules and not isinstance(module, nn.GLU) and self._is_nonlinear(node)
        return is_a("activation", node)

    def _module_parameters(self, node: fx.Node) -> Iterator[nn.Parameter]:
        module = self.module(node)
        return iter(()) if module is None else module.parameters()

    def _is_upsampling(self, node: fx.Node) -> bool:
        module = self.module(node)
        if isinstance(module, Folded):
            inside = list(module.nodes())
            reduced = any(is_a("pool", n) for n in inside) or any(map(reduces, module.modules()))
            return not reduced and any(map(self._enlarges, inside))
        return self._enlarges(node) if module is None else is_upsampling_layer(module)

    @staticmethod
    def _enlarges(node: fx.Node) -> bool:
        return is_a("interpolation", node) or is_a("unpooling", node) or enlarges_by_index(node)

    def _is_nonlinear(self, node: fx.Node) -> bool:
        module = self.module(node)
        if module is not None:
            # Of torch (torch.nn.modules.activation) or of a library that keeps its activations alike.
            inside = (n.meta.get("scope_class", "") for n in module.nodes()) if isinstance(module, Folded) else ()
            classes = (*(f"{type(m).__module__}.{type(m).__name__}" for m in own_modules(module)), *inside)
            return any("activation" in cls.split(".")[-2:-1][0] for cls in classes if "." in cls)
        if op_name(node) in MUL:
            return len([source for source in node.all_input_nodes if self.is_data(source)]) > 1
        return is_a("activation", node)

    def squeezes(self, node: fx.Node) -> bool:
        """Whether a node averages (or maximizes) over all positions: the first half of any channel gate."""
        module = self.module(node)
        if module is not None:
            return any(isinstance(m, GLOBAL_POOLS) and is_one(m.output_size) for m in own_modules(module))
        name = op_name(node)
        if is_a("reduction", node):
            return self._reduces_positions(node, argument(node, 2 if "norm" in name else 1, "dim", "axis"))
        if name in {"view", "reshape"}:
            return list(flatten(node.args[1:]))[-2:] == [1, 1]  # (N, C, 1, 1), as of a global context
        if "adaptive" in name:
            return is_one(argument(node, 1, "output_size"))
        # avg_pool2d(x, x.shape[2:]): a window that depends on the input is the whole input.
        if not name.endswith(("pool1d", "pool2d", "pool3d")):
            return False
        window = list(flatten(argument(node, 1, "kernel_size")))
        is_noted = "scope" in node.meta and tuple(window) == (shape_of(node.all_input_nodes[0]) or ())[2:]
        return is_noted or any(isinstance(a, fx.Node) for a in window)

    def _reduces_positions(self, node: fx.Node, dims: Any) -> bool:
        """Whether a reduction over some dimensions is one over all positions: ``(N, C, *)`` or ``(N, H, W, C)``."""
        reduced = set(dims) if isinstance(dims, list | tuple) else {dims}
        if reduced == {1, 2}:
            return True
        if None in reduced or reduced & {0, 1}:
            return False
        is_flat = any(op_name(source) in {"view", "reshape", "flatten"} for source in node.all_input_nodes)
        return len(reduced) > 1 or is_flat or 2 not in self.spatial_ranks(self.ancestors[node])
