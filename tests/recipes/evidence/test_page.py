"""The page is made of the records, all of them and nothing else; the repository's is that of its records."""

from dataclasses import replace
from pathlib import Path

import pytest

from recipes.errors import CheckpointError
from recipes.evidence import page
from recipes.evidence.records import Records
from recipes.evidence.sections import SECTIONS

from .invented import experiment, trained

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Of the records of three experiments, one of which was not finished; a fourth was not run."""
    given = [
        experiment("first"),
        experiment("second", question="adapters", network="resnet56"),
        experiment("third", question="scratch", data="mnist"),
        experiment("fourth", question="scratch", epochs=3),
    ]
    monkeypatch.setattr(page, "EXPERIMENTS", {one.name: one for one in given})
    monkeypatch.setattr("recipes.evidence.pictures.OVERVIEW_ARMS", ("gates",))
    records = Records(tmp_path / "docs" / "evidence")
    errors = [[9.0, 19.0, 29.1], [9.1, 19.0, 29.0], [9.0]]
    for one, gated in zip(given, errors, strict=False):
        for record in trained(one, plain=[10.0, 20.0, 30.0], gates=gated):
            records.add(record)
    records.add(replace(record, job=given[2].job("gates", 0, 0.1), domains={"fog": 12.5}))
    for record in trained(experiment("first", epochs=9), gates=[77.0]):
        records.add(record)
    return records.folder


def test_the_page(folder):
    """Written twice, it is the same."""
    out = folder.parent / "evidence.md"
    page.write_page(folder, out)
    text = out.read_text()
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles[-6:] == [section.title for section in SECTIONS.values()]
    assert all(section.text in text for section in SECTIONS.values())
    sections = dict(zip(titles, text.split("\n## ")[1:], strict=True))
    first = sections["Inserted into a pretrained network"]
    assert "### An experiment: first" in first and "**-0.97 ± 0.14**" in first and "77.00" not in text
    assert "\n\n`python -m recipes evidence first`: `resnet20` on 500 images of digits" in first
    scratch = sections["From scratch"]
    assert "\n\n8 of 12 trainings done. `python -m recipes evidence third`: " in scratch
    assert scratch.count("error % by domain") == text.count("error % by domain") == 1 and "12.50" in scratch
    assert "### An experiment: fourth\n\nNot run; `python -m recipes evidence fourth` runs it." in scratch
    assert "- **everything, with gates** against **everything**: error is lower" in sections["What pays"]
    own = {f"{question}-differences.png" for question in ("inserted", "adapters")}  # the third is not whole
    pictures = {"differences.png", "adapters.png", "scratch.png", *own}
    assert {path.name for path in folder.glob("*.png")} == pictures
    assert all(f"](evidence/{name})" in text for name in pictures)
    before = {path.name: path.read_bytes() for path in folder.parent.rglob("*.*")}
    page.write_page(folder, out)
    assert {path.name: path.read_bytes() for path in folder.parent.rglob("*.*")} == before


def test_a_page_of_no_records(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "EXPERIMENTS", {"first": experiment("first", question="adapters")})
    page.write_page(tmp_path / "evidence", tmp_path / "evidence.md")
    text = (tmp_path / "evidence.md").read_text()
    assert "None was found: no experiment" in text and "Not run; `python -m recipes evidence first` runs it." in text
    assert "![" not in text and not list(tmp_path.rglob("*.png"))


def test_damaged_records_leave_the_page_as_it_was(folder):
    out = folder.parent / "evidence.md"
    out.write_text("before")
    (folder / "resnet20-mnist-500-2.jsonl").write_text("{\n")
    with pytest.raises(CheckpointError, match=r"resnet20-mnist-500-2\.jsonl, line 1"):
        page.write_page(folder, out)
    assert out.read_text() == "before" and not list(folder.glob("*.png"))


def test_the_page_of_the_repository_is_that_of_its_records(monkeypatch):
    monkeypatch.undo()  # the invented arms
    made = page.page(page.read_evidence(DOCS / "evidence"), Path("evidence"))
    assert (DOCS / "evidence.md").read_text() == made, "write it again: python -m recipes evidence"
