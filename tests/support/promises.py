"""The library's promises, as checks that any model can be put to."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import se_inject


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def assert_same(a: Any, b: Any) -> None:
    """Equal to the bit, NaNs included."""
    left, right = tensors(a), tensors(b)
    assert len(left) == len(right) and left
    for x, y in zip(left, right, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert torch.equal(x.nan_to_num(nan=12345.0), y.nan_to_num(nan=12345.0))


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that surgery must keep, by identity where it has one."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "parameters": {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)},
        "buffers": {name: id(b) for name, b in model.named_buffers(remove_duplicate=False)},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "modules": {name: id(m) for name, m in model.named_modules(remove_duplicate=False)},
        "training": {name: m.training for name, m in model.named_modules()},
        "hooks": {
            name: [list(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
            for name, m in model.named_modules()
        },
    }


def exact_state(model: nn.Module) -> dict[str, Any]:
    """All of a model's Python state, for "untouched"."""
    return {
        name: (type(m), {k: (sorted(v) if isinstance(v, dict) else id(v)) for k, v in vars(m).items()})
        for name, m in model.named_modules(remove_duplicate=False)
    }


def assert_kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    for what, values in before.items():
        for name, value in values.items():
            now = after[what][name]
            assert torch.equal(value, now) if isinstance(value, Tensor) else value == now, (what, name)


def run(model: nn.Module, inputs: Callable[[], tuple[Any, ...]], training: bool) -> Any:
    model.train(training)
    torch.manual_seed(0)
    arguments = inputs()
    torch.manual_seed(1)
    return model(*arguments)


def check_promises(model: nn.Module, inputs: Callable[[], tuple[Any, ...]], sites: int, **options: Any) -> None:
    """Promises 1, 2 and 4 of the design, and that the gates learn."""
    # A second copy of the plain model is run in train mode, as that changes its statistics.
    plain = copy.deepcopy(model)
    with torch.no_grad():
        expected_eval = run(plain, inputs, training=False)
    expected_train = run(plain, inputs, training=True)

    flags = {name: m.training for name, m in model.named_modules()}
    untouched, before = exact_state(model), snapshot(model)
    rng = torch.get_rng_state()
    found = se_inject.find_sites(model, **options)
    assert len(found) == sites, found
    assert exact_state(model) == untouched and torch.equal(torch.get_rng_state(), rng)

    assert se_inject.remove(se_inject.apply(model, **options)) is model
    assert exact_state(model) == untouched
    assert se_inject.apply(model, **options) is model
    after = snapshot(model)
    assert_kept(before, after)
    assert {name: after["training"][name] for name in flags} == flags
    gates = dict(se_inject.gates(model))
    assert sorted(gates) == sorted(site.gate_path for site in found)
    # A block under several names has its gate under several names too.
    aliases = {name for name, m in model.named_modules(remove_duplicate=False) if m in set(gates.values())}
    new = set(after["state"]) - set(before["state"])
    keys = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "identity_form")
    assert new == {f"{name}.{key}" for name in aliases for key in keys}

    with torch.no_grad():
        assert_same(run(model, inputs, training=False), expected_eval)
    assert_same(run(model, inputs, training=True), expected_train)
    for name, buffer in plain.named_buffers():
        assert_same(model.get_buffer(name), buffer)

    check_gates_learn(model, inputs)

    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in before["state"]:
                value.copy_(before["state"][name])
    for name, m in model.named_modules():
        m.training = flags.get(name, True)
    assert se_inject.remove(model) is model
    assert {name: type(m) for name, m in model.named_modules(remove_duplicate=False)} == {
        name: kind for name, (kind, _) in untouched.items()
    }
    restored = snapshot(model)
    assert list(restored["state"]) == list(before["state"])
    assert_kept(before, restored)
    with torch.no_grad():
        assert_same(run(model, inputs, training=False), expected_eval)


def check_gates_learn(model: nn.Module, inputs: Callable[[], tuple[Any, ...]]) -> None:
    """A backward pass reaches every gate's fc2 and, once that is no longer zero, fc1."""
    with torch.no_grad():
        for module in model.modules():  # a branch that is initialized to be zero gives its gate no gradient
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine and not module.weight.any():
                module.weight.fill_(1)
    gates = dict(se_inject.gates(model))
    optimizer = torch.optim.SGD(se_inject.gate_parameters(model), lr=0.1)
    for layer in ("fc2", "fc1"):
        model.zero_grad()
        output = [x for x in tensors(run(model, inputs, training=True)) if x.requires_grad]
        sum((x.square() * torch.linspace(0.5, 1, x.numel()).view_as(x)).sum() for x in output).backward()
        for name, gate in gates.items():
            grad = gate.get_submodule(layer).bias.grad
            assert grad is not None and grad.abs().sum() > 0, (name, layer)
        for parameter in se_inject.gate_parameters(model):
            parameter.grad /= parameter.grad.norm() + 1e-12
        optimizer.step()
