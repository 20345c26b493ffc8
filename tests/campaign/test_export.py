"""Export of products: files of every detector, with the state of the exposures behind them."""

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.calibs.ptc.fits import read_ptc
from camcal_dask.calibs.ptc.product import arrays_of, shared
from camcal_dask.calibs.ptc.solve import solve
from camcal_dask.campaign.export import export
from camcal_dask.cli import main
from camcal_dask.errors import ConfigError, RepoError
from camcal_dask.repo.cubes import products
from camcal_dask.repo.cubes.layout import template
from camcal_dask.repo.storage import files
from tests.calibs.ptc.ptc_curves import means, partial, truth

RUN = "u/exported"


@pytest.fixture
def solved(repo):
    """Curves of detectors 0 and 2, registered as a run of the biases' exposures."""
    camera = repo.instrument()
    pairs = partial([truth(side=2)] * 16, means(8, gain=1.0), np.random.default_rng(0), detectors=(0, 2))
    pairs = pairs.assign_coords(amp=list(camera.amp_names), mjd=("pair", 60000.25 + np.arange(8) / 24))
    curves = solve(pairs.set_coords(["exposure_1", "exposure_2", "exposure_time"]))
    uri = files.join(repo.root, "cubes", RUN, "ptc.zarr")
    if not repo.collections(RUN):
        exposures = repo.open("bias", run="u/clean").attrs["exposures"]
        attrs = {name: curves.attrs[name] for name in ("fit_type", "covariance_lags")} | {"exposures": exposures}
        products.create_product(uri, template("ptc", camera, attrs, shared(pairs, 3)))
        for detector in (0, 2):
            index = list(camera.detectors).index(detector)
            products.write_product(uri, index, arrays_of(curves.sel(detector=[detector]), 3), {})
        ids = [{"instrument": camera.name, "detector": d} for d in (0, 2)]
        repo.register_product(RUN, "ptc", uri, ids)
    return curves


def test_a_file_a_detector(repo, solved, tmp_path):
    written = export(repo, "ptc", tmp_path / "out", collections=[RUN], cards={"FILTER": "r_57"})
    names = ["ptc_TinyCam_R22_S00.fits", "ptc_TinyCam_R01_S00.fits"]
    assert [path.name for path in written] == names
    read = read_ptc(written[1])
    for name in ("gain", "noise", "used", "covariance"):
        np.testing.assert_array_equal(
            read[name].squeeze(), solved[name].sel(detector=2).transpose(*read[name].dims[1:])
        )
    cards = read.attrs["cards"]
    assert (cards["INSTRUME"], cards["DET_NAME"], cards["FILTER"]) == ("TinyCam", "R01_S00", "r_57")
    assert cards["CALIBDATE"] == "2023-02-25T06:00:00"
    assert cards["SEQNAME"]


def test_from_the_command_line(repo, solved, tmp_path):
    arguments = ["export", repo.root, "ptc", str(tmp_path), "-i", RUN, "--detectors", "R01_S00", "--card", "ODP=x"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "1 files in" in result.output
    assert read_ptc(tmp_path / "ptc_TinyCam_R01_S00.fits").attrs["cards"]["ODP"] == "x"


def test_what_cannot_be_exported(repo, solved, tmp_path):
    with pytest.raises(ConfigError, match="bias has no FITS layout here; valid: linearizer"):
        export(repo, "bias", tmp_path, collections=[RUN])
    with pytest.raises(RepoError, match="no linearizerPtc in"):
        export(repo, "linearizerPtc", tmp_path, collections=[RUN])
    with pytest.raises(RepoError, match=r"for detectors \[1\]"):
        export(repo, "ptc", tmp_path, collections=[RUN], detectors=[1])
