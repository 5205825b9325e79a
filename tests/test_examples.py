"""Every example runs as its user would run it."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAYS = {
    "compile_backend.py": "8 gates, output unchanged to the bit: True",
    "convert_torchvision.py": "same output to the bit: True",
    "convert_timm.py": "same output to the bit: True",
    "detector_backbone.py": "same boxes to the bit: True",
    "own_class.py": "gates after remove: 0",
    "digits.py": "output unchanged by the gates, to the bit: True",
}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example(path, monkeypatch, capsys):
    epochs = ["--epochs", "2"] if path.name == "digits.py" else []
    monkeypatch.setattr(sys, "argv", [str(path), *epochs])
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.name] in capsys.readouterr().out
