"""The whole gate as one function of autograd, which keeps what is left of a feature, not the feature."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from .affine import affine, dot, is_in_memory, scaled, spread
from .formula import excitation, gradients_of_layers, in_operations
from .kept import Kept, dots, kept_of
from .pointwise import Pointwise


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
    past_x = kept[0].inputs() if kept and isinstance(kept[0], Pointwise) else ()
    result: Tensor = _Gate.apply(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias, factor, kept, origin, *past_x)
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
        *past_x: Tensor | None,  # what a convolution made x of, which may be given its gradients at once
    ) -> Tensor:
        with without_autocast(x):  # which would keep weights that it has cast here, where they have no history
            squeezed, hidden, excited = excitation(x, w1, b1, w2, b2)
        scale = factor * excited
        result = scaled(x, scale)
        values = squeezed, hidden, scale, result if kept is None else None, origin
        ctx.save_for_backward(*values, w1, b1, w2, b2)
        ctx.factor, ctx.kept, ctx.past_x = factor, kept, [None] * len(past_x)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        with without_autocast(gradient):
            gradients = _with_history if torch.is_grad_enabled() else _gradients  # it may be to be derived again
            of_x, *of_weights, past_x = gradients(ctx, gradient)
        return of_x, *of_weights, None, None, None, *past_x


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    squeezed, hidden, scale, result, _, w1, _, w2, _ = ctx.saved_tensors
    by_sample = None
    if ctx.kept is None:
        of_scale = dot(gradient, result)  # times the scale, as below
    elif ctx.past_x and not ctx.kept[0].is_held() and is_in_memory(gradient):
        by_sample = ctx.kept[0].by_sample(gradient, scale)
        of_scale = by_sample.dot * scale
    else:
        of_scale = dots(ctx.kept, gradient) * scale
    of_fc2 = of_scale * torch.rsub(scale, 1, alpha=1 / ctx.factor)
    of_mean, of_weights = gradients_of_layers(of_fc2, squeezed, hidden, w1, w2, gradient[0, 0].numel())
    if by_sample is not None:
        return None, *of_weights, by_sample.gradients(of_mean, ctx.needs_input_grad[-3:])
    return affine(gradient, scale, of_mean), *of_weights, ctx.past_x


def _with_history(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    squeezed, _, scale, result, origin, *weights = ctx.saved_tensors
    if ctx.kept is None:
        scale = spread(scale.detach(), result)
        # Where the scale is 0, nothing but the mean can matter.
        x = origin + torch.where(scale == 0, spread(squeezed, result), result / scale).detach()
    else:
        x = torch.cat([part.value() for part in ctx.kept], 1)
    inputs = [t if t.requires_grad else t.detach().requires_grad_() for t in (x, *weights)]
    output = in_operations(*inputs, factor=ctx.factor)
    return *torch.autograd.grad(output, inputs, gradient, create_graph=True), ctx.past_x


class _Origin(torch.autograd.Function):
    """Zeros that take one number to keep, and through which gradients go on to a value that is not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.new_zeros(()).expand(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


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
