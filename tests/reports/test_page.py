"""The page as text: complete, self-contained, escaped, and written whole or not at all."""

import difflib
import html
import re
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import se_inject
from se_inject.reports.highlight import highlighted
from se_inject.reports.tree import tree

from ..support.blocks import Residual, network
from . import pages

VOID = {"meta", "input", "link", "img", "br"}


class Elements(HTMLParser):
    """Reads a page, and checks that what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def written(made, path):
    report, values = made
    se_inject.write_page(report, path, activations=values)
    return path.read_text()


def test_page_has_all_that_was_found(tmp_path):
    report, values = made = pages.ordinary()
    page = written(made, tmp_path / "new" / "page.html")
    text = html.unescape("".join(Elements(page).text))
    for row in report.rows():
        assert all(cell in text for cell in row)
    for site in report.sites:
        assert site.gate_path in text and report.gates[site.gate_path] in text
    assert all(skipped.reason in text for skipped in report.sites.skipped) and report.sites.skipped
    assert all(line[1:] in text for line in report.diff.splitlines() if line[:1] in "+-@ ")
    assert all(name in text for name in values.classes) and page.count("<svg") == 1 + len(values.values)
    assert "torchvision/models/resnet.py:" in text


def test_page_without_activations_has_no_such_section(tmp_path):
    report, _ = pages.ordinary()
    assert "Gate values" not in written((report, None), tmp_path / "page.html")


def test_page_needs_nothing_else(tmp_path):
    page = written(pages.ordinary(), tmp_path / "page.html")
    elements = Elements(page)
    links = [value for name, value in elements.attributes if name in ("src", "href", "action", "data", "srcset")]
    assert links and all(link.startswith("#") for link in links)
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", page)
    assert (
        "content",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    ) in elements.attributes


def test_names_are_escaped(tmp_path):
    page = written(pages.hostile(), tmp_path / "page.html")
    elements = Elements(page)
    assert "img" not in elements.tags and elements.tags.count("script") == 1 and elements.tags.count("style") == 1
    assert not any(name.startswith("on") or "hacked" in name for name, _ in elements.attributes)
    assert "".join(elements.text).count(pages.ATTACK) >= 5  # path, class, gate, class of images ...


def test_an_old_page_survives_a_failure(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    report, _ = pages.ordinary()
    path.write_text("old")
    with pytest.raises(se_inject.errors.ArgumentTypeError, match="activations must be what"):
        se_inject.write_page(report, path, activations={})
    with pytest.raises(se_inject.errors.ArgumentTypeError, match="report must be what"):
        se_inject.write_page("report", path)
    with pytest.raises(se_inject.errors.ArgumentTypeError, match="path must be a path"):
        se_inject.write_page(report, 3)
    monkeypatch.setattr("os.fsync", _no_space)
    with pytest.raises(se_inject.errors.InvalidArgumentError, match=r"page.html: cannot be written: No space left"):
        se_inject.write_page(report, path)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["page.html"]
    for wrong in (tmp_path, path / "page.html"):
        with pytest.raises(se_inject.errors.InvalidArgumentError, match="cannot be written"):
            se_inject.write_page(report, wrong)


def _no_space(_):
    raise OSError(28, "No space left on device")


def test_highlighted_lines_are_those_of_the_diff():
    diff = pages.ordinary()[0].diff + '@@ -1,3 +1,3 @@ f\n """A text\n-that goes on <b>\n+that goes on & on\n """\n'
    lines = list(highlighted(diff))
    plain = [line.mark + html.unescape(re.sub("<[^>]+>", "", line.html)) for line in lines]
    assert plain == diff.splitlines()
    assert 'class="s' in lines[-2].html  # a string that began two lines above
    assert {line.kind for line in lines} == {"about", "place", "context", "added", "removed"}


@given(st.data())
def test_any_diff_keeps_its_lines(data):
    text = st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=9), max_size=12
    )
    before, after = data.draw(text), data.draw(text)
    diff = list(difflib.unified_diff(before, after, "a", "b", lineterm=""))
    lines = list(highlighted("\n".join(diff)))
    plain = [line.mark + html.unescape(re.sub("<[^>]+>", "", line.html)) for line in lines]
    assert plain == (diff or [""])


def test_stages_hold_each_block_once():
    report, _ = pages.ordinary()
    root = tree(report)
    assert [stage.path for stage in root.items] == ["layer1", "layer2", "layer3", "layer4"]
    assert [block.path for block in root.items[3].items] == ["layer4.0", "layer4.1"]
    assert (root.gated, len(root.blocks)) == (7, 8)


def test_stages_are_in_the_models_order():
    body = nn.Sequential(Residual(), nn.Sequential(network()[1:3]), Residual())
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 16, 1), body))
    found = se_inject.report(model, torch.randn(1, 3, 8, 8), rounds=2, where="*.1.0.1")
    [stage] = tree(found).items
    assert stage.path == "0.1" and [item.path for item in stage.items] == ["0.1.0", "0.1.1.0", "0.1.2"]
    assert [block.path for block in stage.blocks] == ["0.1.0", "0.1.1.0.1", "0.1.1.0.2", "0.1.2"]


def test_a_name_that_is_no_text_does_not_stop_the_page(tmp_path):
    model = se_inject.apply(network())
    image = torch.randn(1, 3, 8, 8)
    values = se_inject.activations(model, [(image, [0])], classes=["caf\udce9"])  # as of a folder in Latin-1
    se_inject.write_page(se_inject.report(model, image, rounds=2), tmp_path / "page.html", activations=values)
    assert "caf?" in (tmp_path / "page.html").read_text()
