"""Simulated flats with all slab-local effects, corrected with the true calibrations: what is left is noise."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.instruments import get_instrument
from camcal_dask.isr.blocks import isr
from camcal_dask.isr.config import CrosstalkConfig, IsrConfig
from camcal_dask.simulation import SimulationConfig, simulate_exposure
from camcal_dask.simulation.charge import lamp_electrons
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.headers import physical_filter
from camcal_dask.simulation.sensor import flat_image, make_sensor, pattern_image
from tests.isr.calibrations import PIXELS, table
from tests.isr.frames import DAY

CAMERA, DETECTORS = get_instrument("TinyCam"), (0, 1, 2, 3)
# Strong enough that an effect left in would be seen; correlations between pixels and rays are not of this chain.
EFFECTS = {
    "brighter_fatter": {"enabled": False},
    "cosmic_rays": {"enabled": False},
    "serial_cti": {"global_cti": 0.0, "trap_slope": 5e-4, "trap_size_e": 20.0, "drift_scale": 1e-3},
    "non_linearity": {"c2_per_e": -5e-7},
    "crosstalk": {"linear": 1e-3, "quadratic_per_e": 1e-9},
    "pattern": {"corner_adu": 800.0},
}
SIMULATED = SimulationConfig.model_validate(EFFECTS)
CONFIG = IsrConfig(
    gains="ptc",
    read_noise="ptc",
    crosstalk=CrosstalkConfig(terms="quadratic", iterations=2, mask=False),
    linearity=True,
    deferred_charge=True,
    bias=True,
    dark=True,
    flat=True,
)


def exact(images, units, **attrs):
    """Calibration image without noise of its own."""
    values = np.full((4, 16, *CAMERA.trimmed_shape), np.nan, "f4")
    for i, image in enumerate(images):
        values[i, :, : image.shape[1], : image.shape[2]] = image
    planes = {"image": (PIXELS, values), "variance": (PIXELS, np.zeros_like(values)),
              "mask": (PIXELS, np.zeros(values.shape, "i4"))}  # fmt: skip
    return xr.Dataset(planes, {"detector": list(DETECTORS)}, {"units": units, **attrs})


def dark_rate(sensor, config):
    """Dark current of every pixel [electron / s]."""
    box, defects = sensor.detector.amps[0].data, sensor.defects
    rate = np.full((16, box.height, box.width), config.dark.rate_e_per_s)
    amp, y, x = defects.hot.T
    np.add.at(rate, (amp, y - box.y0, x - box.x0), defects.hot_rate)
    for (amp, x), extra in zip(defects.columns, defects.column_rate, strict=True):
        rate[amp, :, x - box.x0] += extra
    return rate


def linearizer(sensor):
    """Table of u - v against u = v + c2 v^2 + c3 v^3 [electron]."""
    v = np.linspace(-2000, 90000, 60)
    u = [v + c2 * v**2 + c3 * v**3 for c2, c3 in sensor.non_linearity]
    return np.array([np.concatenate([[60, 0], row, row - v]) for row in u])


def truth(name, config=SIMULATED):
    """The true calibrations of the four sensors."""
    sensors = [make_sensor(config, "TinyCam", d) for d in DETECTORS]
    each = {k: np.array([getattr(s, k) for s in sensors]) for k in ("gain", "read_noise", "crosstalk", "cti")}
    cti = each["cti"]
    return {
        "ptc": table({"gain": each["gain"], "noise": each["read_noise"]}),
        "crosstalk": table(
            {"linear": each["crosstalk"], "quadratic": np.array([s.crosstalk_quadratic for s in sensors])}, "electron"
        ),
        "linearizer": table(
            {"type": np.full((4, 16), "DoubleSpline"), "coefficients": np.array([linearizer(s) for s in sensors])},
            "electron",
        ),
        "cti": table(
            {
                "global_cti": cti[..., 0],
                "trap_size": cti[..., 1],
                "trap_coefficients": cti[..., 2:3],
                "trap_emission_time": cti[..., 3],
                "drift_scale": cti[..., 4],
                "decay_time": cti[..., 5],
                "trap_kind": np.full((4, 16), "linear"),
            },
            "electron",
        ),
        "bias": exact(
            [pattern_image(config, "TinyCam", s.detector.id) * s.gain[:, None, None] for s in sensors], "electron"
        ),
        "dark": exact([dark_rate(s, config) for s in sensors], "electron", dark_time_s=1.0),
        "flat": exact([flat_image(config, "TinyCam", d, name) for d in DETECTORS], "1"),
    }


def raws(specs, config):
    """Raw pixels of all detectors, labelled as `isr` wants them."""
    pixels = np.array([[simulate_exposure("TinyCam", d, spec, config) for d in DETECTORS] for spec in specs])
    coords = {"exposure": DAY + 1 + np.arange(len(specs)), "detector": list(DETECTORS), "amp": list(CAMERA.amp_names),
              "dark_time": ("exposure", [spec.dark_time_s for spec in specs])}  # fmt: skip
    return xr.DataArray(pixels, coords, ("exposure", "detector", "amp", "y", "x"), attrs={"instrument": "TinyCam"})


@pytest.fixture(scope="module")
def simulated():
    specs = [
        ExposureSpec(type="flat", day_obs=20260812, seq_num=i + 1, exposure_time_s=8.0 * (1 + i)) for i in range(2)
    ]
    raw = raws(specs, SIMULATED)
    electrons = [lamp_electrons(SIMULATED, spec) for spec in specs]
    return raw, electrons, truth(physical_filter(CAMERA, specs[0]))


def pulls(simulated, config):
    raw, electrons, calibs = simulated
    result = isr(raw, calibs, config).compute(scheduler="sync")
    level = np.array(electrons)[:, None, None, None, None]
    return (result["image"].values.astype("f8") - level) / np.sqrt(result["variance"].values)


def test_residuals_are_noise(simulated):
    """Mean and scatter of the pulls within 5 standard errors, plus what the overscans' own noise adds."""
    pull = pulls(simulated, CONFIG)
    for d in DETECTORS:
        box = CAMERA.detectors[d].amps[0].data
        p = pull[:, d, :, : box.height, : box.width]
        assert np.isfinite(p).all()
        n = p[0].size
        for e in range(2):
            # the variance is taken from the noisy image: mean pull -1/2 sqrt(I), -0.004
            assert abs(p[e].mean() + 0.004) < 5 / np.sqrt(n)
            assert abs(p[e].std() - 1) < 5 / np.sqrt(2 * n) + 0.005
        by_amp = p.mean(axis=(2, 3)) * np.sqrt(box.height * box.width)
        assert np.abs(by_amp).max() < 5.5
        by_column = p.mean(axis=2) * np.sqrt(box.height)
        assert by_column.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "off",
    [
        {"crosstalk": CrosstalkConfig()},
        {"linearity": False},
        {"deferred_charge": False},
        {"bias": False},
        {"dark": False},
        {"flat": False},
    ],
    ids=lambda off: next(iter(off)),
)
def test_every_step_matters(simulated, off):
    """The test above sees each effect: without the step its pulls leave the limits."""
    pull = pulls(simulated, CONFIG.model_copy(update=off))
    box = CAMERA.detectors[0].amps[0].data
    p = pull[:, 0, :, : box.height, : box.width]
    n_row, n_all = box.height, p[0].size
    by_amp = np.abs(p.mean(axis=(2, 3))).max() * np.sqrt(box.height * box.width)
    by_column = np.abs(p.mean(axis=2) * np.sqrt(n_row)).max()
    everywhere = np.abs(p.mean(axis=(1, 2, 3)) + 0.004).max() * np.sqrt(n_all)
    assert max(by_amp, by_column, everywhere) > 7 or p.std() > 1.1
