"""All or nothing, also for Ctrl-C; several threads and processes at once."""

import copy
import multiprocessing
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import fx

import se_inject

from ..support.blocks import block, conv, network
from ..support.promises import assert_same, exact_state

X = torch.randn(2, 3, 8, 8)


def two_sites():
    def forward(self, x):
        x = x + self.a(x)
        return x + self.b(x)

    return block(forward, a=conv(), b=conv())


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line that se_inject runs in this thread."""

    def __init__(self, line):
        self.left = line

    def __call__(self, frame, event, _):
        if not frame.f_globals.get("__name__", "").startswith("se_inject"):
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def lines_of(call):
    counter = Interrupt(0)
    sys.settrace(counter)
    try:
        call()
    finally:
        sys.settrace(None)
    return -counter.left


@pytest.mark.parametrize("make", [network, lambda: fx.symbolic_trace(network())], ids=["modules", "traced graph"])
@pytest.mark.parametrize("undo", [False, True], ids=["apply", "remove"])
def test_interrupts_leave_the_model_as_it_was_or_finish(make, undo):
    call = se_inject.remove if undo else se_inject.apply

    def ready():
        return se_inject.apply(make()) if undo else make()

    call(ready())  # fills caches, which make later calls shorter
    first = ready()
    lines = lines_of(lambda: call(first))
    last = range(lines - 60, lines)  # where the model changes
    for line in sorted({*random.Random(0).sample(range(1, lines), 10), *last}):
        model = ready()
        plain, before, code = copy.deepcopy(model).eval(), exact_state(model), getattr(model, "code", None)
        sys.settrace(Interrupt(line))
        try:
            with pytest.raises(KeyboardInterrupt):
                call(model)
        finally:
            sys.settrace(None)
        if exact_state(model) == before:
            assert getattr(model, "code", None) == code
            assert_same(model.eval()(X), plain(X))
        else:  # the interrupt came when all was done
            assert bool(list(se_inject.gates(model))) != undo


def test_interrupts_leave_the_gates_of_an_earlier_apply():
    blocks = two_sites()  # of one class, so that it is read once

    def ready():
        model = torch.nn.Sequential(copy.deepcopy(blocks))
        return se_inject.apply(model, where=lambda site: site.gate_path.endswith("0"))

    se_inject.apply(ready())  # fills caches, which make later calls shorter
    first = ready()
    lines = lines_of(lambda: se_inject.apply(first))
    for line in range(lines - 40, lines):
        model = ready()
        before = exact_state(model)
        sys.settrace(Interrupt(line))
        try:
            with pytest.raises(KeyboardInterrupt):
                se_inject.apply(model)
        finally:
            sys.settrace(None)
        assert exact_state(model) == before or len(list(se_inject.gates(model))) == 2


def test_threads_apply_to_different_models_while_others_train():
    """Also while other threads draw random numbers: that is no randomness of the forward that is traced."""
    stop, errors = threading.Event(), []

    def train():
        model, optimizer = network(), None
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        while not stop.is_set():
            try:
                model(torch.randn_like(X)).sum().backward()
                optimizer.step()
            except Exception as error:
                errors.append(error)
                raise

    trainers = [threading.Thread(target=train) for _ in range(2)]
    for trainer in trainers:
        trainer.start()
    try:
        models = [network(blocks=2 + i % 3) for i in range(24)]
        with ThreadPoolExecutor(8) as pool:
            gated = list(pool.map(se_inject.apply, models))
    finally:
        stop.set()
        for trainer in trainers:
            trainer.join()
    assert not errors
    assert [len(list(se_inject.gates(model))) for model in gated] == [3 + i % 3 for i in range(24)]


def test_finding_leaves_the_random_stream_to_other_threads():
    """The stream moves while a model is traced, as it would by another thread: it is neither blamed nor put back."""

    class Drawing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)

        @property
        def scale(self):
            thread = threading.Thread(target=torch.rand, args=(1,))
            thread.start()
            thread.join()
            return 1

        def forward(self, x):
            return x + self.conv(x) * self.scale

    state = torch.get_rng_state()
    found = se_inject.find_sites(Drawing())
    assert len(found) == 1, found
    assert not torch.equal(torch.get_rng_state(), state)


def _gates_in_a_process(seed):
    torch.manual_seed(seed)
    model = se_inject.apply(network())
    return [name for name, _ in se_inject.gates(model)], model.state_dict()["1.se.fc1.weight"].sum().item()


def test_processes():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(_gates_in_a_process, [0, 0, 1])
    assert results[0] == results[1] and results[0][0] == results[2][0] == ["1.se", "2.se", "3.se"]
    assert results[0][1] != results[2][1] and results[0] == _gates_in_a_process(0)
