"""Features before the first trained layer, computed once: what is frozen makes the same of an image each time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor, fx, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.datasets import Augmented
from ..errors import NotCachedError
from .partial import trained_modules
from .run import Run


def cache_features(
    run: Run, network: nn.Module, accelerator: Accelerator
) -> tuple[nn.Module, "Features", Dataset[Any]]:
    """The part of ``network`` that learns, the features of the training images, and those of the validation images.

    With an average of the weights, which is another network, the last are the validation images themselves.

    Raises ``NotCachedError`` if the network cannot be cut, features take more than half of the memory that is free, or
    there are several processes.
    """
    if accelerator.num_processes > 1:
        raise _refused("each of several processes would keep all of them")
    data, preprocess = run.data, run.preprocess
    images = [Augmented(part, preprocess.training("none")) for part in (data.train, data.val)]
    example = torch.stack([images[0][i][0] for i in range(2)]).to(accelerator.device)
    parts = cut(network, trained_modules(network, run.trained, run.head), example)
    validated = not run.settings.ema
    values = _allocated([value[0] for value in parts.frozen(example)], [len(part) for part in images[: 1 + validated]])
    for inputs, kept in zip(images, values, strict=False):
        _fill(kept, parts.frozen, inputs, accelerator, run.workers)
    train = Features(values[0], data.train.labels)
    if not validated:
        return parts.rest, train, Augmented(data.val, preprocess.evaluation())
    return parts.rest, train, Features([value.unsqueeze(1) for value in values[1]], data.val.labels)  # of one crop each


class Features(Dataset[tuple[tuple[Tensor, ...], int]]):
    """What the frozen part made of each image; items ``i`` and ``(i, position)`` are of image ``i``, with its label.

    >>> Features([torch.eye(2)], [5, 7])[1, 40]
    ((tensor([0., 1.]),), 7)
    """

    def __init__(self, values: Sequence[Tensor], labels: Sequence[int]) -> None:
        self._values, self._labels = values, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[tuple[Tensor, ...], int]:
        index = item[0] if isinstance(item, tuple) else item
        return tuple(value[index] for value in self._values), self._labels[index]


def _allocated(examples: Sequence[Tensor], counts: Sequence[int]) -> list[list[Tensor]]:
    """Room for features like the ``examples`` of so many images each."""
    needed, free = sum(counts) * sum(value.nbytes for value in examples), psutil.virtual_memory().available
    text = f"the features of {sum(counts):,} images before the first trained layer take {_size(needed)}"
    if needed > free / 2:
        raise NotCachedError(
            f"{text} of memory, and {_size(free)} are free; leave out --cache, or take smaller or fewer images"
        )
    tqdm.write(f"{text} of memory")
    return [[torch.empty(count, *value.shape, dtype=value.dtype) for value in examples] for count in counts]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _fill(
    values: Sequence[Tensor], frozen: nn.Module, images: Augmented, accelerator: Accelerator, workers: int
) -> None:
    loader = DataLoader(images, batch_size=128, num_workers=workers)
    with torch.no_grad(), tqdm(total=len(images), desc="cache features", unit="image", leave=False) as bar:
        for batch, _ in loader:
            with accelerator.autocast():
                made = frozen(batch.to(accelerator.device))
            for value, part in zip(values, made, strict=True):
                value[bar.n : bar.n + len(batch)] = part.cpu()
            bar.update(len(batch))


@dataclass(frozen=True)
class Cut:
    """A network in two: ``frozen`` makes features of images, ``rest`` makes logits of them; both share its layers."""

    frozen: nn.Module
    rest: nn.Module


def cut(network: nn.Module, trained: Iterable[nn.Module], images: Tensor) -> Cut:
    """Cut a network, which is in its training mode, before the first of the ``trained`` modules on every way.

    ``images`` ``(N, 3, H, W)`` are an example.

    Raises ``NotCachedError`` if nothing is frozen, or the network's forward cannot be traced with ``torch.fx``.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(32, 2)).eval().requires_grad_(False)
    >>> parts = cut(network, [network[2].requires_grad_().train()], torch.zeros(5, 3, 2, 2))
    >>> [tuple(value.shape) for value in parts.frozen(torch.zeros(5, 3, 2, 2))]
    [(5, 32)]
    """
    tracer = _Tracer(set(trained))
    try:
        traced = fx.GraphModule(network, tracer.trace(network))
        frozen = _frozen_nodes(traced, images)
    except Exception as error:  # whatever a forward makes of stand-ins for tensors
        raise _refused(f"its forward cannot be traced ({type(error).__name__}: {str(error)[:120]})") from error
    parts = _split(traced, frozen)
    _check_equal(network, parts, images)
    return parts


class _Tracer(fx.Tracer):
    """Goes into modules that hold something trained; takes these, and whatever is frozen as a whole, as they are."""

    def __init__(self, trained: set[nn.Module]) -> None:
        super().__init__()
        self._trained = trained

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self._trained or _is_frozen(m) or super().is_leaf_module(m, module_qualified_name)


def _is_frozen(module: nn.Module) -> bool:
    return not any(m.training for m in module.modules()) and not any(p.requires_grad for p in module.parameters())


def _frozen_nodes(traced: fx.GraphModule, images: Tensor) -> set[fx.Node]:
    """The nodes whose values depend on the images and on what is frozen alone, and are tensors ``(N, *)``."""
    interpreter = fx.Interpreter(traced)
    first = next(iter(traced.graph.nodes))
    interpreter.env[first] = images
    frozen: set[fx.Node] = {first}
    constants: set[fx.Node] = set()
    with torch.no_grad():
        for node in traced.graph.nodes:
            if _learns(interpreter, node) or not (frozen | constants).issuperset(node.all_input_nodes):
                continue
            value = interpreter.env[node] = interpreter.run_node(node)
            if node.op == "get_attr":
                constants.add(node)
            elif isinstance(value, Tensor) and value.shape[:1] == images.shape[:1]:
                frozen.add(node)
    return frozen


def _learns(interpreter: fx.Interpreter, node: fx.Node) -> bool:
    """Whether a node's value changes in training by itself; those of the graph are not asked for."""
    if node.op == "call_module":
        return not _is_frozen(interpreter.fetch_attr(str(node.target)))
    if node.op == "get_attr":
        return bool(getattr(interpreter.fetch_attr(str(node.target)), "requires_grad", False))
    return node.op in ("placeholder", "output")


def _split(traced: fx.GraphModule, frozen: set[fx.Node]) -> Cut:
    nodes = list(traced.graph.nodes)
    border = [node for node in nodes if node in frozen and not frozen.issuperset(node.users)]
    if all(node.op == "placeholder" for node in border):
        raise _refused("nothing is frozen before what is trained")
    copies: dict[fx.Node, fx.Node] = {}
    first, second = fx.Graph(), fx.Graph()
    for node in nodes:
        if node in frozen or node.op == "get_attr":
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in border))
    copies = {node: second.placeholder(node.name) for node in border}
    for node in nodes:
        if node not in frozen:
            copies[node] = second.node_copy(node, copies.__getitem__)
    return Cut(_module(traced, first), _OneArgument(_module(traced, second)))


def _module(traced: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(traced, graph)
    module.graph.eliminate_dead_code()  # parameters that only the other part uses
    module.recompile()
    return module


class _OneArgument(nn.Module):
    """The features of a batch come as one value, as its images would."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.module(*features)
        return logits


def _check_equal(network: nn.Module, parts: Cut, images: Tensor) -> None:
    """Raise if the parts do not make what the whole makes, as where a forward draws random numbers."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    with torch.no_grad():
        whole, again = network(images), parts.rest(parts.frozen(images))
    for module, training in modes:
        module.training = training
    if not torch.allclose(whole, again, rtol=1e-4, atol=1e-5):
        raise _refused("its parts do not make what the whole network makes")


def _refused(why: str) -> NotCachedError:
    return NotCachedError(f"the features before the first trained layer cannot be cached: {why}; leave out --cache")
