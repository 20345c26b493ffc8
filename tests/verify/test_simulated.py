"""Simulated raws through the real ISR and stack to a verdict: clean amps pass, the injected faults are named."""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.combined.combine import combine
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.isr.blocks import isr
from camcal_dask.isr.config import IsrConfig
from camcal_dask.simulation import SimulationConfig, bias_set, simulate_exposure
from camcal_dask.verify.judging.judge import failures, judge
from camcal_dask.verify.measuring.statistics import measure

FAULTS = {"dead": [(0, "C03")], "noisy": [(3, "C14")], "noise_factor": 2.0}
DETECTORS, N = (0, 1, 2, 3), 8


@pytest.fixture(scope="module")
def corrected():
    camera = get_instrument("TinyCam")
    config = SimulationConfig.model_validate(
        {"faults": {k: v if k == "noise_factor" else tuple(v) for k, v in FAULTS.items()}}
    )
    specs = bias_set(N, 20260812, contaminated_first=True)
    pixels = [[simulate_exposure("TinyCam", d, spec, config) for d in DETECTORS] for spec in specs]
    coords = {"exposure": 3026081200001 + np.arange(N), "detector": list(DETECTORS), "amp": list(camera.amp_names)}
    dims = ("exposure", "detector", "amp", "y", "x")
    raw = xr.DataArray(np.array(pixels), coords, dims, attrs={"instrument": "TinyCam"})
    bias = combine(isr(raw.isel(exposure=slice(1, None)), block="slab")).compute()
    return isr(raw, {"bias": bias}, IsrConfig(bias=True))


def test_faults_are_named_and_nothing_else(corrected):
    verdict = judge(measure(corrected).compute(), first_in_set=[3026081200001])
    table = failures(verdict, required_only=True)
    later = table[~table["first_in_set"]]
    found = {key: (set(rows["name"]), rows["exposure"].nunique()) for key, rows in later.groupby(["detector", "amp"])}
    names = {d: get_instrument("TinyCam").detectors[d].full_name for d in DETECTORS}
    assert found == {(names[0], "C03"): ({"NOISE_LOW"}, N - 1), (names[3], "C14"): ({"NOISE"}, N - 1)}
    first = verdict.isel(exposure=0)
    assert not first["amp_success"].any()
    assert verdict["exposure_success"].sum() == 0
    assert verdict.attrs["policy_rubin"] == "accept"


def test_the_isr_fuses_into_the_measurement(corrected):
    """Two tasks a block (correct, measure) and a constant; unfused it would be twenty."""
    (lazy,) = dask.optimize(measure(corrected))
    blocks = N * len(DETECTORS)
    assert len(dict(lazy.__dask_graph__())) < 3 * blocks + 100
