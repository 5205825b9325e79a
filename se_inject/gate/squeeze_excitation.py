"""The Squeeze-and-Excitation gate.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, sections 3.1 (squeeze) and 3.2 (excitation).
"""

import re
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn

from ..errors import ArgumentTypeError, GateMismatchError, InvalidArgumentError
from .autograd import gated, is_plain_layer
from .compiled import excited, is_compiled_for_inference

Form = Literal["identity", "standard"]
Memory = Literal["keep", "recompute"]


def check_reduction(reduction: object) -> None:
    """Raise unless ``reduction`` is a whole number of at least 1.

    >>> check_reduction(16)
    """
    if isinstance(reduction, bool) or not isinstance(reduction, Integral):
        raise ArgumentTypeError(
            f"reduction must be a whole number >= 1, got {reduction!r}; the paper uses reduction=16"
        )
    if reduction < 1:
        raise InvalidArgumentError(f"reduction must be >= 1, got {reduction}; the paper uses reduction=16")


def squeezed_channels(channels: int, reduction: int) -> int:
    """The gate's width: ``max(channels // reduction, 8)``.

    >>> squeezed_channels(256, 16), squeezed_channels(64, 16)
    (16, 8)
    """
    return max(channels // reduction, 8)


def check_form(form: object, argument: str = "init") -> None:
    """Raise unless ``form`` names one of the two gate forms.

    >>> check_form("identity")
    """
    if form not in get_args(Form):
        raise InvalidArgumentError(f"{argument} must be one of {', '.join(map(repr, get_args(Form)))}, got {form!r}")


def check_memory(memory: object) -> None:
    """Raise unless ``memory`` names one of the two ways to come by a feature in backward.

    >>> check_memory("recompute")
    """
    if memory not in get_args(Memory):
        raise InvalidArgumentError(f"memory must be one of {', '.join(map(repr, get_args(Memory)))}, got {memory!r}")


def channels_of(gate: "SqueezeExcitation") -> int:
    """The channels of the features that a gate takes now: pruning changes them, and adapters stand around its layers.

    0 for a subclass whose layers are others.

    >>> channels_of(SqueezeExcitation(64))
    64
    """
    return _size_of(gate, "in_channels")


def width_of(gate: "SqueezeExcitation") -> int:
    """The same of its width.

    >>> width_of(SqueezeExcitation(64))
    8
    """
    return _size_of(gate, "out_channels")


def _size_of(gate: "SqueezeExcitation", name: str) -> int:
    layer = getattr(gate, "fc1", None)
    return int(getattr(getattr(layer, "base_layer", layer), name, 0))


# The keys of a gate's weights, pruned and parametrized ones too; not those of adapters beside them.
_OF_LAYERS = r"fc[12]\.(base_layer\.)?(weight|bias|parametrizations\.)\w*(\.original\d?)?"


class _ZeroConv2d(nn.Conv2d):
    """Starts as zeros; random values that zeros then overwrite would cost half the time of surgery."""

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class SqueezeExcitation(nn.Module):
    """Scale each channel of a feature by a gate computed from all channels' global averages.

    Input and output are ``(N, C, *)`` with one or more spatial dimensions. The gate's width is
    ``max(channels // reduction, 8)``. ``init="identity"`` has gate values ``2 * sigmoid(z)`` with ``fc2`` zero: exactly
    1.0 until trained. ``init="standard"`` has the paper's ``sigmoid(z)`` (section 3.2, equation 3). ``fc1`` and
    ``fc2`` are 1x1 convolutions with bias, as in timm's ``SEModule`` and ``torchvision.ops.SqueezeExcitation``, so
    their keys and shapes agree. A gate of the identity form has the buffer ``identity_form``, too, and neither form
    loads the other's state dict.

    In training, what autograd keeps anyway replaces ``x`` in backward, where that is enough. ``memory="recompute"``
    makes ``x`` again where a convolution made it, which costs the time of the convolution, or does without it.

    Raises ``ArgumentTypeError`` or ``InvalidArgumentError`` for bad ``channels``, ``reduction``, ``init`` or
    ``memory``.

    >>> gate = SqueezeExcitation(64, reduction=4)
    >>> gate
    SqueezeExcitation(
      64, init=identity
      (fc1): Conv2d(64, 16, kernel_size=(1, 1), stride=(1, 1))
      (fc2): Conv2d(16, 64, kernel_size=(1, 1), stride=(1, 1))
    )
    >>> x = torch.randn(2, 64, 7, 7)
    >>> torch.equal(gate(x), x)
    True
    """

    memory: str = "keep"  # no Literal: torch.jit would not know it
    _se_keeps_result = False  # whether what follows keeps the result anyway, and leaves it as it is

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        init: Form = "identity",
        memory: Memory = "keep",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if isinstance(channels, bool) or not isinstance(channels, int):
            raise ArgumentTypeError(f"channels must be a whole number >= 1, got {channels!r}")
        if channels < 1:
            raise InvalidArgumentError(f"channels must be >= 1, got {channels}")
        check_reduction(reduction)
        check_form(init)
        check_memory(memory)
        self.memory = memory
        squeezed = squeezed_channels(channels, int(reduction))
        self.fc1 = nn.Conv2d(channels, squeezed, 1, device=device, dtype=dtype)
        self.fc2 = (nn.Conv2d if init == "standard" else _ZeroConv2d)(squeezed, channels, 1, device=device, dtype=dtype)
        self.fc2.__class__ = nn.Conv2d
        self.set_form(init)

    def set_form(self, form: Form) -> None:
        """Make the gate one of that form; its weights stay as they are, so its values change.

        >>> gate = SqueezeExcitation(8, init="standard")
        >>> gate.set_form("identity")
        >>> [key for key in gate.state_dict() if not key.startswith("fc")]
        ['identity_form']
        """
        check_form(form, "form")
        self.init: Form = form
        self._buffers.pop("identity_form", None)
        if form == "identity":  # a key that tells; the standard form has exactly timm's
            device = self.fc1.weight.device
            self.register_buffer("identity_form", torch.ones((), dtype=torch.int64, device=device))

    def set_width(self, width: int) -> None:
        """Make the gate one of another width, which has not learned yet.

        >>> gate = SqueezeExcitation(64)
        >>> gate.set_width(4)
        >>> gate.fc1.out_channels
        4
        """
        device, dtype, channels = self.fc1.weight.device, self.fc1.weight.dtype, channels_of(self)
        self.fc1 = nn.Conv2d(channels, width, 1, device=device, dtype=dtype)
        self.fc2 = nn.Conv2d(width, channels, 1, device=device, dtype=dtype)
        self.train(self.training).reset_parameters()

    def reset_parameters(self) -> None:
        """Make the gate one that has not learned yet: the identity, or random values of the standard form.

        Loaders that make models on the meta device call it for what a file does not have.

        >>> gate = SqueezeExcitation(8)
        >>> nn.init.ones_(gate.fc2.bias).requires_grad
        True
        >>> gate.reset_parameters()
        >>> torch.equal(gate(torch.ones(1, 8, 5)), torch.ones(1, 8, 5))
        True
        """
        # By torch's functions, which others guard: transformers lets them write what is not loaded only.
        self.fc1.reset_parameters()
        self.fc2.reset_parameters()
        if self.init == "identity":
            for zero in self.fc2.parameters():
                nn.init.zeros_(zero)
            nn.init.ones_(self.get_buffer("identity_form"))

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x`` of shape ``(N, C, *)``; shape, dtype and memory format stay the same.

        >>> SqueezeExcitation(8)(torch.ones(1, 8, 5)).shape
        torch.Size([1, 8, 5])
        """
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            if isinstance(x, fx.Proxy):  # it does not tell its rank
                return self._gate_flat(x, None)
            if type(self) is SqueezeExcitation:  # not of another formula
                output = gated(
                    x,
                    self.fc1,
                    self.fc2,
                    2.0 if self.init == "identity" else 1.0,
                    recompute=self.memory == "recompute",
                    keeps_result=self._se_keeps_result and not self._forward_hooks,  # which may change it
                )
                if output is not None:
                    return output
        if x.is_quantized:
            return self._gate_quantized(x)
        if x.dim() != 4:
            return self._gate_flat(x, self.fc1.weight.dtype)
        # No AdaptiveAvgPool2d: with channels_last under autocast it has produced NaNs in SE blocks.
        squeezed = x.mean((2, 3), keepdim=True).to(self.fc1.weight.dtype)
        return x * self._excite(squeezed).to(x.dtype)

    def _gate_flat(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        """One way for all ranks, without looking at the rank."""
        flat = x.flatten(2)
        squeezed = flat.mean(2)[:, :, None, None]
        scale = self._excite(squeezed if dtype is None else squeezed.to(dtype))
        # The scale is the view, not the result: an in-place add on the result would cost a copy in backward.
        return x * scale.flatten(2).to(x.dtype).expand_as(flat).view_as(x)

    def _gate_quantized(self, x: Tensor) -> Tensor:
        """The way of eager quantization, whose layers take quantized values; no observer tells the result's range."""
        flat = x.flatten(2)
        scale = torch.sigmoid(self.fc2(torch.relu(self.fc1(flat.mean(2)[:, :, None, None])))).dequantize()
        scale = 2 * scale if self.init == "identity" else scale
        result = x.dequantize() * scale.flatten(2).expand_as(flat).view_as(x)
        return torch.quantize_per_tensor_dynamic(result, x.dtype, False)

    def _excite(self, squeezed: Tensor) -> Tensor:
        scale = self._excited(squeezed)
        return 2 * scale if self.init == "identity" else scale

    def _excited(self, squeezed: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            is_compiled = is_compiled_for_inference()
            if is_compiled and is_plain_layer(self.fc1) and is_plain_layer(self.fc2):
                assert self.fc1.bias is not None
                w1, b1 = self.fc1.weight.flatten(1), self.fc1.bias
                return excited(squeezed.flatten(1), w1, b1, self.fc2)[:, :, None, None]
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        form = "identity" if f"{prefix}identity_form" in state_dict else "standard"
        if form != self.init and any(map(re.compile(re.escape(prefix) + _OF_LAYERS).fullmatch, state_dict)):
            raise GateMismatchError(  # at once, before the layers are loaded
                f"{prefix.removesuffix('.') or 'the gate'} is of the {self.init} form, and the weights are of the"
                f" {form} form: make the gates of that form (se_inject.convert(model, {form!r}), or from the start"
                f" se_inject.apply(model, init={form!r})), load the weights, and convert the model back"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Channels and form, for ``print(model)``.

        >>> SqueezeExcitation(64, init="standard").extra_repr()
        '64, init=standard'
        """
        memory = ", memory=recompute" if self.memory == "recompute" else ""
        return f"{channels_of(self)}, init={self.init}{memory}"
