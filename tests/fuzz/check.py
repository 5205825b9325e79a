"""What ``apply`` promises, checked on one case of the grammar."""

import copy
import linecache
import random
import re
import warnings
from collections import Counter

import torch
from torch.nn.parameter import is_lazy
from torch.utils.checkpoint import set_checkpoint_early_stop

import se_inject

from ..support.promises import assert_same, tensors


@set_checkpoint_early_stop(False)  # else statistics move with the last value that the backward pass needs
def check(source):
    """Count how the case ended, and why blocks were skipped; whatever it raises is a broken promise."""
    case = {"__name__": "case"}
    filename = f"<case {hash(source):x}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a plain model warns of is its own affair
        try:
            plain, model = case["build"](), case["build"]()
            copyable = _copies(plain)
            expected, learned = outputs(plain, case), gradients(plain, case)
        except Exception as error:  # the plain model's own: there is nothing to promise
            return Counter({f"invalid: {type(error).__name__}": 1})
        if not all(x.isfinite().all() for x in tensors(expected)):
            return Counter({"invalid: not finite": 1})

    before, kept, rng = state(model), tensors_of(model), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = se_inject.find_sites(model)
        assert state(model) == before and torch.equal(torch.get_rng_state(), rng), "find_sites changed something"
        counts = Counter(f"skipped: {_general(reason)}" for _, reason in found.skipped)
        try:
            se_inject.apply(model)
        except se_inject.errors.SEInjectError as error:
            assert not found and state(model) == before, "a refusal changed the model"
            ending = f"refused: {type(error).__name__}"
        else:
            assert state(se_inject.remove(model)) == before, "remove did not restore the model"
            se_inject.apply(model)
            _check_gated(model, found, kept)
            ending = "meta: gated" if case["META"] else "identity"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if ending == "identity" and copyable:
            _assert_gated_equal(outputs(copy.deepcopy(model), case), expected, plain, "the outputs of a copy")
            counts += _check_converted(copy.deepcopy(model), case)
        _assert_gated_equal(outputs(model, case), expected, plain, "the outputs")
        grads = gradients(model, case, counts)
        if " checkpoint(" not in source:  # that does not see saved values changed in place: plain gradients are wrong
            _compare(grads, learned)
        if ending == "identity":
            se_inject.remove(model)
        # Checkpointing computes values again in the backward pass and so moves statistics once more: not in a plain one
        # that fails on the way, where a gate's new value is changed in place instead.
        if (grads is None) == (learned is None):
            assert_equal(outputs(model, case), outputs(plain, case), "the outputs in the end")
    return counts + Counter({ending: 1})


def _copies(model):
    try:
        copy.deepcopy(model)
    except (RuntimeError, ValueError):  # torch copies no lazy parameters and no tensors with a history
        return False
    return True


def _check_gated(model, found, kept):
    gates = dict(se_inject.gates(model))
    assert sorted(gates) == sorted(site.gate_path for site in found)
    now = tensors_of(model)
    assert {name: now.get(name) for name in kept} == kept, "apply changed a tensor of the model"
    ours = {id(tensor) for gate in gates.values() for tensor in (*gate.parameters(), *gate.buffers())}
    assert all(now[name][0] in ours for name in now.keys() - kept.keys()), "apply added more than gates"
    gated = state(model)
    try:
        se_inject.apply(model)
    except se_inject.errors.SEInjectError:
        pass
    else:
        raise AssertionError("a second apply found something to gate")
    assert state(model) == gated, "a second apply changed the model"


def _check_converted(model, case):
    """Count how many gates that learned take the other form, in which the outputs stay what they are."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in se_inject.gate_parameters(model):
            parameter.normal_(std=0.3)
    converted = copy.deepcopy(model)
    number = len(list(se_inject.gates(model)))
    try:
        se_inject.convert(converted, "standard")
    except se_inject.errors.ConversionError:
        return Counter({"gates that are not converted": number})
    assert_equal(outputs(converted, case), outputs(model, case), "the outputs after convert")
    return Counter({"gates that are converted": number})


def outputs(model, case):
    """What a model computes: eval with and without grad, and train, which moves buffers, under one seed."""
    results = []
    for shape in case["SHAPES"] * (not case["META"]):
        for training, grad in ((False, False), (False, True), (True, True)):
            with torch.set_grad_enabled(grad):
                results += [
                    x.detach().clone().requires_grad_(x.requires_grad) for x in _run(model, case, shape, training)
                ]
    return [
        *results,
        *(b.clone() for n, b in model.named_buffers() if results and not is_lazy(b) and "identity_form" not in n),
    ]


def gradients(model, case, counts=None):
    """The gradients of the model's own parameters; None where its backward fails.

    With ``counts``, each gate's is checked too. With ``fc2`` zero, the gate is ``2 * sigmoid(b) = 1``, with a slope of
    one half: the gradient of its bias is half the sum of value times gradient, over all calls. That is zero, by right,
    where the output does not depend on the value: under no_grad, detached, behind a dead ReLU. The number itself is not
    compared: checkpointing recomputes a value, and a forward that writes into its input recomputes another one.
    """
    if case["META"]:
        return None
    gates = dict(se_inject.gates(model)) if counts is not None else {}
    wanted = {gate: torch.zeros(gate.fc2.out_channels, dtype=torch.float64) for gate in gates.values()}
    sizes = dict.fromkeys(wanted, 0.0)

    def watch(gate, args, output):
        value = args[0].detach().clone()

        def note(grad):
            product = (value.double() * grad.double()).flatten(2)
            wanted[gate] += product.sum((0, 2)) / 2
            sizes[gate] += product.abs().sum().item()

        if output.requires_grad:
            output.register_hook(note)

    hooks = [gate.register_forward_hook(watch) for gate in wanted]
    model.zero_grad()
    values = [x for x in _run(model, case, case["SHAPES"][0], True) if x.requires_grad]
    for hook in hooks:
        hook.remove()
    try:
        sum((x.double().square() * torch.linspace(0.5, 1, x.numel()).view_as(x)).sum() for x in values).backward()
    except (RuntimeError, AttributeError):  # a value was changed in place, or none depends on a parameter
        return None
    for name, gate in gates.items():
        grad = gate.fc2.bias.grad
        if wanted[gate].abs().sum() > 1e-3 * sizes[gate]:
            assert grad is not None and grad.any(), f"the gate {name} does not learn"
        counts["gates that learn" if sizes[gate] else "gates without influence on the output"] += 1
    own = {id(p) for gate in gates.values() for p in gate.parameters()}
    return {name: p.grad for name, p in model.named_parameters() if id(p) not in own}


def _compare(grads, expected):
    """The same parameters learn, and the same; gates change the order of sums."""
    if not expected:  # the plain backward pass may fail where a gate's new value is changed in place instead
        return
    assert grads is not None, "the backward pass fails"
    assert {k for k, g in grads.items() if g is not None} == {k for k, g in expected.items() if g is not None}
    largest = max((g.abs().max().item() for g in expected.values() if g is not None), default=0)
    for name, grad in expected.items():
        if grad is not None:
            tolerance = largest * (0.1 if grad.dtype == torch.bfloat16 else 1e-3)
            assert (grad - grads[name]).abs().max() <= tolerance, f"the gradient of {name} differs"


def _run(model, case, shape, training):
    model.train(training)
    random.seed(0)
    torch.manual_seed(0)
    arguments = case["inputs"](shape)
    return tensors(model(*arguments))


def _assert_gated_equal(gated, expected, plain, what):
    """Equal; gates learn, so that outputs of frozen layers may require grad with them."""
    if not all(p.requires_grad for p in plain.parameters()):
        for a, b in zip(gated, expected, strict=True):
            b.requires_grad_(b.requires_grad or a.requires_grad)
    assert_equal(gated, expected, what)


def assert_equal(a, b, what):
    """Equal to the bit, and in what requires grad."""
    assert [x.requires_grad for x in a] == [x.requires_grad for x in b], f"{what} differ in requires_grad"
    if a or b:
        try:
            assert_same(a, b)
        except AssertionError as error:
            raise AssertionError(f"{what} differ") from error


def state(model):
    """All Python state of a model, containers by what they hold, everything else by identity."""
    modules = {name: (type(m), _contents(vars(m))) for name, m in model.named_modules(remove_duplicate=False)}
    return list(model.state_dict()), modules


def _contents(value):
    if isinstance(value, dict):
        return {key: _contents(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_contents(item) for item in value]
    return (id(value), _contents(vars(value))) if type(value).__name__ == "SimpleNamespace" else id(value)


def tensors_of(model):
    """Each tensor's identity, flag and count of changes."""
    both = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: (id(x), x.requires_grad, x._version) for name, x in both}


def _general(reason):
    reason = re.sub(r" \(<case [^)]*\)", "", reason)
    return re.sub(r"\bc\d+(\.\w+)*|self\.[\w.]+|'[^']*'|\b\d+\b", "_", reason)
