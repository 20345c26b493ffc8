"""The whole slab-local ISR against a plain float64 calculation in the documented order (reference/isr.md 1, 2, 7)."""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.errors import ConfigError, DataError
from camcal_dask.isr.amps import AmpStatus
from camcal_dask.isr.config import CrosstalkConfig, IsrConfig, SaturationConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.pixels.masks import BAD, CROSSTALK, NO_DATA, SAT, SUSPECT, UNMASKEDNAN
from tests.isr.calibrations import CAMERA, PEDESTAL, bright_raw, calibrations
from tests.isr.frames import DAY, raw_array, refuse, task_count, tiny_raw

FULL = IsrConfig(
    dither="none",
    saturation=SaturationConfig(saturated="turnoff", suspect="turnoff", suspect_adu={"C11": 26000.0}),
    gains="ptc",
    gain_correction=True,
    read_noise="ptc",
    crosstalk=CrosstalkConfig(terms="quadratic"),
    amp_noise_threshold_e=25.0,
    linearity=True,
    deferred_charge=True,
    bias=True,
    dark=True,
    defects=True,
    flat=True,
)
BOX = {d: CAMERA.detectors[d].amps[0].data for d in range(4)}


@pytest.fixture(scope="module")
def calibs():
    return calibrations()


@pytest.fixture(scope="module")
def frames():
    return bright_raw()


@pytest.fixture(scope="module")
def whole(frames, calibs):
    return isr(frames[0], calibs, FULL).dataset().compute(scheduler="sync")


def deferred(rows, c, amp):
    """reference/isr.md 2.7, column by column; rows (y, x) float64 from the prescan on."""
    a, tau = c["drift_scale"][amp], c["decay_time"][amp]
    shift = [a * np.maximum(rows[:, max(n - 14, 0) : n + 1], 0)[:, ::-1] for n in range(rows.shape[1])]
    s1 = rows - np.stack([(v * np.exp(-np.arange(v.shape[1]) / tau)).max(axis=1) for v in shift], 1)
    r = np.exp(-1 / c["trap_emission_time"][amp])
    f = np.minimum(c["trap_size"][amp], c["trap_coefficients"][amp, 0] * np.maximum(s1, 0))
    out = s1.copy()
    for n in range(rows.shape[1]):
        held = np.max([f[:, n - 1 - j] * r**j for j in range(6) if n - 1 - j >= 0] or [np.zeros(len(f))], axis=0)
        captured = np.maximum(0, f[:, n] - held * r)
        out[:, n] = s1[:, n] - (1 - c["global_cti"][amp]) * (held * (1 - r) - captured)
    return out


def expected(raw, calibs, d, dark_time=3.0):
    """Image, SAT and crosstalk received (16, h, w) of one detector, in float64."""
    box = BOX[d]
    c = {name: {k: v.values[d] for k, v in ds.items()} for name, ds in calibs.items()}
    gain = (c["ptc"]["gain"] * c["gain_correction"]["adjustment"])[:, None, None]
    adu = raw[:, :, box.x].astype("f8") - PEDESTAL
    electrons = adu * gain
    linear = np.where(np.isfinite(c["crosstalk"]["linear"]), c["crosstalk"]["linear"], 0)
    quadratic = np.where(linear != 0, c["crosstalk"]["quadratic"], 0)
    received = np.einsum("st,syx->tyx", linear, electrons) + np.einsum("st,syx->tyx", quadratic, electrons**2)
    v = electrons - received
    v = v[:, : box.height] - np.median(v[:, 53:61], axis=1)[:, None]  # rows of the parallel overscan
    v /= gain
    poly = c["linearizer"]["coefficients"][:, :, None, None]
    v = (v + poly[:, 0] * v**2 + poly[:, 1] * v**3) * gain
    padded = np.pad(v, ((0, 0), (0, 0), (box.x0, 0)))
    v = np.stack([deferred(padded[a], c["cti"], a) for a in range(16)])[:, :, box.x0 :]
    area = np.s_[:, : box.height, : box.width]
    scale = dark_time / 2.0
    v = v - c["bias"]["image"][area] - scale * c["dark"]["image"][area].astype("f8")
    return v / c["flat"]["image"][area].astype("f8"), adu[:, : box.height] >= 30000, received[:, : box.height], c


def expected_variance(image, c, d, dark_time=3.0):
    """Variance (16, h, w) of an image after its flat, in float64: light, read noise and the three calibrations."""
    area = np.s_[:, : BOX[d].height, : BOX[d].width]
    planes = {k: {n: c[k][n][area].astype("f8") for n in ("image", "variance")} for k in ("bias", "dark", "flat")}
    flat = planes["flat"]["image"]
    v = image.astype("f8") * flat
    before = v + c["ptc"]["noise"].astype("f8")[:, None, None] ** 2 + planes["bias"]["variance"]
    before += (dark_time / 2.0) ** 2 * planes["dark"]["variance"]
    return before / flat**2 + v**2 * planes["flat"]["variance"] / flat**4


@pytest.mark.parametrize("d", range(4))
def test_image_and_variance_in_documented_order(frames, calibs, whole, d):
    """E2V and ITL; checks 3 (crosstalk [source, target]) and 7 (variance to 1e-6) of reference/isr.md 7."""
    for e in range(2):
        image, _, _, c = expected(frames[0].values[e, d], calibs, d)
        area = np.s_[e, d, :, : BOX[d].height, : BOX[d].width]
        np.testing.assert_allclose(whole["image"].values[area], image, rtol=2e-6, atol=0.02)
        # of the image that came out: the least term, 0.7 of 120 000, is 30 times the tolerance
        variance = expected_variance(whole["image"].values[area], c, d)
        np.testing.assert_allclose(whole["variance"].values[area], variance, rtol=2e-7)


def test_masks(frames, calibs, whole):
    for d in range(4):
        _, saturated, received, c = expected(frames[0].values[0, d], calibs, d)
        area = np.s_[:, : BOX[d].height, : BOX[d].width]
        mask = whole["mask"].values[0, d][area]
        np.testing.assert_array_equal((mask & SAT) != 0, saturated)
        differ = ((mask & SUSPECT) != 0) ^ saturated
        c11 = CAMERA.amp_names.index("C11")
        assert not np.delete(differ, c11, axis=0).any()
        assert differ[c11].any()
        np.testing.assert_array_equal((mask & BAD) != 0, c["defects"]["mask"][area] != 0)
        pedestal = whole["crosstalk_pedestal"].values[0, d]
        np.testing.assert_allclose(pedestal, np.median(received[:, :8], axis=(1, 2)), rtol=1e-5)
        far = np.abs(received - pedestal[:, None, None])
        clear = np.abs(far - 1) > 0.01
        np.testing.assert_array_equal(((mask & CROSSTALK) != 0)[clear], (far >= 1)[clear])
    assert (whole["mask"].values[:, 2:, :, 49:] == NO_DATA).all()
    assert (whole["amp_status"] == 0).all()
    assert whole.attrs["units"] == "electron"


@pytest.mark.parametrize("rows", [1, 7, 16, 64])
def test_slabs_do_not_change_a_bit(calibs, rows):
    """reference/isr.md 7.8, with noise and dither and everything on."""
    raw, _ = tiny_raw(2, pattern=200)
    config = FULL.model_copy(update={"dither": "symmetric", "read_noise": "empirical"})
    expect = isr(raw, calibs, config).dataset().compute(scheduler="sync")
    xr.testing.assert_identical(isr(raw, calibs, config).dataset(slab_rows=rows).compute(scheduler="sync"), expect)


def test_calibrations_in_any_blocks_and_order(frames, calibs, whole):
    other = {k: v.isel(detector=[3, 1, 0, 2]).chunk(detector=1) for k, v in calibs.items()}
    again = isr(frames[0], other, FULL).dataset(slab_rows=32).compute(scheduler="threads")
    xr.testing.assert_identical(again, whole)


@pytest.mark.parametrize("d", [0, 2])
@pytest.mark.parametrize("pair", [("C02", "C15"), ("C15", "C02"), ("C00", "C07")])
def test_one_bright_pixel_reaches_one_target(d, pair):
    """reference/isr.md 7.3: same readout position, sources and targets of either half."""
    source, target = (CAMERA.amp_names.index(name) for name in pair)
    pixels = np.full((1, 1, 16, 64, 56), PEDESTAL, "i4")
    dirty = pixels.copy()
    dirty[0, 0, source, 21, 17] += 10000
    linear = np.zeros((1, 16, 16))
    linear[0, source, target] = 1e-3
    calib = xr.Dataset({"linear": (("detector", "source", "target"), linear)}, {"detector": [d]}, {"units": "adu"})
    config = IsrConfig(dither="none", crosstalk=CrosstalkConfig(terms="linear"))
    clean, got = (isr(raw_array(p, [d]), {"crosstalk": calib}, config).dataset().compute() for p in (pixels, dirty))
    change = (got["image"] - clean["image"]).values[0, 0]
    x0 = BOX[d].x0
    assert change[source, 21, 17 - x0] == 10000
    assert change[target, 21, 17 - x0] == pytest.approx(-10)
    change[[source, target], 21, 17 - x0] = 0
    assert not np.nan_to_num(change).any()
    flagged = np.argwhere(got["mask"].values[0, 0] & CROSSTALK)
    assert flagged.tolist() == [[target, 21, 17 - x0]]


def test_crosstalk_of_the_parallel_overscan_comes_off_first():
    """A source bright in the parallel overscan must not leave columns in its target."""
    pixels = np.full((1, 1, 16, 64, 56), PEDESTAL, "i4")
    pixels[0, 0, 4, 50:, 20:30] += 90
    linear = np.zeros((1, 16, 16))
    linear[0, 4, 6] = 0.02
    calib = xr.Dataset({"linear": (("detector", "source", "target"), linear)}, {"detector": [0]}, {"units": "adu"})
    config = IsrConfig(dither="none", crosstalk=CrosstalkConfig(terms="linear"))
    got = isr(raw_array(pixels, [0]), {"crosstalk": calib}, config).dataset().compute()
    # the target's own strip held -0.02 * 90 after the correction, and that is what is taken off its columns
    np.testing.assert_allclose(got["image"].values[0, 0, 6, :, 16:26], 1.8, rtol=1e-6)


def spline(v, strength=1.0):
    return strength * 20 * np.sin(v / 5000)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_double_spline_undoes_what_was_injected(gain):
    """reference/isr.md 7.4: residual below 0.01 of the spline; the gain changes nothing in adu."""
    level = np.linspace(500, 30000, 16)
    nodes = np.linspace(0, 40000, 60)
    pixels = np.full((1, 1, 16, 64, 56), PEDESTAL, "i4")
    # v + f(v) read as u: the calibration subtracts f as a function of u
    u = level + spline(level)
    for _ in range(20):
        u = level + spline(u)
    pixels[0, 0, :, :50, 4:40] += np.round(u).astype("i4")[:, None, None]
    coefficients = np.concatenate([[60, 0], nodes, spline(nodes)])
    values = {"type": (("detector", "amp"), [["DoubleSpline"] * 16]),
              "coefficients": (("detector", "amp", "c"), np.tile(coefficients, (1, 16, 1)))}  # fmt: skip
    linearizer = xr.Dataset(values, {"detector": [0]}, {"units": "adu"})
    ptc = xr.Dataset({"gain": (("detector", "amp"), np.full((1, 16), gain))}, {"detector": [0]})
    config = IsrConfig(dither="none", gains="ptc", linearity=True)
    image = (
        isr(raw_array(pixels, [0]), {"linearizer": linearizer, "ptc": ptc}, config)
        .dataset()
        .compute()["image"]
        .values[0, 0]
    )
    exact = np.round(u) - spline(np.round(u))
    np.testing.assert_allclose(image / gain, np.broadcast_to(exact[:, None, None], image.shape), atol=0.01)
    assert np.abs(image / gain - level[:, None, None]).max() < 0.51  # digitisation


def test_gain_sources_and_units(frames, calibs):
    off = {"enabled": False}
    kw = {"dither": "none", "parallel_overscan": off}
    adu = isr(frames[0], config=IsrConfig(**kw)).dataset().compute()["image"]
    ptc = calibs["ptc"]["gain"]
    for settings, gain in (
        ({"gains": "ptc"}, ptc),
        ({"gains": "linearizer"}, calibs["linearizer"]["input_gain"]),
        ({"gains": "ptc", "gain_correction": True}, ptc * calibs["gain_correction"]["adjustment"]),
    ):
        got = isr(frames[0], calibs, IsrConfig(**settings, **kw)).dataset().compute()
        np.testing.assert_allclose(got["image"], adu * gain, rtol=1e-6)
        assert got.attrs["units"] == "electron"


def test_deferred_charge_in_adu_uses_the_gain_of_its_calibration(frames, calibs):
    kw = {"dither": "none", "deferred_charge": True}
    adu = isr(frames[0], calibs, IsrConfig(**kw)).dataset().compute()
    electron = isr(frames[0], calibs, IsrConfig(gains="ptc", **kw)).dataset().compute()
    np.testing.assert_allclose(electron["image"], adu["image"] * calibs["ptc"]["gain"], rtol=1e-5, atol=0.05)


def test_amp_checks(calibs):
    raw, _ = tiny_raw(1, read_noise=5.0)
    pixels = raw.values.copy()
    rng = np.random.default_rng(1)
    pixels[0, 1, 7] += np.round(rng.normal(0, 40, (64, 56))).astype("i4")  # noisy
    pixels[0, 2, 3, BOX[2].y, BOX[2].x] = 200_000  # saturated all over
    ptc = calibs["ptc"].copy(deep=True)
    ptc["gain"][0, 4] = np.nan
    ptc["noise"][0, 5] = 26.0
    ptc["overscan_median_level"] = ptc["gain"] * 0 + 20000 + 100 * np.arange(16)
    ptc["overscan_median_sigma"] = ptc["gain"] * 0 + 1.0
    ptc["overscan_median_level"][3, 2] += 500
    config = FULL.model_copy(
        update={"overscan_level_threshold": 100.0, "bad_amps": (f"{CAMERA.detectors[3].full_name}_C10",)}
    )
    result = isr(raw.copy(data=pixels), {**calibs, "ptc": ptc}, config).dataset().compute(scheduler="sync")
    status = result["amp_status"].values[0]
    S = AmpStatus
    want = {(1, 7): S.NOISY, (2, 3): S.SATURATED, (0, 4): S.LISTED | S.LINEARITY, (0, 5): S.NOISY,
            (3, 2): S.OVERSCAN_LEVEL, (3, 0): S.LISTED}  # fmt: skip
    assert {tuple(k): S(int(status[tuple(k)])) for k in np.argwhere(status).tolist()} == want
    for d in range(4):
        area = result["mask"].values[0, d, :, : BOX[d].height, : BOX[d].width]
        whole_bad = ((area & BAD) != 0).all(axis=(1, 2))
        assert set(np.flatnonzero(whole_bad)) == {a for e, a in want if e == d}
    good = np.isfinite(result["image"].values[0, 0, np.delete(np.arange(16), 4)])
    assert good.all()  # the amp without gain spreads nothing
    assert (result["mask"].values[0, 0, 4] & UNMASKEDNAN).all()


def test_flat_without_light(frames, calibs):
    flat = calibs["flat"].copy(deep=True)
    flat["mask"][0, 3, 5, 6], flat["image"][0, 3, 5, 6] = NO_DATA, 0.0
    flat["image"][0, 3, 7, 8] = 0.0
    got = isr(frames[0], {**calibs, "flat": flat}, FULL).dataset().compute()
    pixel = {k: got[k].values[0, 0, 3] for k in ("image", "variance", "mask")}
    assert (pixel["image"][5, 6], pixel["variance"][5, 6]) == (0, 1e10)
    assert pixel["mask"][5, 6] & (NO_DATA | UNMASKEDNAN) == NO_DATA
    assert np.isnan(pixel["image"][7, 8])
    assert pixel["mask"][7, 8] & (BAD | UNMASKEDNAN) == BAD | UNMASKEDNAN


def test_negative_variance(calibs):
    raw, _ = tiny_raw(1, read_noise=1.0)
    pixels = raw.values.copy()
    pixels[0, 0, 3, 10, 20] -= 400
    config = IsrConfig(dither="none", mask_negative_variance=True)
    got = isr(raw.copy(data=pixels), {}, config).dataset().compute()
    np.testing.assert_array_equal(got["mask"] & BAD != 0, got["variance"] <= 0)
    assert got["mask"].values[0, 0, 3, 10, 16] == BAD


def test_graph_stays_lean_and_lazy(frames, calibs):
    with dask.config.set(scheduler=refuse):
        corrected = isr(frames[0], calibs, FULL)
        by_slab, by_exposure = corrected.by_slab(16), corrected.by_exposure()
    n_exposure, n_detector, n_slab, n_planes = 2, 4, 4, 10
    planes = n_planes * n_detector
    assert task_count(by_slab) <= n_detector * (n_exposure + n_slab) + planes * (n_slab + 1) + 12
    assert task_count(by_exposure) <= n_exposure * n_detector + 2 * planes + 12


def without(calibs, name, variable=None):
    return {k: v.drop_vars(variable) if k == name else v for k, v in calibs.items() if variable or k != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: without(c, "ptc"), "no ptc was given"),
        (lambda c: without(c, "ptc", "turnoff"), "the ptc has no variable turnoff"),
        (lambda c: without(c, "crosstalk", "linear"), "the crosstalk has no variable linear"),
        (lambda c: without(c, "dark"), "no dark was given"),
        (lambda c: without(c, "defects"), "no defects was given"),
        (lambda c: c | {"cti": c["cti"].assign_attrs(units="adu")}, "the cti is in adu, expected .* electron"),
        (lambda c: c | {"dark": c["dark"].assign_attrs(units="adu")}, "the dark is in adu, the exposures .* electron"),
        (lambda c: c | {"flat": c["flat"].assign_attrs(units="adu")}, "the flat is in adu"),
        (lambda c: c | {"dark": c["dark"].assign_attrs(dark_time_s=0.0)}, r"dark_time_s'\] = 0.0"),
        (lambda c: c | {"linearizer": c["linearizer"].isel(detector=[0, 2])}, "the linearizer has no detector 1, 3"),
        (lambda c: c | {"flat": c["flat"].isel(detector=[0, 2, 3])}, "the flat has no detector 1"),
    ],
)
def test_wrong_calibrations_are_refused(frames, calibs, change, message):
    with pytest.raises(ConfigError, match=message):
        isr(frames[0], change(calibs), FULL)


@pytest.mark.parametrize("settings", [{"bad_amps": ["C10"]}, {"saturation": {"saturated_adu": {"C99": 1e5}}}])
def test_unknown_amps_are_refused(frames, settings):
    with pytest.raises(ConfigError, match="TinyCam has no amp"):
        isr(frames[0], config=IsrConfig.model_validate(settings))


def test_unknown_dark_time_names_the_exposure(frames, calibs):
    raw = frames[0].assign_coords(dark_time=("exposure", [3.0, np.nan]))
    with pytest.raises(DataError, match=f"exposure {DAY + 2}: its dark time is nan"):
        isr(raw, calibs, FULL)


@pytest.mark.parametrize(
    "settings",
    [
        {"crosstalk": {"terms": "quadratic"}},
        {"amp_noise_threshold_e": 25.0},
        {"gain_correction": True},
        {"saturation": {"saturated": "turnoff"}, "gains": "nominal"},
    ],
)
def test_settings_that_contradict(settings):
    with pytest.raises(ValueError, match="gains|gain_correction"):
        IsrConfig.model_validate(settings)
