"""A ``torch.compile`` backend that puts gates into each graph that it gets, before it compiles the graph.

The gates belong to the compiled graph, not to the model, whose weights are the graph's arguments: the backend keeps
them, for an optimizer and for ``state_dict``.
"""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn

import se_inject


class GatingBackend:
    """Gates graphs; ``gates`` holds the gates by their names in the model."""

    def __init__(self) -> None:
        self.gates = nn.ModuleDict()

    def __call__(self, graph: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        if len(se_inject.find_sites(graph)):
            se_inject.apply(graph)
        for name, _ in list(se_inject.gates(graph)):
            key = name.replace(".", "/")
            if key in self.gates:  # compiled again, for other shapes or modes
                graph.set_submodule(name, self.gates[key])
            self.gates[key] = graph.get_submodule(name)
        return graph  # or a compiler's function: return torch._inductor.compile(graph, inputs)


def main() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).eval()
    images, labels = torch.randn(4, 3, 64, 64), torch.randint(10, (4,))
    backend = GatingBackend()
    compiled = torch.compile(model, backend=backend)
    unchanged = torch.equal(compiled(images), model(images))
    print(f"{len(backend.gates)} gates, output unchanged to the bit: {unchanged}")

    optimizer = torch.optim.SGD(backend.gates.parameters(), lr=0.1)
    for step in range(3):
        loss: Tensor = nn.functional.cross_entropy(compiled(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
