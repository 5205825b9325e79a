"""Small data sets and runs that the tests of the recipes share."""

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from .images import write_images
from .runs import short_run


@pytest.fixture(autouse=True)
def own_engine():
    """Accelerate's settings are the process's: each test starts with none. As many threads as the child processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Which images have been checked is the user's to remember: each test starts with none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folders(tmp_path):
    return write_images(tmp_path / "images")


@pytest.fixture
def make_run(tmp_path):
    """Makes a short run of a network on a part of the digits, in a folder of the test's own."""
    return lambda folder="run", *given, **changes: short_run(tmp_path / folder, *given, **changes)
