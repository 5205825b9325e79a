"""Every example runs as its user would run it."""

import subprocess
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


def python(*arguments):
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=300).stdout


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example(path):
    output = python(str(path), *(["--epochs", "2"] if path.name == "digits.py" else []))
    assert SAYS[path.name] in output
