"""Simulated clean data, from raws through ISR and combination to the verdict: nothing required fails, and no advice."""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.stack import CombineConfig, combine
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.isr.blocks import isr
from camcal_dask.isr.config import IsrConfig
from camcal_dask.simulate import SimulationConfig, bias_set, dark_set, flat_set, simulate_exposure
from camcal_dask.verify.judge import FAIL, NOT_EVALUATED, judge, summary
from camcal_dask.verify.product import measure_product
from camcal_dask.verify.statistics import measure

CAMERA = get_instrument("TinyCam")
DETECTORS, DAY, SECONDS, N_OTHER = (0, 1, 2, 3), 20260812, 15.0, 2
CLEAN = SimulationConfig.model_validate(
    {
        "crosstalk": {"enabled": False},
        "serial_cti": {"enabled": False},
        "non_linearity": {"enabled": False},
        "dark": {"hot_pixels_per_amp": 0.0, "hot_columns_per_amp": 0.0},
        "response": {"cold_pixels_per_amp": 0.0},
    }
)
"""Cosmic rays, brighter-fatter effect, structure of the bias, response and vignetting are on."""


def raws(specs, seconds):
    pixels = [[simulate_exposure("TinyCam", d, spec, CLEAN) for d in DETECTORS] for spec in specs]
    coords = {
        "exposure": DAY * 100_000 + np.array([s.seq_num for s in specs]),
        "detector": list(DETECTORS),
        "amp": list(CAMERA.amp_names),
        "exposure_time": ("exposure", np.full(len(specs), seconds)),
        "dark_time": ("exposure", np.full(len(specs), seconds)),
    }
    dims = ("exposure", "detector", "amp", "y", "x")
    return xr.DataArray(np.array(pixels), coords, dims, attrs={"instrument": "TinyCam"})


def made(raw, calibs, config, n, levels=None, **combined):
    chosen = raw.isel(exposure=slice(n))
    product = combine(isr(chosen, calibs, config, block="slab"), CombineConfig(**combined), levels=levels).compute()
    return product.assign_attrs(exposures=chosen["exposure"].values.tolist(), instrument="TinyCam")


def curve():
    """A ptc as a perfect fit has it: the simulator's gains are the camera model's to 0.2 %."""
    noise = [[(a.gain, a.read_noise * 1.17, -3e-6) for a in CAMERA.detectors[d].amps] for d in DETECTORS]
    variables = dict(zip(("gain", "noise", "a00"), np.moveaxis(np.array(noise), -1, 0), strict=True))
    coords = {"detector": list(DETECTORS), "amp": list(CAMERA.amp_names)}
    return xr.Dataset({name: (("detector", "amp"), values) for name, values in variables.items()}, coords)


@pytest.fixture(scope="module", params=[2, 6])
def verdicts(request):
    """Verdicts on bias, dark and flat of n inputs (flats: 5 at least), over these and two exposures more."""
    number = {"bias": request.param, "dark": request.param, "flat": max(request.param, 5)}
    with dask.config.set(scheduler="sync"):
        gains = {"gains": "nominal"}
        sets = {
            "bias": raws(bias_set(number["bias"] + N_OTHER, DAY), 0.0),
            "dark": raws(dark_set(number["dark"] + N_OTHER, SECONDS, DAY, 101), SECONDS),
            "flat": raws(flat_set(number["flat"] + N_OTHER, SECONDS, DAY, 201), SECONDS),
        }
        calibs = {}
        steps = {
            "bias": (IsrConfig(**gains), {}),
            "dark": (IsrConfig(**gains, bias=True), {"scale": "dark_time"}),
            "flat": (IsrConfig(**gains, bias=True, dark=True), {"scale": "levels"}),
        }
        found = {}
        for kind, (config, combined) in steps.items():
            levels = None
            if kind == "flat":
                image = isr(sets[kind].isel(exposure=slice(number[kind])), calibs, config)["image"]
                levels = image.median(["amp", "y", "x"]).mean("detector").compute().values.tolist()
            calibs[kind] = made(sets[kind], calibs, config, number[kind], levels, **combined)
            corrected = isr(sets[kind], calibs, config.model_copy(update={kind: True}))
            parts = [measure(corrected, calib=calibs[kind], calibs=calibs | {"ptc": curve()})]
            parts.append(measure_product(kind, calibs[kind]))
            found[kind] = judge(xr.merge(parts, compat="override").compute(), kind, known_bad=(), first_in_set=())
        return found


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_clean_data_fail_nothing_required_and_less_than_one_percent_of_the_advice(verdicts, kind):
    verdict = verdicts[kind]
    assert bool(verdict["run_success"]), summary(verdict)
    n_judged = n_failed = 0
    for prefix in ("", "detector_", "exposure_", "run_"):
        if f"{prefix}status" in verdict:
            advice = verdict[f"{prefix}status"].isel({f"{prefix}test": ~verdict[f"{prefix}test_required"].values})
            n_judged += int((advice != NOT_EVALUATED).sum())
            n_failed += int((advice == FAIL).sum())
    assert n_failed < 0.01 * n_judged, summary(verdict)
    assert verdict.attrs["policy_rubin"] == verdict.attrs["policy_majority"] == "accept"
