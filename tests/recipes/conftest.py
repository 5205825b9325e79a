"""Small data sets and runs that the tests of the recipes share."""

from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from recipes.data import open_data
from recipes.networks.any_model import Model
from recipes.training.run import Run
from recipes.training.settings import SMALL

from .images import write_images


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
    """Makes a short run of a network on a part of the digits."""
    digits = open_data(None)
    data = replace(digits, train=digits.train.subset(range(96)), val=digits.val.subset(range(40)))

    def make(folder="run", network="se_resnet20", gates="standard", **changes):
        fields = {name: changes.pop(name) for name in ("resume", "workers", "checkpoint_steps") if name in changes}
        settings = replace(SMALL, **{"epochs": 2, "batch": 32, "lr_step": 1} | changes).share(1)
        model = Model(network, gates, 10)
        return Run(model, data, model.preprocess(data.size), settings, tmp_path / folder, **fields)

    return make
