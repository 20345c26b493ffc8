"""Round trip of what bends and breaks light: brighter-fatter, cosmic rays, saturation, all other effects on.

The simulator moves charge by the boundaries of its own kernel, amp by amp; the ISR convolves the assembled CCD.
"""

import numpy as np
import pytest
from scipy import ndimage

from camcal_dask.isr.blocks import isr
from camcal_dask.isr.config import SaturationConfig
from camcal_dask.kernels.pixels.masks import EDGE, SAT
from camcal_dask.simulation import SimulationConfig
from camcal_dask.simulation.brighter_fatter import shifts_of
from camcal_dask.simulation.charge import collect_charge, lamp_electrons
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.headers import physical_filter
from camcal_dask.simulation.sensor import make_sensor
from tests.isr.calibrations import table
from tests.isr.test_round_trip import CAMERA, CONFIG, DETECTORS, EFFECTS, raws, truth

STRENGTHS = EFFECTS | {
    "brighter_fatter": {"a00": -6e-6, "a10": 6e-7, "a01": 1.2e-6},
    "cosmic_rays": {"rate_per_cm2_s": 30.0, "charge_e_per_pixel": 4e4, "mean_length_pixel": 4.0},
    "dark": {"hot_pixels_per_amp": 0.0, "hot_columns_per_amp": 0.0},  # the simulator moves light only
    "full_well": {"scale": 0.4},  # near 78 000 electron: a ray of several pixels blooms
}
RAYS = SimulationConfig.model_validate(STRENGTHS)
QUIET = SimulationConfig.model_validate(STRENGTHS | {"cosmic_rays": {"enabled": False}})
RIGID = SimulationConfig.model_validate(
    STRENGTHS | {"cosmic_rays": {"enabled": False}, "brighter_fatter": {"enabled": False}}
)
FULL = CONFIG.model_copy(update={"saturation": SaturationConfig(saturated="turnoff"), "brighter_fatter": "astier23"})
SPECS = [ExposureSpec(type="flat", day_obs=20260812, seq_num=i + 1, exposure_time_s=12.0) for i in range(4)]
INSIDE = np.s_[8:-8, 8:-8]
"""Pixels whose neighbours, on both sides of every amp's edge, the simulator and the ISR both see."""


def boundary_shifts():
    """The simulator's shifts as the ISR's tables: outwards, of the pixel at lag (i, j)."""
    east, north = (s.astype("f8") for s in shifts_of(RAYS.brighter_fatter))
    r = north.shape[1]
    lags = np.arange(r + 1)
    a_e, a_w, a_n, a_s = (np.zeros((r + 1, r + 1)) for _ in range(4))
    a_e[:r], a_w[:] = east[lags[:r] + r], -east[lags - 1 + r]
    a_n[:, :r], a_s[:, 1:] = north[lags + r], -north[lags + r]
    a_s[:, 0] = a_n[:, 0]
    return table({k: np.stack([v] * 4) for k, v in {"aN": a_n, "aS": a_s, "aE": a_e, "aW": a_w}.items()})


@pytest.fixture(scope="module")
def calibs():
    calibs = truth(physical_filter(CAMERA, SPECS[0]), RAYS)
    full_well = np.array([make_sensor(RAYS, "TinyCam", d).full_well for d in DETECTORS])
    # reading bends 0.95 of the full well by 3 %
    calibs["ptc"]["turnoff"] = 0.95 * 0.96 * full_well / calibs["ptc"]["gain"]
    return calibs | {"brighter_fatter": boundary_shifts()}


def correct(config, calibs, method="astier23", specs=SPECS):
    """Corrected exposures of one simulated camera."""
    settings = FULL.model_copy(update={"brighter_fatter": method})
    return isr(raws(specs, config), calibs, settings).compute(scheduler="sync")


@pytest.fixture(scope="module")
def quiet(calibs):
    """Flats without rays."""
    return correct(QUIET, calibs)


def covariances(image):
    """Variance, C10 and C01 over the mean, of differences of consecutive flats; all amps of a detector."""
    level = image.mean(axis=(2, 3), keepdims=True)
    difference = (image[::2] - image[1::2] * (level[::2] / level[1::2])) / np.sqrt(2)
    difference -= difference.mean(axis=(2, 3), keepdims=True)
    c10 = (difference[..., 1:] * difference[..., :-1]).mean()
    c01 = (difference[..., 1:, :] * difference[..., :-1, :]).mean()
    return np.array([difference.var(), c10, c01]) / level.mean()


def test_brighter_fatter_is_undone(calibs, quiet):
    """Against the same photons in a camera whose pixel boundaries do not move."""
    rigid, bent = correct(RIGID, calibs, "none"), correct(QUIET, calibs, "none")
    for d in DETECTORS:
        truth, left, before = (r["image"].values[:, d].astype("f8")[..., *INSIDE] for r in (rigid, quiet, bent))
        assert (left - truth).std() < 0.03 * (before - truth).std()
        assert abs((left - truth).mean()) < 0.1
        effect, rest = covariances(before) - covariances(truth), covariances(left) - covariances(truth)
        assert effect[0] < -0.04
        assert (effect[1:] > [0.003, 0.006]).all()
        assert (np.abs(rest) < 0.05 * np.abs(effect)).all()


@pytest.fixture(scope="module")
def rays(calibs):
    """Two flats with rays, some of which saturate: corrected, and (detector: charge with and without the rays)."""
    charges = {}
    for d in DETECTORS:
        charges[d] = tuple(
            np.array([
                [collect_charge(config, "TinyCam", make_sensor(config, "TinyCam", d), spec, amp)
                 for amp in CAMERA.detectors[d].amps] for spec in SPECS[:2]
            ])
            for config in (RAYS, QUIET)
        )  # fmt: skip
    return correct(RAYS, calibs, specs=SPECS[:2]), charges


def near(flags, reach):
    """Flags grown by a Manhattan distance."""
    return ndimage.binary_dilation(flags, ndimage.generate_binary_structure(2, 1)[None, None], iterations=reach)


def test_full_pixels_and_no_others_are_saturated(rays):
    result, charges = rays
    n_full = 0
    for d in DETECTORS:
        charge = charges[d][0]
        share = charge / make_sensor(RAYS, "TinyCam", d).full_well[:, None, None]
        saturated = (result["mask"].values[:, d, :, : charge.shape[2], : charge.shape[3]] & SAT) != 0
        full = share > 0.99
        assert saturated[near(full, 2)].all()  # and what their charge has moved
        # in detector coordinates the growth goes on in the neighbouring amp: the rim proves nothing
        stray = saturated & ~near(share > 0.9, 2)
        assert not stray[..., *INSIDE].any()
        n_full += full.sum()
    assert n_full > 20


def test_rays_come_out_as_they_went_in(rays, quiet, calibs):
    """The ISR keeps their charge (masking is the stack's business), and the pixels around them."""
    result, charges = rays
    light = np.array([lamp_electrons(RAYS, spec) for spec in SPECS[:2]])[:, None, None, None]
    for d in DETECTORS:
        charge, without = charges[d]
        area = np.s_[:2, d, :, : charge.shape[2], : charge.shape[3]]
        usable = ((result["mask"].values[area] | quiet["mask"].values[area]) & (SAT | EDGE)) == 0
        usable &= ~near((result["mask"].values[area] & SAT) != 0, 6)
        flat = calibs["flat"]["image"].values[d][:, : charge.shape[2], : charge.shape[3]]
        more = (result["image"].values[area].astype("f8") - quiet["image"].values[area]) * flat
        assert usable.mean() > 0.4
        assert more[usable].sum() == pytest.approx((charge - without)[usable].sum(), rel=0.01)
        away = usable & ~near(charge - without > 1000, 6)
        assert np.median(np.abs(more[away])) < 0.05
        pull = (result["image"].values[area] - light)[away] / np.sqrt(result["variance"].values[area][away])
        assert abs(pull.mean()) < 5 / np.sqrt(pull.size) + 0.005
        assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size) + 0.01
