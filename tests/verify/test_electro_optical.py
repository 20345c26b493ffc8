"""Electro-optical statistics of raw exposures, combined images, sets and curves, against what was put in."""

import dataclasses

import dask
import numpy as np
import pytest
import xarray as xr

from benchmarks.report import make_statistics
from camcal_dask.calibs.combined.numbers import DARK_NUMBERS, measure_dark
from camcal_dask.calibs.flat.numbers import inside, measure_flat
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.verify.judging.account import failures, summary
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.measuring.raft import raft_correlations
from camcal_dask.verify.measuring.readout import READOUT, ReadoutConfig, measure_readout
from camcal_dask.verify.measuring.series import SERIES, series
from camcal_dask.verify.verdict import criteria_of, verdict_of

CAMERA = get_instrument("TinyCam")
DETECTORS = list(CAMERA.science_detectors)
AMPS = list(CAMERA.amp_names)
BLOCK = ("exposure", "detector", "amp")


@pytest.fixture
def no_compute():
    def refuse(*_, **__):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        yield


def raws(n=3, signal=0.0, noise=4.0, trail=0.0, common=0.0, seed=0):
    """Raw exposures [adu]: level and noise of every amp, signal in the data area, ``trail`` of it in the next pixel."""
    rng = np.random.default_rng(seed)
    shape = (n, len(DETECTORS), *CAMERA.raw_shape[1:])
    pixels = 20_000 + rng.normal(0, noise, shape) + 100 * np.arange(16)[:, None, None]
    pixels += rng.normal(0, common, (n, 1, 1, *shape[3:])) if common else 0.0
    for d, detector in enumerate(DETECTORS):
        for amp in CAMERA.detectors[detector].amps:
            box = amp.data
            pixels[:, d, amp.index, box.y, box.x] += signal
            pixels[:, d, amp.index, box.y, box.x0 + box.width] += signal * trail
            pixels[:, d, amp.index, box.y0 + box.height, box.x] += 2 * signal * trail
    coords = {"exposure": 2026081200001 + np.arange(n), "detector": DETECTORS, "amp": AMPS}
    attrs = {"instrument": "TinyCam", "units": "adu"}
    return xr.DataArray(np.round(pixels).astype(np.int32), coords, (*BLOCK, "y", "x"), "raw", attrs)


# --- raw exposures -------------------------------------------------------------------------------------------------


def test_readout_is_lazy_and_complete(no_compute):
    found = measure_readout(raws())
    assert set(found.data_vars) == set(READOUT)
    assert all(v.dims == BLOCK and v.attrs["long_name"] for v in found.data_vars.values())


@pytest.mark.parametrize("trail", [2e-4, 2e-3])
def test_readout_recovers_noise_level_and_inefficiency(trail):
    found = measure_readout(raws(4, signal=30_000.0, trail=trail)).compute()
    level = 20_000 + 100 * np.arange(16)
    np.testing.assert_allclose(found["overscan_level"].mean(["exposure", "detector"]), level, atol=1.5)
    assert found["read_noise_boxes"].mean() == pytest.approx(np.hypot(4.0, 12**-0.5), rel=0.01)
    for name, factor, side in (("scti", 1, "width"), ("pcti", 2, "height")):
        n = [getattr(CAMERA.detectors[d].amps[0].data, side) for d in DETECTORS]
        expected = xr.DataArray([factor * trail / (k + 1) for k in n], dims="detector")
        pull = (found[name] - expected) / found[f"{name}_error"]
        assert abs(pull.mean()) < 5 / np.sqrt(pull.size) * 1.5
        assert 0.7 < pull.std() < 1.6  # the level of a row adds to the error of two columns


def test_dark_frames_and_lost_detectors_have_no_inefficiency():
    pixels = raws(2)
    pixels[1, 2] = np.iinfo(np.int32).min
    found = measure_readout(pixels, ReadoutConfig(enabled=True)).compute()
    assert found["scti"].isnull().all()
    assert found["read_noise_boxes"].isel(exposure=1, detector=2).isnull().all()
    assert found["read_noise_boxes"].isel(exposure=0).notnull().all()


# --- rafts ---------------------------------------------------------------------------------------------------------


def test_raft_correlations_are_lazy(no_compute):
    assert raft_correlations(raws(), DETECTORS[:1], "overscan").dims == ("detector", "amp", "raft_amp")


def test_common_noise_correlates_the_whole_raft_and_no_other():
    common = 3.0
    pixels = raws(1, common=common)
    found = raft_correlations(pixels, DETECTORS, "overscan").compute()
    slots = {d: CAMERA.detectors[d].name_in_raft for d in DETECTORS}
    for i, d in enumerate(DETECTORS):
        own = found.isel(detector=i).sel(raft_amp=[f"{slots[d]}_{a}" for a in AMPS]).values
        np.testing.assert_allclose(np.diag(own), 1, atol=1e-4)
    others = [d for d in DETECTORS if CAMERA.detectors[d].raft != CAMERA.detectors[DETECTORS[0]].raft]
    off = found.values[np.isfinite(found.values) & (found.values < 0.99)]
    assert off.mean() == pytest.approx(common**2 / (common**2 + 16), abs=0.02)
    lone = raft_correlations(pixels.sel(detector=DETECTORS[:1]), DETECTORS[:1], "overscan").compute()
    assert int(np.isfinite(lone).sum()) == 16 * 16
    assert len(others) < len(DETECTORS)


def test_images_of_a_pair_without_common_noise_do_not_correlate():
    found = raft_correlations(raws(2, signal=10_000.0, noise=20.0), DETECTORS[:2], "image").compute().values
    off = found[np.isfinite(found) & (found < 0.99)]
    n = CAMERA.detectors[0].amps[0].data.width * CAMERA.detectors[0].amps[0].data.height
    assert abs(off.mean()) < 0.02
    assert off.std() == pytest.approx(n**-0.5, rel=0.2)


# --- combined images -----------------------------------------------------------------------------------------------


def combined(values, units):
    dims = ("detector", "amp", "y", "x")
    coords = {"detector": DETECTORS, "amp": AMPS}
    return xr.Dataset({"image": (dims, values.astype("f4"))}, coords, {"instrument": "TinyCam", "units": units})


def images(level, sigma, seed=0):
    shape = (len(DETECTORS), 16, *CAMERA.trimmed_shape)
    values = np.random.default_rng(seed).normal(level, sigma, shape)
    for d, detector in enumerate(DETECTORS):
        for amp in CAMERA.detectors[detector].amps:
            values[d, amp.index, amp.data.height :] = values[d, amp.index, :, amp.data.width :] = np.nan
    return values


@pytest.mark.parametrize("units", ["electron/s", "adu/s"])
def test_dark_current_and_bright_defects(units):
    rate = images(0.02, 0.01)
    rate[1, 5, 3, 4] = rate[1, 5, 10, 11] = 50.0
    rate[2, 6, :30, 8] = 50.0
    gain = 1.0 if units == "electron/s" else CAMERA.detectors[0].amps[0].gain
    gains = [[a.gain for a in CAMERA.detectors[d].amps] for d in DETECTORS]
    scale = np.ones((len(DETECTORS), 16)) if units == "electron/s" else np.array(gains)
    found = measure_dark(combined(rate / scale[..., None, None], units)).compute()
    assert gain > 0
    assert set(found.data_vars) == set(DARK_NUMBERS)
    assert abs(found["dark_current_median"] - 0.02).max() < 0.002
    assert abs(found["dark_current_q95"] - (0.02 + 1.645 * 0.01)).max() < 0.003
    assert abs(found["dark_current_noise"] - 0.01).max() < 0.001
    assert (found["dark_current_tail"] - found["dark_current_median"]).max() < 1.3 * 6 * 0.01 / 1700**0.25
    assert found["bright_pixels"].values[1, 5] == 2
    assert found["bright_columns"].values[2, 6] == 1
    assert (found["bright_pixels"].sum(), found["bright_columns"].sum()) == (2, 1)


@pytest.mark.parametrize(("current", "outcome"), [(0.02, 1), (0.15, 1), (0.6, 0)])
def test_dark_current_is_not_the_read_noise_of_a_short_dark(current, outcome):
    """8 % of the pixels have a current; 0.13 electron/s is the noise of ten darks of 15 s: it moved the percentile."""
    rng = np.random.default_rng(2)
    rate = images(0.005, 0.13)
    rate += current * (rng.random(rate.shape) < 0.08)
    found = measure_dark(combined(rate, "electron/s")).compute()
    assert (found["dark_current_q95"] > 0.2).mean() > 0.5
    numbers = {name: found[name].values for name in ("dark_current_tail", "dark_current_noise")}
    status = judged("dark", **numbers)["run_status"].sel(run_test="dark.spec_current")
    assert (status == outcome).mean() > 0.9  # by the limit of a full-size amp, of few pixels


def test_dark_and_vampire_defects_and_tearing():
    flat = images(1.0, 0.002)
    amp = CAMERA.detectors[DETECTORS[0]].amps[3]
    flat[0, 3, 20, 20] = 0.5
    flat[0, 3, 0, :] = 0.4  # the picture frame does not count
    flat[1, 9, 25:28, 10:13] = 2.0
    edge = amp.data.width - 1 if not amp.flip_x else 0  # its right side in the CCD
    flat[0, 3, :, edge] *= 1.03
    found = measure_flat(combined(flat, "1")).compute()
    assert found["dark_pixels"].values[0, 3] == 1
    assert found["dark_pixels"].sum() == 1
    assert found["vampires"].values[1, 9] == 1
    assert found["vampires"].sum() == 1
    torn = found["divisadero"].isel(detector=0)
    right = next(a for a in CAMERA.detectors[DETECTORS[0]].amps if (a.ix, a.iy) == (amp.ix + 1, amp.iy))
    assert float(torn[3]) == pytest.approx(0.03, abs=0.004)
    assert float(torn[right.index]) == pytest.approx(0.03, abs=0.004)
    assert float(found["divisadero"].isel(detector=2).max()) < 0.006


def test_hot_pixels_are_counted_and_are_no_dark_current():
    """A column and pixels, 7 % of the amp, moved the 95th percentile; a current of a tenth of the amp still does."""
    rate = images(0.02, 0.02)
    rate[0, 2, :, 5:7] += 6.0
    rate[0, 2, ::9, 20] += 100.0
    rate[0, 3, :, :6] += 0.5
    found = measure_dark(combined(rate, "electron/s")).compute().isel(detector=0)
    assert float(found["dark_current_tail"][2]) < 0.1
    assert (float(found["bright_columns"][2]), float(found["bright_pixels"][2])) == (2, 6)
    assert float(found["dark_current_tail"][3]) > 0.4


def test_a_dead_amp_is_no_tearing_of_its_neighbours():
    flat = images(1.0, 0.002)
    flat[0, 4] = 0.001 * np.random.default_rng(1).standard_normal(flat[0, 4].shape)
    torn = measure_flat(combined(flat, "1")).compute()["divisadero"].isel(detector=0).values
    assert np.isnan(torn[4])
    assert np.nanmax(torn) < 0.006
    flat[0, 3] *= np.where(np.arange(flat.shape[3]) < 2, 1.08, 1.0)  # torn it is beside a dead amp, too
    flat[0, 3] *= np.where(np.arange(flat.shape[3]) >= flat.shape[3] - 2, 1.08, 1.0)
    torn = measure_flat(combined(flat, "1")).compute()["divisadero"].isel(detector=0).values
    assert torn[3] == pytest.approx(0.08, abs=0.006)


def test_frame_is_where_the_edges_of_the_ccd_are():
    """Counted in the assembled CCD: every amp's kept part, put in its place, leaves exactly the frame."""
    for detector in (CAMERA.detectors[d] for d in DETECTORS):
        width, height = detector.amps[0].data.width, detector.amps[0].data.height
        whole = np.zeros((2 * height, 8 * width), bool)
        for amp in detector.amps:
            part = np.zeros((height, width), bool)
            part[inside(amp, detector)] = True
            part = part[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
            whole[amp.iy * height :, amp.ix * width :][:height, :width] = part
        expected = np.zeros_like(whole)
        expected[9:-9, 9:-9] = True
        np.testing.assert_array_equal(whole, expected)


def test_other_kinds_have_no_numbers():
    assert verdict_of("bias").numbers is None


# --- sets of exposures ---------------------------------------------------------------------------------------------


def exposures(mean, **extra):
    n = mean.shape[0]
    coords = {
        "exposure": 2026081200001 + np.arange(n),
        "detector": DETECTORS,
        "amp": AMPS,
        "mjd": ("exposure", 60000 + np.arange(n) * 20 / 86400),
        "seq_num": ("exposure", np.arange(1, n + 1)),
        "seq_start": ("exposure", np.ones(n, int)),
    }
    coords |= {k: ("exposure", v) for k, v in extra.items()}
    return xr.Dataset({"mean": (BLOCK, mean)}, coords, {"units": "electron"})


def shape(n):
    return n, len(DETECTORS), 16


def test_range_of_the_level_leaves_the_first_exposure_out():
    mean = np.zeros(shape(41))
    mean[0] = 1e3
    mean[1:, 1, 2] = np.linspace(0, 1, 40)
    found = series(exposures(mean))
    assert float(found["level_range"].isel(detector=1, amp=2)) == pytest.approx(0.9)
    assert int((found["level_range"] > 0).sum()) == 1
    assert set(found.data_vars) <= set(SERIES)
    assert "persistence" not in found


def test_gain_of_one_amp_drifts_and_the_photodiode_does_not_matter():
    rng = np.random.default_rng(0)
    charge = 1e-9 * (1 + 0.05 * rng.standard_normal(30))
    response = np.ones(shape(30)) * rng.normal(5e13, 1e12, shape(30)[1:])
    response[:, 0, 7] *= 1 + np.linspace(-0.002, 0.002, 30)
    drift_of_photodiode = 1 + 0.01 * np.linspace(0, 1, 30)
    mean = response * charge[:, None, None]
    found = series(exposures(mean, photo_charge=charge * drift_of_photodiode, physical_filter=["r"] * 15 + ["g"] * 15))
    assert float(found["gain_drift"].isel(detector=0, amp=7)) == pytest.approx(0.001, rel=0.15)  # within a filter
    others = found["gain_drift"].values.copy()
    others[0, 7] = 0
    assert others.max() < 1e-12
    assert found["gain_ratio"].dims == BLOCK
    dark = series(exposures(mean, photo_charge=np.full(30, np.nan)))
    assert dark["gain_drift"].isnull().all()


def test_persistence_of_darks_after_light():
    seconds = np.arange(10) * 20.0
    amplitude = np.zeros(shape(1)[1:])
    amplitude[3, 4] = 12.0
    mean = 0.3 + amplitude * np.exp(-seconds / 30)[:, None, None]
    found = series(exposures(mean[::1], observation_type=["dark"] * 10))
    assert float(found["persistence"][3, 4]) == pytest.approx(12, rel=0.01)
    assert float(found["persistence_decay"][3, 4]) == pytest.approx(30, rel=0.03)
    assert float(abs(found["persistence"]).sum()) == pytest.approx(12, rel=0.01)
    mixed = series(exposures(mean, observation_type=["dark"] * 9 + ["bias"]))
    assert "persistence" not in mixed


def test_shift_frequency():
    data = exposures(np.zeros(shape(4)))
    count = np.zeros(shape(4))
    count[:3, 1, 1], count[0, 2, 2] = [1, 2, 0], np.nan
    found = series(data.assign(bias_shift_count=(BLOCK, count)))["shift_frequency"].values
    assert found[1, 1] == 0.5
    assert found[2, 2] == 0


# --- their tests ---------------------------------------------------------------------------------------------------


def judged(kind, n=4, **numbers):
    """Verdict on clean statistics of full-size amps with some numbers changed."""
    statistics = make_statistics(n, "TinyCam").assign(n_good=(BLOCK, np.full(shape(n), 1e6)))
    statistics = statistics.assign({k: v * 1e-3 for k, v in statistics.items() if str(k).endswith("_error")})
    if kind == "flat":
        statistics["mean"] = statistics["mean"] + 20_000.0
    numbers.setdefault("dark_current_noise", np.full(shape(1)[1:], 0.01))
    for name, values in numbers.items():
        dims = BLOCK if np.ndim(values) == 3 else BLOCK[1:]
        statistics[name] = (dims, values)
    return judge(statistics, kind, known_bad=[])


@pytest.mark.parametrize(
    ("kind", "test", "variable", "good", "bad"),
    [
        ("bias", "bias.stability", "level_range", 0.1, 0.6),
        ("dark", "dark.spec_current", "dark_current_tail", 0.1, 0.25),
        ("flat", "flat.divisadero", "divisadero", 0.003, 0.06),
        ("flat", "flat.gain_stability", "gain_drift", 1e-4, 3e-3),
        ("persistence", "persistence.level", "persistence", 0.5, 8.0),
    ],
)
def test_tests_of_a_run_find_the_amp(kind, test, variable, good, bad):
    values = np.full(shape(1)[1:], good)
    values[2, 5] = bad
    verdict = judged(kind, **{variable: values})
    assert verdict["run_status"].dims == ("run_test", "detector", "amp")
    failed_amps = np.argwhere(verdict["run_status"].sel(run_test=test).values == 0)
    assert failed_amps.tolist() == [[2, 5]]
    table = failures(verdict)
    row = table[table["test"] == test].iloc[0]
    assert (row["exposure"], row["detector"], row["amp"]) == (0, CAMERA.detectors[DETECTORS[2]].full_name, AMPS[5])
    assert f"advisory {row['name']}: 1 amps; worst {row['detector']} {row['amp']}:" in summary(verdict)
    assert verdict["exposure_success"].values.all() == judged(kind)["exposure_success"].values.all()


@pytest.mark.parametrize(("name", "limit"), [("scti", 5e-6), ("pcti", 3e-6)])
def test_inefficiency_is_judged_by_the_mean_of_the_set_and_its_error(name, limit):
    cti = np.full(shape(4), 0.2 * limit)
    cti[:, 1, 3] = 2 * limit
    cti[0, 2, 2] = 3 * limit  # one exposure alone
    small, large = np.full(shape(4), 1e-9), np.full(shape(4), limit)
    found = judged("flat", **{name: cti, f"{name}_error": small})["run_status"].sel(run_test=f"flat.{name}").values
    assert np.argwhere(found == 0).tolist() == [[1, 3]]
    found = judged("flat", **{name: cti, f"{name}_error": large})["run_status"].sel(run_test=f"flat.{name}").values
    assert (found == 1).all()


def test_what_was_not_measured_is_not_evaluated_and_required_tests_of_a_run_reject():
    verdict = judged("flat")
    assert (verdict["run_status"] == -1).all()
    row = dataclasses.replace(next(c for c in criteria_of("bias") if c.id == "bias.stability"), required=True)
    values = np.zeros(shape(1)[1:])
    clean = make_statistics(4, "TinyCam").assign(level_range=(BLOCK[1:], values))
    assert bool(judge(clean, (row,))["run_success"])
    values[0, 0] = 100.0
    verdict = judge(clean.assign(level_range=(BLOCK[1:], values)), (row,))
    assert not bool(verdict["run_success"])
    assert bool(verdict["exposure_success"].all())
    assert "R22_S00 C10: fails over all exposures: STABILITY" in summary(verdict)
    assert bool(judge(clean, (row,), known_bad=[("R22_S00", "C10")])["run_success"])


def test_bright_columns_of_a_detector_are_summed():
    columns = np.zeros(shape(1)[1:])
    columns[1, :3] = 2
    status = judged("dark", bright_columns=columns)["detector_status"].sel(detector_test="dark.bright_columns")
    assert (status.sel(detector=DETECTORS[1]) == 0).all()
    assert int((status == 0).sum()) == 4
