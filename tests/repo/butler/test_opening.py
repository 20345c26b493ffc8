"""Opening of products and records."""

import json
import subprocess
import sys

import numpy as np
import pytest

from camcal_dask.errors import RepoError
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage import files
from tests.repo.conftest import CAMERA, make_bias, pixels

BIASES = "exposure.observation_type='bias'"

SCRIPT = """
import sys, json
from astropy.time import Time
from lsst.daf.butler import Butler
b = Butler.from_config(sys.argv[1])
raw = b.get("raw", instrument="TinyCam", exposure=2026081200003, detector=2, collections="TinyCam/raw/all")
bias = b.get("bias", instrument="TinyCam", exposure=2026081200003, detector=1, collections="TinyCam/calib")
run = b.get("bias", instrument="TinyCam", detector=3, collections="u/me/b2")
lazy = [type(d[n].variable._data).__name__ != "ndarray" for d, n in ((raw, "raw"), (bias, "image"), (run, "image"))]
values = [float(bias.image[0, 0, 0]), float(run.image[0, 0, 0])]
print(json.dumps([lazy, int(raw.raw[4, 5, 6]), raw.detector_name.item(), list(bias.image.dims), values]))
"""


def test_open_by_run(tiny_repo):
    repo = tiny_repo.repo
    make_bias(repo, "u/me/b1", 1.0, detectors=(0, 1))
    make_bias(repo, "u/me/b2", 2.0, detectors=(1, 3))
    np.testing.assert_allclose(repo.open("bias", run="u/me/b2")["image"].mean(["amp", "y", "x"]), [2.1, 2.3], rtol=1e-6)
    both = repo.open("bias", collections=["u/me/b1", "u/me/b2"])
    np.testing.assert_allclose(both["image"].mean(["amp", "y", "x"]), [1.0, 1.1, 2.3], rtol=1e-6)
    assert repo.open("bias", run="u/me/b2", detector=3)["detector"].values.tolist() == [3]
    with pytest.raises(RepoError, match=r"no bias in u/me/b2 for detectors \[2\].*u/me/b1, u/me/b2"):
        repo.open("bias", run="u/me/b2", detector=[1, 2])
    with pytest.raises(RepoError, match="no dataset type 'bais'; did you mean 'bias'"):
        repo.open("bais", run="u/me/b2")
    with pytest.raises(RepoError, match="no collection 'u/me/b3'; did you mean 'u/me/b"):
        repo.open("bias", run="u/me/b3")
    with pytest.raises(RepoError, match="specify where to search"):
        repo.open("bias")


def test_statistics_and_run_records(tiny_repo):
    repo = tiny_repo.repo
    uri = f"{repo.root}/cubes/u/me/v1/verifyBias.zarr"
    cubes.write_dataset(uri, repo.raws(BIASES)["mjd"].to_dataset(name="when"))
    repo.register_product("u/me/v1", "verifyBias", uri, [{"instrument": CAMERA}])
    assert repo.open("verifyBias", run="u/me/v1")["when"].shape == (6,)
    path = f"{repo.root}/cubes/u/me/v1/runRecord.json"
    with pytest.raises(RepoError, match="no such file"):
        repo.register_product("u/me/v1", "runRecord", path, [{"instrument": CAMERA}])
    files.write_json(path, {"run": 1})
    repo.register_product("u/me/v1", "runRecord", path, [{"instrument": CAMERA}])
    assert repo.butler.get("runRecord", instrument=CAMERA, collections="u/me/v1") == {"run": 1}
    assert "when" in repo.butler.get("verifyBias", instrument=CAMERA, collections="u/me/v1")


def test_a_plain_butler_in_another_process_returns_lazy_datasets(certified_reader):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, certified_reader.root], capture_output=True, text=True, check=True
    )
    lazy, raw, name, dims, values = json.loads(done.stdout)
    assert lazy == [True, True, True]
    assert raw == pixels(2026081200003, 2)[4, 5, 6]
    assert (name, dims) == ("R01_S00", ["amp", "y", "x"])
    np.testing.assert_allclose(values, [1.1, 2.3], rtol=1e-6)
