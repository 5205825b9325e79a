"""The head: the layers of a network that make its logits, one for each class."""

from collections.abc import Sequence

from torch import nn

from ..errors import SettingsError
from .base import build_base
from .skeleton import skeleton


def find_head(name: str) -> tuple[str, ...]:
    """The layers of the network called ``name`` whose size follows from the number of classes.

    So the head of every library's networks is found, be it one linear layer, several, or a convolution.

    Raises ``SettingsError`` if there are none, as in a network that is made without being told how many classes.

    >>> find_head("torchvision/mobilenet_v2"), find_head("torchvision/squeezenet1_1"), find_head("se_resnet20")
    (('classifier.1',), ('classifier.1',), ('fc',))
    """
    few, many = (
        {key: value.shape for key, value in skeleton(build_base, name, n).state_dict().items()}
        for n in (10, 100)  # as networks for CIFAR can have no other
    )
    head = tuple(dict.fromkeys(key.rpartition(".")[0] for key, shape in few.items() if many.get(key) != shape))
    if not head:
        layers = [path for path, m in skeleton(build_base, name, None).named_modules() if isinstance(m, nn.Linear)]
        raise SettingsError(
            f"{name}: no layer follows the number of classes; name the last one with --head"
            + (f", such as --head {layers[-1]}" if layers else "")
        )
    return head


def replace_head(network: nn.Module, head: Sequence[str], num_classes: int) -> None:
    """Put new layers with ``num_classes`` outputs in the place of those called ``head``, in place.

    Raises ``SettingsError``, and changes nothing, if one is missing, or neither linear nor a convolution.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(8, 5))
    >>> replace_head(network, ["1"], 3)
    >>> network[1]
    Linear(in_features=8, out_features=3, bias=True)
    """
    modules = {name: module for name, module in network.named_modules() if name}
    layers = {name: _resized(name, modules.get(name), num_classes) for name in head}
    for name, layer in layers.items():
        network.set_submodule(name, layer)


def _resized(name: str, layer: nn.Module | None, num_classes: int) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, num_classes, layer.bias is not None)
    if isinstance(layer, nn.Conv2d) and layer.groups == 1:
        sizes = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        return nn.Conv2d(layer.in_channels, num_classes, *sizes, bias=layer.bias is not None)  # type: ignore[arg-type]
    what = "the network has no such layer" if layer is None else f"it is a {type(layer).__name__}"
    raise SettingsError(f"--head {name}: {what}; name the Linear or Conv2d that makes the logits")
