"""A verified bias of the tiny camera without pixels of exposures: statistics by formula, verdict by the real judge."""

import numpy as np
import xarray as xr

from camcal_dask.campaign.past.record import RunRecord
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.cubes import products, small
from camcal_dask.repo.cubes.layout import template
from camcal_dask.repo.storage import files
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.measuring.block import STATISTICS

CAMERA = get_instrument("TinyCam")
DIMS = ("exposure", "detector", "amp")
FIRST = 2026081200001
DEAD = ("R22_S00", "C12")


def make_verdict(n=5, bad_first=True, dead=True, detectors=(0, 1, 2, 3)):
    """Statistics and verdict; the first exposure is bad, one amp has half of its noise."""
    rng = np.random.default_rng(3)
    shape = (n, len(detectors), 16)
    noise = np.array([[a.read_noise for a in CAMERA.detectors[d].amps] for d in detectors])
    values = {name: np.zeros(shape) for name in STATISTICS}
    for name in ("noise", "cr_noise", "stdev"):
        values[name] = noise * (1 + 0.001 * rng.standard_normal(shape))
    values["mean"] = 0.02 * rng.standard_normal(shape)
    values["structure"] = 0.2 * values["noise"]
    values["n_pixel"] = values["n_good"] = np.full(shape, 1e6)
    if bad_first:
        values["mean"][0] = 40.0
    if dead:
        for name in ("noise", "cr_noise", "stdev"):
            values[name][:, 0, CAMERA.amp_names.index(DEAD[1])] *= 0.5
    variables = {
        n: (DIMS, v, {"units": STATISTICS[n].unit.replace("image", "electron"), "long_name": STATISTICS[n].doc})
        for n, v in values.items()
    }
    coords = {
        "exposure": FIRST + np.arange(n), "detector": list(detectors), "amp": list(CAMERA.amp_names),
        "mjd": ("exposure", 61264.0 + np.arange(n)),
        "first_in_set": ("exposure", np.arange(n) == 0),
    }  # fmt: skip
    statistics = xr.Dataset(variables, coords, {"instrument": "TinyCam", "units": "electron"})
    for name in ("noise_expected", "read_noise"):
        statistics[name] = (DIMS[1:], noise)
    for name in ("bin_error", "overscan_error"):
        statistics[name] = (DIMS[1:], np.full_like(noise, 0.01))
    statistics["gain"] = (DIMS[1:], np.ones_like(noise))
    residual = rng.normal(0, 1, (*shape, 4, 4))
    residual[:, 1, 3] += 100 * np.arange(16).reshape(4, 4)
    statistics["residual_binned"] = ((*DIMS, "y_bin", "x_bin"), residual)
    verdict = judge(statistics, "bias", role="verification")
    return statistics.merge(verdict, compat="override").assign_attrs(**verdict.attrs)


def make_bias(repo, run, value=7.0):
    """A combined bias of constant pixels; returns the dataset id of each detector."""
    uri = files.join(repo.root, "cubes", run, "bias.zarr")
    layout = template("bias", CAMERA, {"provenance_id": "p", "exposures": [FIRST]})
    products.create_product(uri, layout)
    arrays = {
        n: np.full(v.shape[1:], value if v.dtype.kind == "f" else 0, v.dtype) for n, v in layout.data_vars.items()
    }
    arrays["distribution"] = arrays["distribution"] * np.arange(1, 8)
    for index in range(4):
        products.write_product(uri, index, arrays)
    repo.register_dataset_type("bias", ("instrument", "detector"), True)
    ids = [{"instrument": "TinyCam", "detector": d} for d in range(4)]
    return dict(zip(range(4), repo.register_product(run, "bias", uri, ids), strict=True))


def add_verification(repo, run, verdict, uuids, candidate="bias"):
    """Write and register a verification of these datasets."""
    uri = files.join(repo.root, "cubes", run, "verifyBias.zarr")
    ids = {str(d): uuid for d, uuid in uuids.items()}
    small.write_dataset(uri, verdict.assign_attrs(candidate=[candidate], candidate_ids=ids), overwrite=True)
    repo.register_product(run, "verifyBias", uri, [{"instrument": "TinyCam"}])
    record = RunRecord(
        run=run,
        provenance_id="abc",
        command=["camcal", "run", "-c", "verify.x=<1>"],
        recipe={"product": "verifyBias"},
        where="exposure.day_obs = 20260812",
        inputs=["u/bias", "TinyCam/raw/all"],
        exposures=[FIRST],
        calibs={"bias": ids},
        versions={"python": "3"},
        host="h",
        user="somebody",
        cluster="local",
        started="2026-11-25T00:00:00+00:00",
        detectors=[0],
        state="done",
        counts={"done": 1},
    )
    path = files.join(repo.root, "cubes", run, "verifyBias-abc.json")
    files.write_json(path, {"run": run, "attempts": [record.plain()]})
    repo.register_product(run, "runRecord", path, [{"instrument": "TinyCam"}])
