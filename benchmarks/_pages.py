"""Time to write the report of a verification of 189 detectors, and to first see the dashboard in a real browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xarray as xr

from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.cubes import products, small
from camcal_dask.repo.cubes.layout import template
from camcal_dask.repo.storage import files
from camcal_dask.report.figures.images import product_images
from camcal_dask.report.pages.build import write_report
from camcal_dask.verify.judging.judge import judge

RUN = "pages/verifyBias"
EXPOSURES = 20
PIXEL_DETECTORS = 4
"""Full-size detectors whose product is read; 189 of them would be 25 GB."""
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def report_seconds(repo: Repo, make: Callable[..., xr.Dataset], instrument: str, folder: Path) -> dict[str, float]:
    """Write the report of a verification with residual maps; read the pixels of a few detectors of a product.

    ``report_with_pixels_s_189`` adds to the pages the time of the pixels of all detectors, scaled from those read.
    """
    _verification(repo, make(EXPOSURES, instrument), instrument)
    begin = time.perf_counter()
    write_report(repo, RUN, folder)
    pages = time.perf_counter() - begin
    n_detector = len(get_instrument(instrument).science_detectors)
    product = _product(repo, instrument)
    begin = time.perf_counter()
    product_images(product, get_instrument(instrument))
    pixels = (time.perf_counter() - begin) / PIXEL_DETECTORS
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return {
        f"report_s_{n_detector}": pages,
        f"report_with_pixels_s_{n_detector}": pages + n_detector * pixels,
        "report_pixels_s_a_detector": pixels,
        "report_MB": megabytes,
    }


def _verification(repo: Repo, statistics: xr.Dataset, instrument: str) -> None:
    sizes = {dim: statistics.sizes[dim] for dim in ("exposure", "detector", "amp")} | {"y_bin": 31, "x_bin": 8}
    residual = np.random.default_rng(0).normal(0, 0.5, list(sizes.values()))
    statistics = statistics.assign(residual_binned=(tuple(sizes), residual))
    judged = judge(statistics, "bias")
    verdict = statistics.merge(judged, compat="override", join="exact").assign_attrs(**judged.attrs, candidate_ids={})
    uri = files.join(repo.root, "cubes", RUN, "verifyBias.zarr")
    small.write_dataset(uri, verdict, overwrite=True)
    repo.register_product(RUN, "verifyBias", uri, [{"instrument": instrument}])


def _product(repo: Repo, instrument: str) -> xr.Dataset:
    """A combined bias of a few detectors, every pixel noise."""
    camera = get_instrument(instrument)
    uri = files.join(repo.root, "cubes", "pages/bias", "bias.zarr")
    layout = template("bias", camera, {"provenance_id": "benchmark"})
    products.create_product(uri, layout)
    rng = np.random.default_rng(0)
    for index in range(PIXEL_DETECTORS):
        shapes = {name: (v.shape[1:], v.dtype) for name, v in layout.data_vars.items()}
        arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
        arrays["image"] = rng.standard_normal(shapes["image"][0], np.float32)
        products.write_product(uri, index, arrays)
    return products.open_product(uri)


def first_paint_seconds(root: str) -> dict[str, float]:
    """Open the dashboard in Chromium: until the focal plane is drawn, for a second visitor; and from click to panel.

    Empty where chromium or playwright is absent.
    """
    chromium = shutil.which("chromium")
    if chromium is None or find_spec("playwright") is None:
        print("dashboard: needs chromium and playwright")
        return {}
    command = [sys.executable, "-m", "camcal_dask.cli", "dashboard", root, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[1]
        try:
            return _visit(url, chromium)
        finally:
            server.terminate()


def _visit(url: str, chromium: str) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        paints, clicks = [], []
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1366, "height": 820})
            begin = time.perf_counter()
            page.goto(url)
            page.wait_for_function(
                "window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle", timeout=60_000
            )
            paints.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            page.evaluate(
                "Bokeh.documents[0].get_model_by_name('map').renderers[0].data_source.selected.indices = [20]"
            )
            page.wait_for_function("!Bokeh.documents[0].get_model_by_name('chosen').text.includes('No amplifier')")
            clicks.append(time.perf_counter() - begin)
            page.close()
        browser.close()
    return {"dashboard_first_paint_s": min(paints), "dashboard_click_s": min(clicks)}
