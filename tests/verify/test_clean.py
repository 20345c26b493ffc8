"""Simulated clean data, from raws through ISR and combination to the verdict: nothing required fails, and no advice.

The simulator as it is: hot and cold pixels, hot columns, cosmic rays, crosstalk, deferred charge, bent amplifiers,
brighter-fatter effect, structure of bias and response, a detector that is vignetted to a fifth.
"""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.combined.combine import CombineConfig, combine
from camcal_dask.calibs.combined.numbers import hot_mask
from camcal_dask.calibs.defects.config import DefectConfig
from camcal_dask.calibs.defects.find import find_defects
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.isr.blocks import isr
from camcal_dask.isr.config import IsrConfig
from camcal_dask.simulation import SimulationConfig, bias_set, dark_set, flat_set, simulate_exposure
from camcal_dask.verify.judging.judge import FAIL, NOT_EVALUATED, judge, summary
from camcal_dask.verify.measuring.statistics import measure
from camcal_dask.verify.verdict import verdict_of

CAMERA = get_instrument("TinyCam")
DETECTORS, DAY, SECONDS, N_OTHER = (0, 2), 20260812, 15.0, 2


def raws(specs, seconds, seed):
    config = SimulationConfig(seed=seed)
    pixels = [[simulate_exposure("TinyCam", d, spec, config) for d in DETECTORS] for spec in specs]
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


def of_defects(calibs):
    """Defects as the chain finds them in the three images, the frame of the CCD included."""
    images = [{"bias": calibs["bias"], "dark": calibs["dark"], "flat r": calibs["flat"]} for _ in DETECTORS]
    masks = []
    for d, named in zip(DETECTORS, images, strict=True):
        one = {name: product.sel(detector=d) for name, product in named.items()}
        found = find_defects(one, CAMERA.detectors[d], (16, *CAMERA.trimmed_shape), DefectConfig())
        masks.append(found.arrays["defects"].astype(np.int32))
    coords = {"detector": list(DETECTORS), "amp": list(CAMERA.amp_names)}
    return xr.Dataset({"mask": (("detector", "amp", "y", "x"), np.array(masks))}, coords)


def judged(kind, raw, calibs, config, **measured):
    corrected = isr(raw, calibs, config)
    candidate = calibs[kind]
    parts = [measure(corrected, calib=candidate, calibs=calibs | {"ptc": curve()}, **measured)]
    numbers = verdict_of(kind).numbers
    parts += [] if numbers is None else [numbers(candidate)]
    return judge(xr.merge(parts, compat="override", join="left").compute(), kind, known_bad=(), first_in_set=())


@pytest.fixture(scope="module", params=[(2, 1), (2, 2), (6, 3)], ids=lambda p: f"{p[0]} inputs, seed {p[1]}")
def verdicts(request):
    """Verdicts on bias, dark and flat of n inputs over these and two exposures more, before and with defects."""
    n, seed = request.param
    with dask.config.set(scheduler="sync"):
        sets = {
            "bias": raws(bias_set(n + N_OTHER, DAY), 0.0, seed),
            "dark": raws(dark_set(n + N_OTHER, SECONDS, DAY, 101), SECONDS, seed),
            "flat": raws(flat_set(n + N_OTHER, SECONDS, DAY, 201), SECONDS, seed),
        }
        configs = {
            "bias": IsrConfig(gains="nominal"),
            "dark": IsrConfig(gains="nominal", bias=True),
            "flat": IsrConfig(gains="nominal", bias=True, dark=True),
        }
        options = {"bias": {}, "dark": {"scale": "dark_time", "compare_halves": True}, "flat": {"scale": "levels"}}
        calibs, found = {}, {}
        for kind, config in configs.items():
            levels = None
            if kind == "flat":
                image = isr(sets[kind].isel(exposure=slice(n)), calibs, config)["image"]
                levels = image.median(["amp", "y", "x"]).mean("detector").compute().values.tolist()
            calibs[kind] = made(sets[kind], calibs, config, n, levels, **options[kind])
            hot = {"defects": hot_mask(calibs[kind])} if kind == "dark" else {}
            tested = config.model_copy(update={kind: True, "defects": bool(hot)})
            found[kind] = judged(kind, sets[kind], calibs | hot, tested)
        calibs["defects"] = of_defects(calibs)
        for kind, config in configs.items():
            tested = config.model_copy(update={kind: True, "defects": True, "interpolate": kind != "dark"})
            found[f"{kind} with defects"] = judged(kind, sets[kind], calibs, tested)
        return found


KINDS = ("bias", "dark", "flat")


@pytest.mark.parametrize("kind", [*KINDS, *(f"{kind} with defects" for kind in KINDS)])
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
    assert verdict.attrs["policy_majority"] == "accept"
    # Upstream's rule knows no vignetting: NOISE of a flat fails in all amps of one of these two detectors.
    assert kind.startswith("flat") or verdict.attrs["policy_rubin"] == "accept"
