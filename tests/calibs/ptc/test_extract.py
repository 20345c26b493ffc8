"""Extraction of pairs: lean and lazy, the same from recipes and from pixels, tolerant of a broken pair."""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.ptc.extract import EXTRACTED, PtcExtractConfig, extract
from camcal_dask.calibs.ptc.solve import reasons_of, solve
from camcal_dask.errors import PlanError
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.blocks import Slab
from camcal_dask.isr.config import CrosstalkConfig, IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.ptc.flat_pair import PairRules, measure_pair
from camcal_dask.kernels.readout.overscan import FILL
from tests.isr.calibrations import calibrations
from tests.isr.frames import refuse, task_count, tiny_raw

CONFIG = PtcExtractConfig(lags=3, edge_pixel=3, min_pixels=200)
DETECTORS = (0, 2)  # E2V, ITL
GAIN, NOISE = 1.5, 5.0


def flats(n_pair=3, seed=1):
    """Pairs of flats of rising light on the pedestals of `tiny_raw`."""
    raw, _ = tiny_raw(2 * n_pair, seed, DETECTORS, read_noise=NOISE / GAIN)
    rng, pixels = np.random.default_rng(seed), raw.values.copy()
    camera = get_instrument("TinyCam")
    for e in range(2 * n_pair):
        for i, d in enumerate(DETECTORS):
            for amp in camera.detectors[d].amps:
                box = e, i, amp.index, amp.data.y, amp.data.x
                light = rng.poisson(8000 * (1 + e // 2), pixels[box].shape) / GAIN
                pixels[box] += np.round(light).astype("i4")
    times = np.repeat(np.arange(1.0, n_pair + 1), 2)
    raw = raw.copy(data=pixels).assign_coords(exposure_time=("exposure", times))
    return raw.assign_coords(mjd=("exposure", 60000 + np.arange(2 * n_pair) / 1440))


def pairs_of(raw):
    ids = raw["exposure"].values.tolist()
    return list(zip(ids[::2], ids[1::2], strict=True))


@pytest.fixture(scope="module")
def raw():
    return flats()


@pytest.fixture(scope="module")
def partial(raw):
    return extract(isr(raw), pairs_of(raw), CONFIG).compute(scheduler="sync")


def test_declared_variables(raw, partial):
    sizes = {"pair": 3, "detector": 2, "amp": 16, "lag_i": 3, "lag_j": 3}
    for name, variable in EXTRACTED.items():
        assert partial[name].dims == variable.dims
        assert partial[name].shape == tuple(sizes[d] for d in variable.dims)
        assert partial[name].dtype == np.dtype(variable.dtype)
        assert partial[name].attrs["units"] == variable.unit
    np.testing.assert_array_equal(partial["exposure_1"], raw["exposure"][::2])
    np.testing.assert_array_equal(partial["exposure_2"], raw["exposure"][1::2])
    np.testing.assert_array_equal(partial["exposure_time"], [1, 2, 3])
    np.testing.assert_array_equal(partial["mjd"], raw["mjd"][::2])
    assert partial.attrs["units"] == "adu"
    assert partial["amp"].values.tolist() == raw["amp"].values.tolist()


def test_values_are_those_of_the_kernel(raw, partial):
    corrected = isr(raw).dataset().compute(scheduler="sync")
    for d, (height, width) in enumerate(((50, 36), (49, 35))):
        box = np.s_[3 : height - 3, 3 : width - 3]
        a, b = corrected["image"].values[2:4, d, 5]
        noise = corrected["read_noise_adu"].values[2:4, d, 5].mean()
        bad = np.zeros((height - 6, width - 6), bool)
        want = measure_pair(a[box], b[box], bad, noise, PairRules(lags=3, min_pixels=200))
        for name, value in want._asdict().items():
            np.testing.assert_array_equal(partial[name].values[1, d, 5], value, err_msg=name)
        assert partial["noise_adu"].values[1, d, 5] == noise
    level = 20000 + 100 * np.arange(16)
    np.testing.assert_allclose(partial["overscan_median"].mean("pair")[0], level, atol=3)
    assert partial["amp_offset"].isnull().all()
    assert partial["valid"].all()
    np.testing.assert_allclose(
        partial["raw_mean"].mean(("detector", "amp")), np.array([1, 2, 3]) * 8000 / GAIN, rtol=0.01
    )
    gain = partial["pair_gain"].mean(("pair", "detector", "amp"))
    assert gain == pytest.approx(GAIN, rel=5 * 2**0.5 / np.sqrt(44 * 30 * 96))


def test_pixels_in_memory_give_the_same(raw, partial):
    corrected = isr(raw)
    loaded = corrected.dataset().compute(scheduler="sync")
    turned = loaded.transpose("detector", ..., "amp").chunk(exposure=1)
    lazy = corrected.dataset()
    for pixels in (loaded, loaded.chunk(exposure=1), turned, lazy.assign(image=lazy["image"] * np.float32(1)),
                   corrected.dataset(slab_rows=16), corrected.persist(scheduler="sync")):  # fmt: skip
        other = extract(pixels, pairs_of(raw), CONFIG)
        xr.testing.assert_identical(other.compute(scheduler="sync"), partial)


def test_any_order_and_choice_of_pairs(raw, partial):
    chosen = pairs_of(raw)[::-2]
    some = extract(isr(raw), chosen, CONFIG).compute(scheduler="threads")
    xr.testing.assert_equal(some.drop_vars("pair"), partial.isel(pair=[2, 0]).drop_vars("pair"))
    a, b = chosen[0]
    turned = extract(isr(raw), [(b, a)], CONFIG).compute(scheduler="sync")
    np.testing.assert_allclose(turned["raw_delta"][0], -partial["raw_delta"][2])
    np.testing.assert_allclose(turned["covariance"][0], partial["covariance"][2], atol=1e-2)


def test_graph_is_lean_and_lazy(raw):
    with dask.config.set(scheduler=refuse):
        lazy = extract(isr(raw), pairs_of(raw), CONFIG)
    n_pair, n_detector = 3, len(DETECTORS)
    assert task_count(lazy["raw_mean"]) <= n_pair * n_detector + 4 * n_detector + 1
    assert task_count(lazy) <= n_pair * n_detector + (3 + len(EXTRACTED)) * n_detector + 1


def test_masks(raw):
    """Defects are left out, whatever their pixels hold."""
    calibs = {"defects": calibrations()["defects"].isel(detector=list(DETECTORS)) * 0}
    calibs["defects"]["mask"][0, 4, 20:30, 10:12] = 1
    harmed = raw.copy(data=raw.values.copy())
    harmed[:, 0, 4, 20:30, 14:16] += 30000  # columns start after a prescan of 4 pixels
    box = get_instrument("TinyCam").detectors[0].amps[4].data
    assert box.x0 == 4
    config = IsrConfig(defects=True)
    clean, other = (extract(isr(r, calibs, config), pairs_of(raw), CONFIG).compute() for r in (raw, harmed))
    assert clean["n_pixel"].values[0, 0, 4] == 44 * 30 - 20
    np.testing.assert_array_equal(other["n_pixel"], clean["n_pixel"])
    np.testing.assert_allclose(other["covariance"], clean["covariance"], rtol=1e-6, atol=1e-3)


def test_whole_ccd_steps_and_all_corrections(raw):
    """The configuration of the final curve: everything that needs no gain, amp offsets measured."""
    config = IsrConfig(
        crosstalk=CrosstalkConfig(terms="linear"), linearity=True, deferred_charge=True, defects=True,
        amp_offsets="measure", amp_offset_max=1e5,
    )  # fmt: skip
    corrected = isr(raw.isel(detector=[0]), calibrations(), config)
    lazy = extract(corrected, pairs_of(raw), CONFIG)
    assert task_count(lazy["raw_mean"]) <= 3 + 8
    found = lazy.compute(scheduler="sync")
    loaded = extract(corrected.dataset().compute(scheduler="sync"), pairs_of(raw), CONFIG).compute(scheduler="sync")
    xr.testing.assert_identical(found, loaded)
    assert found["amp_offset"].notnull().all()


def test_default_edges_leave_something_of_a_tiny_amp(raw):
    """20 pixels of every side are nothing left of 36: a tenth of the shorter side goes, of an LSSTCam amp all 20."""
    found = extract(isr(raw), pairs_of(raw), PtcExtractConfig(lags=3, min_pixels=200)).compute(scheduler="sync")
    np.testing.assert_array_equal(found["n_pixel"].values[0, :, 5], [44 * 30, 43 * 29])
    assert found["valid"].all()
    for detector in (94, 23):
        amp = get_instrument("LSSTCam").detectors[detector].amps[0].data
        assert PtcExtractConfig().edge_of(amp.height, amp.width) == 20


def test_what_the_defaults_leave_out_is_told(raw):
    """Of a tiny amp no 10 000 pixels remain: the curve says so, and which setting to change."""
    found = extract(isr(raw), pairs_of(raw)).compute(scheduler="sync")
    reason = reasons_of(solve(found), DETECTORS[0])["C15"]
    assert reason == (
        "0 of 3 pairs can be used: at most 1320 good pixels inside extract.edge_pixel = 20, fewer than "
        "extract.min_pixels = 10000"
    )


def test_photodiode_and_header_values(raw):
    charge = xr.DataArray([1.0, 3.0, np.nan, 5.0, np.nan, np.nan], {"exposure": raw["exposure"]}, "exposure")
    name = xr.DataArray(list("abcdef"), {"exposure": raw["exposure"]}, "exposure", attrs={"units": "1"})
    lazy = extract(isr(raw), pairs_of(raw), CONFIG, photo_charge=charge, aux={"NAME": name})
    np.testing.assert_array_equal(lazy["photo_charge"], [2, 5, np.nan])
    np.testing.assert_array_equal(lazy["photo_charge_delta"], [2, np.nan, np.nan])
    assert lazy["aux_NAME"].values.tolist() == ["a", "c", "e"]


def test_a_pair_never_written_harms_no_other(raw, partial):
    holes = raw.copy(data=raw.values.copy())
    holes[2, 1] = FILL
    found = extract(isr(holes), pairs_of(raw), CONFIG).compute(scheduler="sync")
    assert not found["valid"][1, 1].any()
    assert found["raw_mean"][1, 1].isnull().all()
    xr.testing.assert_equal(found.isel(pair=[0, 2]), partial.isel(pair=[0, 2]))


def test_a_failing_pair_is_named(raw, partial, monkeypatch, caplog):
    correct, second = Slab.fetch, raw["exposure"].values[3]

    def fail(slab, index, image, mask):
        if slab.exposures[index] == 3:
            raise OSError("shard is damaged")
        return correct(slab, index, image, mask)

    monkeypatch.setattr(Slab, "fetch", fail)
    found = extract(isr(raw), pairs_of(raw), CONFIG).compute(scheduler="sync")
    assert str(second) in caplog.text
    assert not found["valid"][1].any()
    assert found["covariance"][1].isnull().all()
    xr.testing.assert_equal(found.isel(pair=[0, 2]), partial.isel(pair=[0, 2]))


def test_vignetting(raw):
    """Only the pixels near the brightest one of an amp count."""
    config = CONFIG.model_copy(
        update={"vignetting": (-100.0, 0.0, 1.0), "vignetting_percent": 0.5, "vignetting_min_pixels": 300}
    )
    found = extract(isr(raw), pairs_of(raw), config).compute(scheduler="sync")
    assert (found["n_pixel"] < 44 * 30).any()
    assert (found["n_pixel"] > 0).any()


def test_wrong_input_is_refused(raw):
    corrected, pairs = isr(raw), pairs_of(raw)
    with pytest.raises(PlanError, match="in electron"):
        extract(isr(raw, config=IsrConfig(gains="nominal")), pairs, CONFIG)
    with pytest.raises(PlanError, match=r"\[7\] of the pairs are not among those corrected"):
        extract(corrected, [(7, pairs[0][0])], CONFIG)
    with pytest.raises(PlanError, match="no pairs"):
        extract(corrected, [], CONFIG)
    with pytest.raises(PlanError, match="an image with dims"):
        extract(corrected.dataset().rename(y="row"), pairs, CONFIG)
    with pytest.raises(ValueError, match="unknown mask plane 'BAS'; did you mean 'BAD'"):
        PtcExtractConfig(bad_planes=("BAS",))
