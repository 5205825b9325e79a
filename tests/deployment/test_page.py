"""The code of docs/deployment.md that needs the extra 'integrations'; tests/test_documents.py runs the rest."""

import re
from pathlib import Path

import pytest
import torchvision

import se_inject

from .networks import images

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()
NEEDED = {"transformers", "lightning", "peft", "fvcore"}


@pytest.mark.filterwarnings("ignore")  # of these libraries
def test_code_runs(tmp_path):
    for library in NEEDED:
        pytest.importorskip(library, reason=f"{library} is in the extra 'integrations'")
    import transformers

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    config = transformers.ResNetConfig(**sizes, layer_type="basic")
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "plain")
    known = {"plain": tmp_path / "plain", "folder": str(tmp_path / "out"), "x": images(1, 3, 64, 64)}
    blocks = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    assert set(re.findall(r"(?:from|import) (\w+)", "\n".join(blocks))) >= NEEDED
    for block in blocks:
        model = se_inject.apply(torchvision.models.resnet18()).eval()
        exec(compile(block, "docs/deployment.md", "exec"), {"model": model, "__name__": "page"} | known)


def test_tests_of_the_tables_are_there():
    rows = [row.rstrip("|").rpartition("|")[2] for row in PAGE.splitlines() if row.startswith("|") and ".py" in row]
    named = [name for row in rows for name in re.findall(r"`(\S+\.py)`", row)]
    assert len(rows) > 20
    assert all((ROOT / "tests" / name).exists() for name in named)
