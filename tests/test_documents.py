"""The documents are true: their code runs, their links lead somewhere, their reasons are those of the library."""

import re
import runpy
from pathlib import Path

import pytest

from se_inject.sites.reasons import Reason

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def code(path):
    return "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))


@pytest.mark.parametrize("path", list(filter(code, DOCUMENTS)), ids=lambda path: path.name)
def test_code_runs(path, tmp_path, monkeypatch):
    (tmp_path / "document.py").write_text(f"{code(path)}\nreached_its_end = True\n")
    monkeypatch.chdir(tmp_path)
    assert runpy.run_path("document.py")["reached_its_end"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


def test_limits_list_every_reason():
    rows = [f"| {_shown(reason.text)} | {reason.remedy} |" for reason in Reason]
    text = (ROOT / "docs" / "limits.md").read_text()
    missing = [row for row in rows if row not in text]
    assert not missing, "\n".join(["docs/limits.md lacks", *missing])


def _shown(text):
    return text.replace("{}", "...") if text != "{}" else "it calls ..., into which se_inject cannot look"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
