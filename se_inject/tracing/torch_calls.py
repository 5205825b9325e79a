"""Functions of torch: which are, and what those mean that run code of the forward's."""

import types
from collections.abc import Callable
from typing import Any

import torch

_Arguments = tuple[Any, ...]
_Keywords = dict[str, Any]


def is_torch_function(function: Any) -> bool:
    """Whether a function or method is one of torch's.

    >>> is_torch_function(torch.relu), is_torch_function(torch.Tensor.add_), is_torch_function(len)
    (True, True, False)
    """
    owner = getattr(function, "__self__", getattr(function, "__objclass__", None))
    module = getattr(function, "__module__", None) or type(owner).__module__
    if isinstance(owner, type):
        module = owner.__module__
    return not isinstance(function, type) and (module or "").partition(".")[0] == "torch"


_TORCH = torch.__file__.rpartition("/")[0]


def is_of_torch(filename: str) -> bool:
    """Whether a file belongs to torch.

    >>> is_of_torch(torch.__file__)
    True
    """
    return filename.startswith(_TORCH)


def autograd(run: Any, function: Any, args: _Arguments) -> Any:
    """What the forward of a ``torch.autograd.Function`` makes of its arguments."""
    if function.setup_context is not torch.autograd.Function.setup_context:
        return run.perform(function.forward, args, {})
    names = ("save_for_backward", "save_for_forward", "mark_dirty", "mark_non_differentiable", "set_materialize_grads")
    context = types.SimpleNamespace(**dict.fromkeys(names, lambda *_: None))
    context.needs_input_grad = (True,) * len(args)
    return run.perform(function.forward, (context, *args), {})


def _checkpoint(run: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    function, *rest = args
    own = {"use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop"}
    return run.perform(function, tuple(rest), {key: value for key, value in kwargs.items() if key not in own})


def _checkpoint_sequential(run: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    functions, _, x = (*args, *kwargs.values())[:3]
    for function in functions:
        x = run.perform(function, (x,), {})
    return x


def _pattern(name: str) -> Callable[..., Any]:
    """What einops makes of a value: its own code asks for hundreds of things that no value answers."""
    return lambda run, args, kwargs: run.symbol(name, *args, **kwargs)


SPECIAL: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch.utils.checkpoint", "checkpoint"): _checkpoint,
    ("torch.utils.checkpoint", "checkpoint_sequential"): _checkpoint_sequential,
    ("torch", "_assert"): lambda run, args, kwargs: None,
    **{("einops.einops", name): _pattern(name) for name in ("rearrange", "reduce", "repeat", "einsum")},
    **{("einops.packing", name): _pattern(name) for name in ("pack", "unpack")},
}
