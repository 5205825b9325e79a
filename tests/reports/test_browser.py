"""The page in a browser, as a person would use it. Needs Chromium, and playwright to drive it."""

import shutil

import pytest

import se_inject

from . import pages

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for make in (pages.ordinary, pages.hostile):
        report, values = make()
        se_inject.write_page(report, folder / f"{make.__name__}.html", activations=values)
    return folder


@pytest.fixture
def show(browser, files):
    """Opens a page, and checks that it asks for nothing and that nothing fails."""
    opened = []

    def show(name="ordinary", **options):
        page = browser.new_page(**options)
        page.set_default_timeout(5000)
        problems, requests = [], []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((files / f"{name}.html").as_uri())
        opened.append((page, problems, requests))
        return page

    yield show
    for page, problems, requests in opened:
        assert not problems and len(requests) == 1
        page.close()


def visible(page):
    return [row.locator(".path").inner_text() for row in page.locator(".block").all() if row.is_visible()]


def test_stages_unfold_and_fold(show):
    page = show()
    assert visible(page) == []
    page.get_by_text("layer2 2 gated").click()
    assert visible(page) == ["layer2.0", "layer2.1"]
    page.get_by_role("button", name="Unfold all").click()
    assert len(visible(page)) == 8
    page.get_by_role("button", name="Fold all", exact=True).click()
    assert visible(page) == []


def test_search_finds_paths_and_reasons(show):
    page = show()
    page.get_by_text("layer1 2 gated").click()
    search = page.get_by_role("searchbox")
    search.fill("LAYER3 basicblock")
    assert visible(page) == ["layer3.0", "layer3.1"] and page.locator("#found").inner_text() == "2 of 8"
    assert not page.locator("summary", has_text="layer1").is_visible()
    search.fill("excluded by")
    assert visible(page) == ["layer4.1"]
    search.fill("nothing like this")
    assert visible(page) == [] and page.locator("#found").inner_text() == "0 of 8"
    search.fill("")
    assert visible(page) == ["layer1.0", "layer1.1"] and page.locator("#found").inner_text() == ""


def test_links_lead_to_the_sections(show):
    page = show(viewport={"width": 1000, "height": 300})
    for name, heading in {"Blocks": "Blocks", "Change": "The change", "Gate values": "Gate values by class"}.items():
        page.get_by_role("link", name=name, exact=True).click()
        box = page.get_by_role("heading", name=heading).bounding_box()
        assert -1 < box["y"] < 300
    assert page.locator(".line.added").first.inner_text().strip().startswith("+")


CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return {value: 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b), clear: a === 0};
  };
  const background = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = light(getComputedStyle(e).backgroundColor);
      if (!found.clear) return found.value;
    }
  };
  const selector = "h1, th, td:not(.heat), .about, summary, .badge, .reason, .diff span, a";
  const texts = [...document.querySelectorAll(selector)];
  return Math.min(...texts.map((element) => {
    const [a, b] = [light(getComputedStyle(element).color).value, background(element)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


def test_both_schemes_can_be_read(show):
    grounds = {}
    for scheme in ("light", "dark"):
        page = show(color_scheme=scheme)
        page.get_by_role("button", name="Unfold all").click()
        grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert page.evaluate(CONTRAST) >= 4.5, scheme
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}


def test_fits_a_telephone(show):
    page = show(viewport={"width": 360, "height": 640})
    page.get_by_role("button", name="Unfold all").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_works_without_scripts(show):
    page = show(java_script_enabled=False)
    page.get_by_text("layer4 1 gated, 1 skipped").click()
    assert visible(page) == ["layer4.0", "layer4.1"]


def test_names_do_not_run(show):
    page = show("hostile")
    page.get_by_role("button", name="Unfold all").click()
    assert pages.ATTACK in visible(page)
    assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0
