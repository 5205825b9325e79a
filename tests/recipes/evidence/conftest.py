"""Arms that the tests' experiments have."""

import pytest

from recipes.evidence.arms import ARMS

from . import invented


@pytest.fixture(autouse=True)
def arms(monkeypatch):
    for name, arm in invented.ARMS.items():
        monkeypatch.setitem(ARMS, name, arm)
