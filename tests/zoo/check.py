"""One model put to all promises; what comes out is a row of the results."""

import copy
import io
import pickle
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

import se_inject
from se_inject.gate.record import Gated

from ..support.promises import assert_same, exact_state, tensors
from .expected import class_name, expected_sites, unchecked
from .libraries import Inputs, build, family, inputs

Result = dict[str, Any]
TOO_LARGE = "too large"


def check(library: str, name: str, run_up_to: int) -> Result:
    """Look at a model, convert it and, up to that many parameters, run it, if there is something to gate."""
    result: Result = {"library": library, "model": name, "device": "meta"}
    try:
        with torch.device("meta"):
            model = build(library, name)
    except Exception:  # some models compute with numbers while they are built
        model = _seeded(library, name)
        result["device"] = "cpu"
    result["family"] = family(model)
    result["convolutions"] = sum(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())
    result["parameters"] = sum(p.numel() for p in model.parameters())
    found = se_inject.find_sites(model)
    unresolved = any("pass example_inputs" in reason for _, reason in found.skipped)
    result["reasons"] = Counter(_kind_of(reason) for _, reason in found.skipped)
    if not found and not unresolved:
        _check_untouched(model)
        return _compared(result, model, found)
    too_large = result["parameters"] > run_up_to
    if too_large and not unresolved:
        result["not run"] = TOO_LARGE
        return _converted(result, model, found, {})
    if not too_large:
        if result["device"] == "meta":
            model = _seeded(library, name)
            result["device"] = "cpu"
        _wake(model)
    fitting = list(_fitting(library, name, model, 2 if unresolved else 1, result["device"]))
    if not fitting:
        result["not run"] = "runs on no input that was tried"
        return _converted(result, model, found, {})
    for make in fitting:
        options = {"example_inputs": _example(make)} if unresolved else {}
        found = se_inject.find_sites(model, **options)
        if not any("another spatial size" in reason for _, reason in found.skipped):
            break
    result["reasons"] = Counter(_kind_of(reason) for _, reason in found.skipped)
    if not found:
        _check_untouched(model, **options)
        return _compared(result, model, found)
    if too_large:
        result["not run"] = TOO_LARGE
        return _converted(result, model, found, options)
    return _run(result, model, make, found, options)


def _kind_of(reason: str) -> str:
    return re.sub(r" \([^()]*:\d+\)", "", reason).partition(":")[0]


def _seeded(library: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(library, name)


def _wake(model: nn.Module) -> None:
    """Let every branch make something: parameters that are all zero, as of a last norm, would hide their gates."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.uniform_(0.05, 0.15)


def _run(result: Result, model: nn.Module, make: Inputs, found: Any, options: dict[str, Any]) -> Result:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    flags = {name: m.training for name, m in model.named_modules()}
    expected = [_forward(model, make, training) for training in (False, True)]
    trained = {name: buffer.clone() for name, buffer in model.named_buffers()}
    _restore(model, buffers, flags)
    result = _converted(result, model, found, options)
    before = _structure(model)
    se_inject.apply(model, **options)
    assert_same(_forward(model, make, False), expected[0])
    output = _forward(model, make, True)
    assert_same(output, expected[1])
    for name, buffer in trained.items():
        assert_same(model.get_buffer(name), buffer)
    try:
        result["silent gates"] = _silent_gates(model, output, make)
    except RuntimeError:
        _check_plain_has_no_backward(se_inject.remove(model), make)
        se_inject.apply(model, **options)
    _restore(model, buffers, flags)
    result["pickle"] = _check_copies(model, make, expected[0], options)
    _restore(model, buffers, flags)
    se_inject.remove(model)
    assert _structure(model) == before, "remove does not restore"
    result["run"] = True
    return result


def _converted(result: Result, model: nn.Module, found: Any, options: dict[str, Any]) -> Result:
    """Apply gates, check all that needs no numbers, and remove them."""
    _compared(result, model, found)
    if not found:
        return result
    state, before = _identities(model), exact_state(model)
    started = time.perf_counter()
    se_inject.apply(model, **options)
    result["seconds"] = time.perf_counter() - started
    after = _identities(model)
    gates = [name for name, _ in se_inject.gates(model)]
    assert sorted(gates) == sorted(site.gate_path for site in found), "gates differ from sites"
    assert all(after[key] == value for key, value in state.items()), "a key, object or flag changed"
    prefixes = tuple(f"{name}." for name, m in model.named_modules(remove_duplicate=False) if m in _gate_set(model))
    assert all(key[1].startswith(prefixes) for key in after.keys() - state.keys() if key[0] == "key"), "new keys"
    try:
        se_inject.apply(model, **options)
    except se_inject.errors.NoSiteError:
        pass
    else:
        raise AssertionError("a second apply found something to gate")
    _retrace(model)
    se_inject.remove(model)
    assert exact_state(model) == before, "remove does not restore"
    return result


def _compared(result: Result, model: nn.Module, found: Any) -> Result:
    """Note how the sites compare with the expected ones."""
    expected, sites = expected_sites(model), {}
    for site in found:
        sites.setdefault(site.path, []).append(site.channels)
    reasons = dict(found.skipped)
    missing = Counter(
        f"{class_name(model.get_submodule(p))}: {reasons.get(p, 'not seen')}" for p in expected if p not in sites
    )
    wrong = Counter(class_name(model.get_submodule(p)) for p in sites if expected.get(p, []) != sites[p])
    result |= {"sites": len(found), "expected": sum(map(len, expected.values()))}
    result |= {"missing": missing, "unexpected": wrong, "unchecked": unchecked(model, list(sites))}
    return result


def _check_untouched(model: nn.Module, **options: Any) -> None:
    before = exact_state(model)
    try:
        se_inject.apply(model, **options)
    except se_inject.errors.NoSiteError:
        pass
    else:
        raise AssertionError("apply gated what find_sites did not list")
    assert exact_state(model) == before


def _fitting(library: str, name: str, model: nn.Module, number: int, device: str) -> Iterator[Inputs]:
    """The first inputs that the model takes in both modes."""
    state = {key: value.clone() for key, value in model.named_buffers()}
    flags = {key: m.training for key, m in model.named_modules()}
    for make in inputs(library, name, model):
        if not number:
            return
        on_device = _on(device, make)
        try:
            with torch.no_grad():
                for training in (False, True):
                    assert tensors(_forward(model, on_device, training, grad=False))
        except Exception:  # the model's own refusal of a size
            continue
        finally:
            _restore(model, state, flags)
        number -= 1
        yield on_device


def _on(device: str, make: Inputs) -> Inputs:
    def made() -> tuple[Any, ...]:
        with torch.device(device):
            return make()

    return made


def _forward(model: nn.Module, make: Inputs, training: bool, grad: bool = True, seed: int = 1) -> Any:
    model.train(training)
    torch.manual_seed(0)
    arguments = make()
    torch.manual_seed(seed)
    with torch.set_grad_enabled(training and grad):
        return model(*arguments)


def _example(make: Inputs) -> tuple[Any, ...]:
    torch.manual_seed(0)
    return make()


def _restore(model: nn.Module, buffers: dict[str, torch.Tensor], flags: dict[str, bool]) -> None:
    with torch.no_grad():
        for name, value in buffers.items():
            model.get_buffer(name).copy_(value)
    for name, module in model.named_modules():
        module.training = flags.get(name, module.training)


def _identities(model: nn.Module) -> dict[tuple[str, str], Any]:
    """Keys, objects, versions and flags, but for those of gates, which are new."""
    kept: dict[tuple[str, str], Any] = {("key", key): True for key in model.state_dict()}
    for name, p in model.named_parameters(remove_duplicate=False):
        kept["parameter", name] = id(p), p.requires_grad, p._version
    for name, b in model.named_buffers(remove_duplicate=False):
        kept["buffer", name] = id(b), b._version
    for name, m in model.named_modules(remove_duplicate=False):
        kept["module", name] = id(m), m.training, len(m._forward_hooks), len(m._forward_pre_hooks)
    return kept


def _structure(model: nn.Module) -> dict[str, Any]:
    """What running does not change, while some models keep what they computed in attributes."""
    return {name: (type(m), list(m._modules)) for name, m in model.named_modules(remove_duplicate=False)}


def _gate_set(model: nn.Module) -> set[nn.Module]:
    return {gate for _, gate in se_inject.gates(model)}


def _silent_gates(model: nn.Module, output: Any, make: Inputs) -> list[str]:
    """The gates that no training step reaches; stochastic depth drops some blocks in each."""
    biases = {name: gate.fc2.bias for name, gate in se_inject.gates(model)}
    for seed in range(2, 8):
        outputs = [x for x in tensors(output) if x.requires_grad]
        loss = sum((x.float().square() * torch.linspace(0.5, 1, x.numel()).view_as(x)).sum() for x in outputs)
        grads = torch.autograd.grad(loss, list(biases.values()), allow_unused=True)
        reached = [name for name, grad in zip(biases, grads, strict=True) if grad is not None and grad.any()]
        for name in reached:
            del biases[name]
        if not biases:
            break
        output = _forward(model, make, True, seed=seed)
    return list(biases)


def _check_plain_has_no_backward(model: nn.Module, make: Inputs) -> None:
    """Some models overwrite values that their backward pass needs."""
    try:
        sum(x.float().square().sum() for x in tensors(_forward(model, make, True)) if x.requires_grad).backward()
    except RuntimeError:
        return
    raise AssertionError("the gated model has no backward pass, the plain one has")


def _check_copies(model: nn.Module, make: Inputs, expected: Any, options: dict[str, Any]) -> str:
    """A deep copy and a pickled copy of the gated model; not where the plain model has none either."""
    try:
        copied = copy.deepcopy(model)
        file = io.BytesIO()
        pickle.dump(copied, file)
    except (RuntimeError, AttributeError, TypeError, pickle.PicklingError):
        plain = se_inject.remove(model)
        try:
            pickle.dumps(copy.deepcopy(plain))
        except (RuntimeError, AttributeError, TypeError, pickle.PicklingError):
            se_inject.apply(model, **options)
            return "neither has the plain model"
        raise
    del copied
    file.seek(0)
    loaded = pickle.load(file)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert_same(_forward(loaded, make, False), expected)
    return "equal"


def _retrace(model: nn.Module) -> None:
    """Each gated block can be traced again, with its gates in the graph, if the plain one can be traced."""
    seen = set()
    for block in model.modules():
        if isinstance(block, Gated) and type(block) not in seen and type(block)._se_rewrite.edits:
            seen.add(type(block))
            calls = _traced_calls(block)
            names = {edit.gate for edit in type(block)._se_rewrite.edits}
            if calls is None:
                assert _traced_calls(se_inject.remove(copy.deepcopy(block))) is None, "a gated block cannot be traced"
            else:
                assert names <= calls, "a gate is lost when the block is traced"


class _Leaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _traced_calls(block: nn.Module) -> set[str] | None:
    try:
        return {str(node.target) for node in _Leaves().trace(block).nodes if node.op == "call_module"}
    except Exception:  # whatever its forward asks of the tracer's values
        return None
