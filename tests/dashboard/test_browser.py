"""The dashboard in a real browser."""

import http.client
import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.services import wait_until

pytest.importorskip("bokeh")
imread = pytest.importorskip("matplotlib.image").imread

SIZE = {"width": 1366, "height": 820}
LAYOUT = Path(__file__).with_name("layout.json")
_FIND = """name => {
  const plot = Bokeh.documents[0].get_model_by_name(name);
  const find = view => view.model === plot ? view : (view.child_views ?? []).map(find).find(v => v);
  const view = [...Bokeh.index.roots].map(find).find(v => v);
  const box = view.el.getBoundingClientRect(), frame = view.frame.bbox;
  return {left: box.x + frame.left, top: box.y + frame.top, width: frame.width, height: frame.height,
          x: [plot.x_range.start, plot.x_range.end], y: [plot.y_range.start, plot.y_range.end]};
}"""


@pytest.fixture(scope="module")
def url(root):
    command = [sys.executable, "-m", "camcal_dask.cli", "dashboard", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        assert line.startswith("dashboard http://127.0.0.1:")
        yield line.split()[1]
        server.terminate()


@pytest.fixture
def page(browser):
    made = browser.new_page(viewport=SIZE)
    wrong = []
    made.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: wrong.append(str(error)))
    yield made
    made.close()
    assert wrong == []


def visit(page, url):
    page.goto(url)
    page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle", timeout=60_000)
    settled(page)


def settled(page):
    """Wait until the page looks the same twice."""
    seen = [b""]

    def same():
        seen.append(page.screenshot())
        return seen[-1] == seen[-2]

    wait_until(same, "page at rest")


def text(page, name):
    return page.evaluate("name => Bokeh.documents[0].get_model_by_name(name).text", name)


def amp_position(page, detector, amp):
    """Where an amp of the map is on the screen."""
    frame = page.evaluate(_FIND, "map")
    columns = page.evaluate(
        """() => { const d = Bokeh.documents[0].get_model_by_name("map").renderers[0].data_source.data;
                   return Object.fromEntries(Object.entries(d).map(([k, v]) => [k, Array.from(v)])); }"""
    )
    i = list(zip(columns["detector"], columns["amp"], strict=True)).index((detector, amp))
    x, y = (columns["left"][i] + columns["right"][i]) / 2, (columns["bottom"][i] + columns["top"][i]) / 2
    across = (x - frame["x"][0]) / (frame["x"][1] - frame["x"][0])
    up = (y - frame["y"][0]) / (frame["y"][1] - frame["y"][0])
    return frame["left"] + across * frame["width"], frame["top"] + (1 - up) * frame["height"]


def pixels(page):
    return imread(io.BytesIO(page.screenshot()))[..., :3].mean(axis=-1)


def test_a_click_on_an_amp_shows_it(page, url):
    visit(page, url + "?run=u/bias.verify")
    assert "No amplifier chosen" in text(page, "chosen")
    before = pixels(page)
    page.mouse.click(*amp_position(page, "R22_S00", "C12"))
    page.wait_for_function("Bokeh.documents[0].get_model_by_name('chosen').text.includes('C12')")
    assert "bias.noise_low (5)" in text(page, "chosen")
    page.wait_for_function("location.search.includes('amp=C12')")
    settled(page)
    assert np.abs(pixels(page) - before).max() > 0.3


def test_levels_zoom_in_and_pixels_show(page, url):
    visit(page, url + "?run=u/good.verify&detector=R22_S11&amp=C05")
    whole = page.evaluate(_FIND, "map")["x"]
    page.get_by_text("Detector", exact=True).last.click()
    page.wait_for_function("location.search.includes('level=detector')")
    near = page.evaluate(_FIND, "map")["x"]
    assert near[1] - near[0] < 0.5 * (whole[1] - whole[0])
    page.get_by_text("Pixels of the detector").click()
    get = "Bokeh.documents[0].get_model_by_name('pixels')"
    page.wait_for_function(f"{get}.renderers[0].data_source.data.image.length == 1")
    assert page.evaluate(f"{get}.x_range.end - {get}.x_range.start") == pytest.approx(288)
    frame = page.evaluate(_FIND, "pixels")
    page.mouse.move(frame["left"] + 200, frame["top"] + 280)
    page.mouse.wheel(0, -600)
    page.wait_for_function(f"{get}.renderers[0].data_source.data.dw[0] < 280")


def test_a_permalink_looks_the_same_again(page, url):
    visit(page, url + "?run=u/bias.verify&quantity=mean&detector=R22_S00&amp=C12")
    first, address = pixels(page), page.url
    visit(page, address)
    assert page.url == address
    assert np.abs(pixels(page) - first).mean() < 0.002


def test_two_runs_are_compared(page, url):
    query = "?run=u/bias.verify&quantity=noise&compare=ratio&other=u/good.verify&detector=R22_S00&amp=C12"
    visit(page, url + query)
    assert "u/bias.verify / u/good.verify: noise" in text(page, "title")
    assert "= <b>0.5" in text(page, "chosen") or "= <b>0.49" in text(page, "chosen")


def test_layout(page, url):
    """Nothing overlaps or is cut off on a laptop; CAMCAL_APPROVE_LAYOUT=1 approves another look."""
    visit(page, url + "?run=u/bias.verify&quantity=noise&detector=R22_S00&amp=C12")
    boxes = [page.evaluate(_FIND, name) for name in ("map", "histogram", "history")]
    for box in boxes:
        assert box["left"] > 0
        assert box["left"] + box["width"] < SIZE["width"]
        assert box["top"] + box["height"] < SIZE["height"]
    assert boxes[0]["left"] + boxes[0]["width"] < boxes[1]["left"]
    assert boxes[1]["top"] + boxes[1]["height"] < boxes[2]["top"]
    coarse = pixels(page)[:800, :1360].reshape(20, 40, 34, 40).mean(axis=(1, 3))
    if os.environ.get("CAMCAL_APPROVE_LAYOUT") and not os.environ.get("CI"):
        LAYOUT.write_text(json.dumps(np.round(coarse, 2).tolist()))
    expected = np.array(json.loads(LAYOUT.read_text()))
    assert np.abs(coarse - expected).mean() < 0.02
    assert np.abs(coarse - expected).max() < 0.4


@pytest.mark.parametrize(
    "path",
    [
        "static/../../../../../etc/passwd",
        "static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "static//etc/passwd",
        "../repo/butler.yaml",
        "butler.yaml",
    ],
)
def test_no_path_leads_to_a_file(url, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url + path, timeout=30)  # noqa: S310
    assert error.value.code in (400, 403, 404)


def test_a_crafted_query_is_ignored(page, url):
    visit(page, url + "?run=../../etc/passwd&quantity=<script>alert(1)</script>&detector=%2e%2e")
    assert "u/good.verify: noise" in text(page, "title")
    assert "passwd" not in page.content()


def test_web_sockets_from_other_sites_are_refused(url):
    place = urllib.parse.urlsplit(url).netloc
    connection = http.client.HTTPConnection(place, timeout=30)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Origin": "http://elsewhere.example",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    for origin, status in (("http://elsewhere.example", 403), (f"http://{place}", None)):
        connection.request("GET", "/ws", headers=headers | {"Origin": origin})
        answer = connection.getresponse()
        assert answer.status == status or (status is None and answer.status != 403)
        connection.close()
