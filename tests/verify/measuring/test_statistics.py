"""The measurement of a block against numpy on the same pixels, and its dask wiring."""

import dask
import numpy as np
import pytest

from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.kernels.pixels.masks import BAD, SAT
from camcal_dask.verify.measuring import block as block_module
from camcal_dask.verify.measuring import references
from camcal_dask.verify.measuring import statistics as module
from camcal_dask.verify.measuring.statistics import STATISTICS, MeasureConfig, measure, measure_block


def clipped_stdev(values, sigma=5.0, iterations=3):
    q25, center, q75 = np.percentile(values, [25, 50, 75])
    spread = 0.741301109252802 * (q75 - q25)
    for _ in range(iterations):
        kept = values[abs(values - center) <= sigma * spread]
        center, spread = kept.mean(), kept.std(ddof=1)
    return spread, values.size - kept.size


@pytest.fixture
def block(make_exposures):
    corrected = make_exposures(n_exposure=1, detectors=(2,))
    image, variance, mask = (corrected[n].values[0, 0] for n in ("image", "variance", "mask"))
    mask[3, 5, :9] |= BAD
    mask[4, 7, 7] |= SAT
    image[5, 30, 20] = 4000.0
    return image, variance, mask


def test_every_statistic_matches_numpy(block):
    image, variance, mask = block
    amps = get_instrument("TinyCam").detectors[2].amps
    found = measure_block(image, variance, mask, amps, MeasureConfig(projections=True))
    assert set(STATISTICS) <= set(found)
    for a in range(16):
        good = np.isfinite(image[a]) & (mask[a] & (BAD | 1 << 5 | 1 << 8) == 0)
        values = image[a][good].astype("f8")
        expected = dict(
            zip(("q05", "q16", "median", "q84", "q95"), np.percentile(values, [5, 16, 50, 84, 95]), strict=True)
        )
        noise, n_clipped = clipped_stdev(values)
        expected |= {"mean": values.mean(), "stdev": values.std(ddof=1), "min": values.min(), "max": values.max()}
        expected |= {"noise": noise, "n_clipped": n_clipped, "n_good": values.size, "n_pixel": 49 * 35}
        corner = np.where(good, image[a], np.nan)[:24, :17]
        expected |= {"amp_corner": np.nanmean(corner), "n_masked": 9 if a == 3 else 0, "force_failure": 0, "flags": 0}
        for name, number in expected.items():
            assert found[name][a] == pytest.approx(number, rel=1e-6, abs=1e-9), name
    assert found["n_masked_plane"][3, 0] == 9
    assert found["n_masked_plane"][4, 1] == 1
    assert found["n_cosmic_ray"].sum() == 1
    assert found["stdev"][5] > 10 * found["noise"][5]
    mended = image[5].astype("f8").copy()
    mended[30, 20] = 0.5 * (mended[30, 19] + mended[30, 21])
    assert found["cr_noise"][5] == pytest.approx(np.nanstd(mended[:49, :35], ddof=1), rel=1e-6)
    assert np.isnan(found["row_mean"][0, 49])
    np.testing.assert_allclose(
        found["column_mean"][0, :35], np.nanmean(image[0, :, :35].astype("f8"), axis=0), atol=1e-6
    )


def test_amp_correlation_is_that_of_pixels_read_together(block):
    image, variance, mask = block
    image += 3.0 * np.random.default_rng(1).standard_normal(image.shape[1:]).astype("f4")
    found = measure_block(image, variance, mask, get_instrument("TinyCam").detectors[2].amps, MeasureConfig())
    matrix = found["amp_correlation"][0]
    assert np.allclose(np.diag(matrix), 1)
    off = matrix[~np.eye(16, dtype=bool)]
    assert off.mean() == pytest.approx(9 / (9 + 6.2**2), abs=0.03)


def test_all_masked_amp_is_unknown_and_flagged(block):
    image, variance, mask = block
    mask[6] = BAD
    found = measure_block(image, variance, mask, get_instrument("TinyCam").detectors[2].amps, MeasureConfig())
    assert np.isnan(found["noise"][6])
    assert found["n_good"][6] == 0
    assert int(found["flags"][6]) & block_module.LOW_N
    assert np.isfinite(np.delete(found["noise"], 6)).all()


def test_too_many_cosmic_rays_force_a_failure_of_the_amp_only(block):
    image, variance, mask = block
    image[7, ::3, ::3] += 3000
    found = measure_block(image, variance, mask, get_instrument("TinyCam").detectors[2].amps, MeasureConfig())
    assert list(np.flatnonzero(found["force_failure"])) == [7]
    assert np.isnan(found["cr_noise"][7])


def test_measure_is_lazy_and_lean(make_exposures):
    corrected = make_exposures(n_exposure=6, detectors=(0, 1, 2)).chunk(exposure=1, detector=1)

    def refuse(*_args, **_kwargs):
        raise AssertionError("computed while building the graph")

    with dask.config.set(scheduler=refuse):
        lazy = measure(corrected)
    layers = lazy.__dask_graph__().layers
    own = {name: len(layer) for name, layer in layers.items() if not name.startswith(("xarray-", "array-"))}
    assert len([n for n in own if n.startswith("measure")]) == 1
    assert sum(own.values()) < 18 + 150  # one task a block and a few for each variable, whatever the number of blocks
    assert lazy["noise"].dims == ("exposure", "detector", "amp")
    assert lazy["amp_correlation"].dims == ("exposure", "detector", "kind", "amp", "amp_b")


def test_dask_and_plain_loop_agree_to_the_bit(make_exposures):
    corrected = make_exposures()
    found = measure(corrected.chunk(exposure=1, detector=1)).compute()
    grouped = measure(corrected.chunk(exposure=3, detector=2)).compute()
    unchunked = measure(corrected).compute()
    for e, d in np.ndindex(3, 2):
        amps = get_instrument("TinyCam").detectors[int(corrected["detector"][d])].amps
        arrays = (corrected[n].values[e, d] for n in ("image", "variance", "mask"))
        plain = measure_block(*arrays, amps, MeasureConfig(), corrected["serial_overscan"].values[e, d])
        for name in (*STATISTICS, "amp_correlation", "residual_binned", "n_masked_plane"):
            np.testing.assert_array_equal(found[name].values[e, d], plain[name], err_msg=name)
    assert found.identical(grouped)
    assert found.identical(unchunked)
    np.testing.assert_array_equal(found["read_noise_adu"], corrected["read_noise_adu"])
    assert (found["bias_shift_count"] == 0).all()
    assert found["noise"].attrs["units"] == "electron"


def test_expected_noise_is_that_of_a_simulated_overscan_subtraction(make_exposures):
    """Draw raw amps, subtract row and column medians as the ISR does, compare the scatter."""
    rng = np.random.default_rng(3)
    amp = get_instrument("LSSTCam").detectors[94].amps[0]
    raw = rng.normal(0, 1, (400, 512 + 48))
    raw[:, :512] -= np.median(raw[:, 512:], axis=1)[:, None]
    raw[:, :512] -= np.median(rng.normal(0, 1, (40, 512)), axis=0)
    factor = references._noise_factors(amp, (2002, 512), MeasureConfig())[0]
    assert raw[:, :512].std() == pytest.approx(factor, rel=0.005)
    assert factor == pytest.approx(1.035, abs=0.002)


def test_references_follow_units_and_supplied_gains(make_exposures):
    config = MeasureConfig(overscan_skip_pixel=-1)
    electron = measure(make_exposures(n_exposure=1), config=config).compute()
    adu = measure(make_exposures(n_exposure=1, units="adu"), config=config).compute()
    np.testing.assert_allclose(electron["noise_expected"], electron["read_noise"])
    np.testing.assert_allclose(adu["noise_expected"] * adu["gain"], electron["noise_expected"])
    np.testing.assert_allclose(adu["noise"] * adu["to_electron"], electron["noise"], rtol=1e-5)
    corrected = make_exposures(n_exposure=1, units="adu")
    corrected["gain"] = ("detector", "amp"), np.full((2, 16), 2.0)
    assert (measure(corrected)["to_electron"] == 2).all()


def test_exception_in_one_block_becomes_a_flagged_record(make_exposures, monkeypatch, caplog):
    def broken(image, *args, **kwargs):
        if image.max() > 1e5:
            raise ValueError("synthetic")
        return measure_block(image, *args, **kwargs)

    monkeypatch.setattr(module, "measure_block", broken)
    corrected = make_exposures()
    corrected["image"][1, 0, 0, 0, 0] = 1e6
    found = measure(corrected).compute(scheduler="synchronous")
    assert (found["force_failure"].sum("amp") == [[0, 0], [16, 0], [0, 0]]).all()
    assert np.isnan(found["noise"].values[1, 0]).all()
    assert "detector 0" in caplog.text


def test_calibration_distribution_and_identity_are_copied(make_exposures):
    calib = make_exposures(n_exposure=1)[["image"]].isel(exposure=0, drop=True)
    calib["distribution"] = (
        calib["image"].quantile([0, 0.5, 1], ("y", "x")).rename(quantile="level").transpose("detector", "amp", "level")
    )
    calib.attrs = {"uuid": "abc", "run": "u/x/bias", "units": "adu"}
    found = measure(make_exposures(detectors=(2,), n_exposure=1), calib=calib)
    assert found["calib_distribution"].dims == ("detector", "amp", "level")
    assert found.attrs["calib_uuid"] == "abc"


def test_cut_detectors_are_put_together(make_exposures):
    corrected = make_exposures(n_exposure=1)
    assert measure(corrected.chunk(y=10)).compute().identical(measure(corrected).compute())


@pytest.mark.slow
def test_full_size_amp_statistics_and_cosmic_rays(make_exposures):
    """Reference, acceptance tests (a) and (c): Gaussian read noise, 300 hits of 5 ke-."""
    corrected = make_exposures("LSSTCam", (94,), 1)
    camera = get_instrument("LSSTCam").detectors[94]
    image, variance, mask = (corrected[n].values[0, 0] for n in ("image", "variance", "mask"))
    truth = np.array([a.read_noise for a in camera.amps])
    clean = measure_block(image, variance, mask, camera.amps, MeasureConfig())
    np.testing.assert_allclose(clean["noise"], truth, rtol=3e-3)
    np.testing.assert_allclose(clean["cr_noise"], clean["noise"], rtol=1e-4)
    rng = np.random.default_rng(4)
    flat = rng.choice(image.size, 300, replace=False)
    image.reshape(-1)[flat] += 5000.0
    hit = measure_block(image, variance, mask, camera.amps, MeasureConfig())
    np.testing.assert_allclose(hit["noise"], truth, rtol=3e-3)
    assert (hit["stdev"] > 1.5 * truth).all()
    np.testing.assert_allclose(hit["cr_noise"], truth, rtol=3e-3)
    assert hit["n_cosmic_ray"].sum() >= 300
