"""The whole gate as one function of autograd, which keeps what is left of a feature, not the feature."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from .affine import affine, dot, scaled, spread
from .kept import Kept, kept_of


def gated(
    x: Tensor, fc1: nn.Conv2d, fc2: nn.Conv2d, factor: float, *, recompute: bool, keeps_result: bool
) -> Tensor | None:
    """``x * factor * sigmoid(fc2(relu(fc1(mean of x))))``; None where autograd's own way is the one to take.

    With ``keeps_result``, what is kept is the result, where nothing else is.
    """
    if not _is_plain_training(x, fc1, fc2):
        return None
    kept = kept_of(x, recompute=recompute)
    if kept is None and not keeps_result:
        return None
    origin = _Origin.apply(x) if kept is None else None
    result: Tensor = _Gate.apply(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias, factor, kept, origin)
    return result


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        factor: float,
        kept: list[Kept] | None,
        origin: Tensor | None,
    ) -> Tensor:
        # As the gate itself does it, so that outputs are the same to the bit as without gradients.
        squeezed = x.mean((2, 3), keepdim=True) if x.dim() == 4 else x.flatten(2).mean(2)[:, :, None, None]
        with without_autocast(x):  # which would keep weights that it has cast here, where they have no history
            hidden = torch.relu(functional.conv2d(squeezed, w1.to(x.dtype), b1.to(x.dtype)))
            excited = torch.sigmoid(functional.conv2d(hidden, w2.to(x.dtype), b2.to(x.dtype))).flatten(1)
        squeezed, hidden = squeezed.flatten(1), hidden.flatten(1)
        result = scaled(x, factor * excited)
        ctx.save_for_backward(squeezed, hidden, excited, w1, b1, w2, b2, origin, result if kept is None else None)
        ctx.factor, ctx.kept = factor, kept
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        with without_autocast(gradient):
            return _Gate._gradients(ctx, gradient)

    @staticmethod
    def _gradients(ctx: Any, gradient: Tensor) -> Any:
        squeezed, hidden, excited, w1, b1, w2, b2, origin, result = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is to be derived again
            if ctx.kept is None:
                scale = spread(ctx.factor * excited.detach(), result)
                # Where the scale is 0, nothing but the mean can matter.
                x = origin + torch.where(scale == 0, spread(squeezed, result), result / scale).detach()
            else:
                x = torch.cat([part.value() for part in ctx.kept], 1)
            inputs = [t if t.requires_grad else t.detach().requires_grad_() for t in (x, w1, b1, w2, b2)]
            output = _in_operations(*inputs, factor=ctx.factor)
            return *torch.autograd.grad(output, inputs, gradient, create_graph=True), None, None, None
        if ctx.kept is None:
            of_fc2 = dot(gradient, result) * (1 - excited)
        else:
            parts = torch.split(gradient, [part.channels for part in ctx.kept], 1)
            of_scale = torch.cat([part.dot(g) for part, g in zip(ctx.kept, parts, strict=True)], 1)
            of_fc2 = of_scale * ctx.factor * excited * (1 - excited)
        exact = of_fc2.dtype  # of float32 where the feature is of half precision
        of_fc1 = torch.where(hidden > 0, of_fc2 @ w2.flatten(1).to(exact), 0)
        of_mean = of_fc1 @ w1.flatten(1).to(exact) * (gradient.shape[1] / gradient[0].numel())
        of_x = affine(gradient, ctx.factor * excited, of_mean)
        of_w1, of_w2 = of_fc1.T @ squeezed.to(exact), of_fc2.T @ hidden.to(exact)
        of_weights = (of_w1.view(w1.shape), of_fc1.sum(0), of_w2.view(w2.shape), of_fc2.sum(0))
        return of_x, *(each.to(w1.dtype) for each in of_weights), None, None, None


class _Origin(torch.autograd.Function):
    """Zeros that take one number to keep, and through which gradients go on to a value that is not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.new_zeros(()).expand(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _in_operations(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, *, factor: float) -> Tensor:
    """The gate in operations that autograd knows."""
    w1, b1, w2, b2 = (weight.to(x.dtype) for weight in (w1, b1, w2, b2))
    hidden = torch.relu(functional.linear(x.flatten(2).mean(2), w1.flatten(1), b1))
    return x * spread(factor * torch.sigmoid(functional.linear(hidden, w2.flatten(1), b2)), x)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block in which operations on a tensor are not cast.

    >>> with without_autocast(torch.ones(1)):
    ...     under_autocast(torch.ones(1))
    False
    """
    return torch.autocast(x.device.type, enabled=False) if under_autocast(x) else nullcontext()


_GLOBAL_HOOKS = (_global_forward_hooks, _global_forward_pre_hooks, _global_backward_hooks, _global_backward_pre_hooks)


def _is_plain_training(x: Tensor, fc1: nn.Conv2d, fc2: nn.Conv2d) -> bool:
    """Whether backward follows, and nothing watches, moves or transforms what happens in between."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and type(x) is Tensor
        and x.requires_grad
        and x.numel() > 0
        and x._version == 0  # else it may not be what its node made
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and is_plain_layer(fc1)
        and is_plain_layer(fc2)
        and _is_exact(x, fc1.weight.dtype, fc2.weight.dtype)
    )


def _is_exact(x: Tensor, *dtypes: torch.dtype) -> bool:
    """Whether sums of products can be so in a feature's dtype, in which layers of these dtypes compute."""
    autocast = under_autocast(x)
    if autocast and x.dtype is not torch.get_autocast_dtype(x.device.type):
        return False
    if not autocast and set(dtypes) != {x.dtype}:
        return False
    return x.dtype in (torch.float32, torch.float64) or x.is_cuda


def under_autocast(x: Tensor) -> bool:
    """Whether operations on a tensor are cast; on the meta device they never are.

    >>> under_autocast(torch.empty(1, device="meta"))
    False
    """
    # To make a device and ask for its name takes longer than all else here.
    return not x.is_meta and torch.is_autocast_enabled("cpu" if x.is_cpu else x.device.type)


def is_plain_call(module: nn.Module) -> bool:
    """Whether a call of a module is its class's forward and no more.

    >>> is_plain_call(nn.ReLU())
    True
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks) and "forward" not in vars(module) and module._compiled_call_impl is None


def is_plain_layer(layer: nn.Module) -> bool:
    """Whether calling a layer of a gate is a product with its weight and no more; hooks and parametrizations do more.

    >>> is_plain_layer(nn.Conv2d(8, 8, 1)), is_plain_layer(nn.Conv2d(8, 8, 1, groups=2))
    (True, False)
    """
    if type(layer) is not nn.Conv2d or type(layer.weight) not in _PLAIN or type(layer.bias) not in _PLAIN:
        return False
    return layer.groups == 1 and layer.kernel_size == (1, 1) and is_plain_call(layer) and not any(_GLOBAL_HOOKS)


_PLAIN = (nn.Parameter, Tensor)
