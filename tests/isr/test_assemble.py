"""Assembled CCDs and mosaics: against loops over pixels, lazy, lean."""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.errors import PlanError
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.focal_plane import ccd_to_focal_plane, transform
from camcal_dask.isr.assemble import assemble, bin_image, mosaic
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.pixels.masks import BAD, NO_DATA
from tests.isr.frames import refuse, task_count, tiny_raw

CAMERA = get_instrument("TinyCam")


@pytest.fixture(scope="module")
def corrected():
    return isr(tiny_raw(2, pattern=30)[0])


def ccd_by_pixels(amps, detector):
    ccd = np.full((detector.height_pix, detector.width_pix), -1.0)
    for amp in detector.amps:
        for y in range(amp.data.height):
            for x in range(amp.data.width):
                column = amp.ix * amp.data.width + (amp.data.width - 1 - x if amp.flip_x else x)
                row = amp.iy * amp.data.height + (amp.data.height - 1 - y if amp.flip_y else y)
                ccd[row, column] = amps[amp.index, y, x]
    return ccd


@pytest.mark.parametrize("lazy", [True, False])
def test_pixels_stand_where_they_belong(corrected, lazy):
    amps = corrected if lazy else corrected.dataset().compute(scheduler="sync")
    with dask.config.set(scheduler=refuse):
        ccd = assemble(amps)
    ccd = ccd.compute(scheduler="sync")
    assert ccd["image"].dims == ("exposure", "detector", "y_ccd", "x_ccd")
    assert ccd["image"].shape == (2, 4, 100, 288)
    assert ccd.attrs["units"] == "adu"
    values = corrected.dataset()["image"].compute(scheduler="sync").values
    for d in (0, 2):
        detector = CAMERA.detectors[d]
        area = np.s_[1, d, : detector.height_pix, : detector.width_pix]
        np.testing.assert_array_equal(ccd["image"].values[area], ccd_by_pixels(values[1, d], detector))
        assert (ccd["mask"].values[area] == 0).all()
    assert np.isnan(ccd["image"].values[:, 2:, 98:]).all()
    assert (ccd["mask"].values[:, 2:, :, 280:] == NO_DATA).all()


def test_slabs_and_products(corrected):
    slabs = isr(tiny_raw(2, pattern=30)[0]).dataset(slab_rows=16)
    whole = assemble(corrected).compute(scheduler="sync")
    xr.testing.assert_identical(assemble(slabs).compute(scheduler="sync")["image"], whole["image"])
    product = corrected.dataset().isel(exposure=0)
    np.testing.assert_array_equal(assemble(product)["image"].compute(scheduler="sync"), whole["image"][0])


def test_bins():
    rng = np.random.default_rng(0)
    image, mask = rng.normal(size=(10, 13)).astype("f4"), np.zeros((10, 13), "i4")
    mask[0, 0], image[1, 1], mask[8:, 12:] = BAD, np.nan, BAD
    got = bin_image(image, mask, 4, BAD)
    assert got.shape == (3, 4)
    for j in range(3):
        for i in range(4):
            part = np.s_[4 * j : 4 * j + 4, 4 * i : 4 * i + 4]
            good = image[part][(mask[part] == 0) & np.isfinite(image[part])]
            np.testing.assert_allclose(got[j, i], good.mean() if good.size else np.nan, rtol=1e-5)


@pytest.mark.parametrize("slab_rows", [None, 16])
def test_mosaic(slab_rows):
    """Every bin holds the mean of its pixels, at the place in the focal plane where they are."""
    camera, binning = CAMERA, 4
    corrected = isr(tiny_raw(2)[0])
    given = corrected if slab_rows is None else corrected.dataset(slab_rows=slab_rows)
    with dask.config.set(scheduler=refuse):
        lazy = mosaic(given, binning=binning)
    got = lazy.compute(scheduler="sync")
    assert got.dims == ("exposure", "y_focal", "x_focal")
    ccd = assemble(corrected).compute(scheduler="sync")
    n = 0
    for d, detector in camera.detectors.items():
        if d not in corrected.labels["detector"]:
            continue
        x, y = 4 * 5 + 1.5, 4 * 9 + 1.5
        mm = [float(v) for v in transform(ccd_to_focal_plane(detector), x, y)]
        square = ccd["image"].sel(detector=d).isel(exposure=1, y_ccd=slice(36, 40), x_ccd=slice(20, 24))
        near = got[1].sel(x_focal=mm[0], y_focal=mm[1], method="nearest")
        tolerance = 0.5 * binning * detector.pixel_size_mm + 1e-9
        assert abs(near["x_focal"] - mm[0]) <= tolerance
        around = got[1].sel(x_focal=slice(mm[0] - 2 * tolerance, mm[0] + 2 * tolerance),
                            y_focal=slice(mm[1] - 2 * tolerance, mm[1] + 2 * tolerance)).values  # fmt: skip
        assert np.abs(around - square.mean().item()).min() < 1e-3
        n += int(np.ceil(detector.height_pix / 4) * np.ceil(detector.width_pix / 4))
    assert np.isfinite(got[1].values).sum() == pytest.approx(n, rel=0.02)
    assert got.attrs["units"] == "adu"


def test_mosaic_graph_is_lean(corrected):
    n_blocks = 2 * 4
    assert task_count(mosaic(corrected)) <= 2 * n_blocks + 2 + 6


def test_wrong_input(corrected):
    with pytest.raises(PlanError, match="instrument"):
        assemble(corrected.dataset().drop_attrs())
    with pytest.raises(PlanError, match="no variable"):
        assemble(corrected.dataset()[["read_noise_adu"]])
