"""The report from ``file://`` in a real browser."""

import pytest

from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.report.pages.build import write_report
from tests.services import wait_until

_AMP = """name => {
  const canvas = document.querySelector(".explorer canvas.map"), box = canvas.getBoundingClientRect();
  for (let y = 2; y < box.height; y += 4) for (let x = 2; x < box.width; x += 4) {
    const i = canvas._pick(x, y);
    if (i !== undefined && CAMCAL.detectors[CAMCAL.amps.detector[i]].name + " " + CAMCAL.amps.name[i] === name)
      return [box.x + x, box.y + y];
  }
}"""


@pytest.fixture(scope="module")
def index(root, tmp_path_factory):
    with open_repo(root) as repo:
        return write_report(repo, "u/bias.verify", tmp_path_factory.mktemp("seen") / "r").resolve()


@pytest.fixture
def page(browser):
    made = browser.new_page(viewport={"width": 1366, "height": 900})
    wrong = []
    # the test itself reads canvases back; Chromium remarks on that
    made.on("console", lambda m: None if "willReadFrequently" in m.text else wrong.append(m.text))
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("request", lambda request: None if request.url.startswith("file://") else wrong.append(request.url))
    yield made
    made.close()
    assert wrong == []


def painted(page, selector):
    """Share of the pixels of a canvas that are painted."""
    return page.evaluate(
        """selector => { const c = document.querySelector(selector);
             const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
             let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (d.length / 4); }""",
        selector,
    )


def test_everything_is_drawn_and_nothing_asks_the_network(page, index):
    page.goto(index.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 1366
    for name in ("tests", "exposures"):
        assert painted(page, f"canvas[data-matrix={name}]") > 0.1
    assert painted(page, ".explorer canvas.map") > 0.01
    for kind in ("map", "hist", "trend"):
        page.locator(f'.card[data-q="noise"] canvas.{kind}').scroll_into_view_if_needed()
        wait_until(lambda k=kind: painted(page, f'.card[data-q="noise"] canvas.{k}') > 0.01, f"painted {kind}")
    assert "median" in page.locator('.card[data-q="noise"] .note').inner_text()


def test_an_amp_leads_to_its_detector(page, index):
    page.goto(index.as_uri())
    page.locator("#map").scroll_into_view_if_needed()
    x, y = page.evaluate(_AMP, "R22_S00 C12")
    page.mouse.move(x, y)
    assert page.locator("#tip").inner_text() == "R22_S00 C12: 100 %"
    page.mouse.click(x, y)
    page.wait_for_url("**/detectors/R22_S00.html#C12")
    assert painted(page, ".explorer canvas.map") > 0.05
    page.locator("nav a").first.click()
    page.wait_for_url("**/index.html")


def test_dark_mode_and_raft_page(browser, index):
    dark = browser.new_page(color_scheme="dark")
    dark.goto((index.parent / "rafts" / "R22.html").as_uri())
    assert dark.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert painted(dark, ".explorer canvas.map") > 0.05
    dark.close()
