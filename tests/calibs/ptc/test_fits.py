"""The FITS layout of photon transfer curves: as listed, and back without loss."""

import os

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from scipy.stats import norm

from camcal_dask.calibs.ptc.fits import COLUMNS, read_ptc, write_ptc
from camcal_dask.calibs.ptc.solve import PtcSolveConfig, solve
from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument
from tests.calibs.ptc.ptc_curves import PAIR, means, partial, truth

LSSTCAM = get_instrument("LSSTCam")
DETECTOR = LSSTCAM.detectors[94]
FIRST = ["AMPLIFIER_NAME", "PTC_FIT_TYPE", "COV_MATRIX_SIDE", "COV_MATRIX_SIDE_FULL_COV_FIT", "INPUT_EXP_ID_PAIRS"]
NOT_IN_THE_LAYOUT = {"a_matrix_err", "bad_reason", "lags"}


@pytest.fixture
def pairs():
    """Every variable of an extraction, 12 pairs, 16 amps, 3 lags; one amp is dead."""
    rng = np.random.default_rng(0)
    planes = [truth(side=3, gain=g) for g in np.linspace(1.2, 1.7, 16)]
    data = partial(planes, means(12, gain=1.0), rng).assign_coords(amp=[amp.name for amp in DETECTOR.amps])
    names = ("raw_delta", "row_mean_variance", "pair_gain", "amp_offset", "hist_var", "hist_chi2_dof", "ks_pvalue")
    data = data.assign({name: (PAIR, rng.uniform(0.1, 1, data["raw_mean"].shape)) for name in names})
    n_pixel = np.broadcast_to(926064 - np.arange(16), data["raw_mean"].shape)
    one = {name: ("pair", rng.uniform(size=12)) for name in ("photo_charge", "photo_charge_delta", "aux_TEMPAVG")}
    data = data.assign(
        n_pixel=(PAIR, n_pixel.copy()),
        aux_FILTBAND=("pair", list("rrrrrriiiiii")),
        mjd=("pair", 6e4 + rng.random(12)),
        **one,
    )
    data["raw_mean"][:, 0, 5] = np.nan
    data["valid"][:, 0, 5] = False
    return data.set_coords(["exposure_1", "exposure_2", "exposure_time", "mjd"]).assign_attrs(instrument="LSSTCam")


def same(read, written):
    """Every variable that was written comes back, in any order of dimensions."""
    for name in set(written.variables) - NOT_IN_THE_LAYOUT:
        expected = written[name].transpose(*read[name].dims)
        if expected.dtype.kind in "fib":
            np.testing.assert_array_equal(read[name], expected, err_msg=name)
        else:
            assert read[name].values.tolist() == expected.values.tolist()


@pytest.mark.parametrize("fit_type", ["FULLCOVARIANCE", "FULLCOVARIANCE_NO_B", "EXPAPPROXIMATION", "POLYNOMIAL"])
def test_back_without_loss(tmp_path, pairs, fit_type):
    solved = solve(pairs, PtcSolveConfig(fit_type=fit_type, model_rolloff=True, covariance_lags=2))
    write_ptc(tmp_path / "ptc.fits", solved, DETECTOR)
    read = read_ptc(tmp_path / "ptc.fits")
    same(read, solved)
    assert {k: read.attrs[k] for k in solved.attrs} == solved.attrs
    assert read["bad"].values[0].tolist() == [amp.name == DETECTOR.amps[5].name for amp in DETECTOR.amps]
    # Once more, header and all.
    write_ptc(tmp_path / "again.fits", read, DETECTOR, read.attrs["cards"])
    assert (tmp_path / "again.fits").read_bytes() == (tmp_path / "ptc.fits").read_bytes()


def test_the_file_has_no_lags_that_no_amp_could_fit(tmp_path, pairs):
    """The product was laid out for three lags, the pairs of every amp allowed two."""
    solved = solve(pairs, PtcSolveConfig(fit_type="FULLCOVARIANCE", covariance_lags=2))
    write_ptc(tmp_path / "ptc.fits", solved.assign_attrs(covariance_lags=3), DETECTOR)
    read = read_ptc(tmp_path / "ptc.fits")
    assert read.attrs["covariance_lags"] == 2
    same(read, solved)


def test_partial_pairs_come_back_and_can_be_solved(tmp_path, pairs):
    files = []
    for k in range(pairs.sizes["pair"]):
        files.append(tmp_path / f"{k}.fits")
        write_ptc(files[-1], pairs.isel(pair=[k]), DETECTOR)
    read = [read_ptc(path) for path in files]
    same(read[3], pairs.isel(pair=[3]).assign_coords(pair=[0]))
    assert read[3].attrs["fit_type"] == "PARTIAL"
    together = xr.concat(
        read, "pair", combine_attrs="override", data_vars="minimal", coords="minimal", compat="override"
    )
    together = together.assign_coords(pair=pairs["pair"])
    np.testing.assert_array_equal(solve(together)["gain"], solve(pairs)["gain"])
    with fits.open(files[3]) as hdus:
        row = hdus[1].data[2]
        assert hdus[1].header["PTC_FIT_TYPE"] == row["PTC_FIT_TYPE"] == "PARTIAL"
        assert row["GAIN"] == pairs["pair_gain"].values[3, 0, 2]
        assert row["NOISE"] == pairs["noise_adu"].values[3, 0, 2]


def test_layout_is_the_one_listed(tmp_path, pairs):
    solved = solve(pairs, PtcSolveConfig(fit_type="FULLCOVARIANCE", covariance_lags=2))
    state = {"SEQNAME": "FP_E2V_2s", "SEQFILE": None, "CALIBDATE": "2026-08-12T01:02:03", "FILTER": "r_57"}
    write_ptc(tmp_path / "ptc.fits", solved, DETECTOR, state)
    with fits.open(tmp_path / "ptc.fits") as hdus:
        assert len(hdus) == 2
        assert hdus[0].data is None
        header, columns = hdus[1].header, hdus[1].columns
        aux = ["PTCAUX_TEMPAVG", "PTCAUX_FILTBAND"]
        assert columns.names[:-2] == FIRST + [column.name for column in COLUMNS]
        assert set(columns.names[-2:]) == set(aux)
        expected = {
            "AMPLIFIER_NAME": "3A", "PTC_FIT_TYPE": "14A", "COV_MATRIX_SIDE": "K", "INPUT_EXP_ID_PAIRS": "24K",
            "EXP_ID_MASK": "12L", "RAW_MEANS": "12D", "GAIN": "D", "PTC_FIT_PARS": "D", "A_MATRIX": "4D",
            "BAD_AMPS": "3A", "NPIXEL_COVARIANCES": "K", "COVARIANCES": "108D", "COVARIANCES_MODEL": "48D",
            "PTCAUX_FILTBAND": "12A",
        }  # fmt: skip
        assert {name: columns[name].format for name in expected} == expected
        assert columns["INPUT_EXP_ID_PAIRS"].dim == "(2,12)"
        assert columns["BAD_AMPS"].dim == "(3,1)"
        assert header["PCOUNT"] == 0
        assert not any(key.startswith("TUNIT") for key in header)
        cards = {
            "OBSTYPE": "PTC", "PTC_SCHEMA": "Gen3 Photon Transfer Curve", "PTC_VERSION": 2.6, "INSTRUME": "LSSTCam",
            "RAFTNAME": "R22", "SLOTNAME": "S11", "DETECTOR": 94, "DET_NAME": "R22_S11", "DET_SER": "E2V-CCD250-382",
            "SEQNAME": "FP_E2V_2s", "SEQFILE": "", "PTC_FIT_TYPE": "FULLCOVARIANCE",
            "CALIBCLS": "lsst.ip.isr.ptcDataset.PhotonTransferCurveDataset",
            "CALIB_ID": "instrument=LSSTCam raftName=R22 detectorName=S11 detector=94 filter=r_57 "
            "calibDate=2026-08-12T01:02:03",
        }  # fmt: skip
        assert {key: header[key] for key in cards} == cards
        data = hdus[1].data
        assert data["AMPLIFIER_NAME"].tolist() == [amp.name for amp in DETECTOR.amps]
        np.testing.assert_array_equal(data["INPUT_EXP_ID_PAIRS"][7][:, 1], 2 * np.arange(12) + 1)
        covariance = data["COVARIANCES"][2].reshape(12, 3, 3)
        np.testing.assert_array_equal(covariance, solved["covariance"].values[0, 2])
        assert data["NOISE"][2] == solved["noise"].values[0, 2]


def test_no_bad_amp_is_an_empty_column(tmp_path, pairs):
    pairs = pairs.assign(raw_mean=pairs["raw_mean"].fillna(pairs["raw_mean"].isel(amp=4)), valid=pairs["valid"] | True)
    write_ptc(tmp_path / "ptc.fits", solve(pairs), DETECTOR)
    with fits.open(tmp_path / "ptc.fits") as hdus:
        assert hdus[1].columns["BAD_AMPS"].dim == "(3,0)"
        assert hdus[1].columns["PTC_FIT_PARS"].format == "3D"
    assert not read_ptc(tmp_path / "ptc.fits")["bad"].any()


def test_overscan_of_the_amps(tmp_path, pairs):
    """Scatter of a normal distribution from the median absolute deviation; zeros where there is nothing."""
    pairs = pairs.assign(overscan_median=(PAIR, np.random.default_rng(1).normal(2e4, 3, pairs["raw_mean"].shape)))
    solved = solve(pairs)
    write_ptc(tmp_path / "ptc.fits", solved, DETECTOR)
    with fits.open(tmp_path / "ptc.fits") as hdus:
        table = hdus[1].data
        used = table["OVERSCAN_MEDIAN_LIST"][2][table["EXP_ID_MASK"][2]]
        assert table["OVERSCAN_MEDIAN"][2] == np.median(used)
        expected = np.median(np.abs(used - np.median(used))) / norm.ppf(0.75)
        np.testing.assert_allclose(table["OVERSCAN_MEDIAN_SIGMA"][2], expected, rtol=1e-12)
        assert table["OVERSCAN_MEDIAN"][5] == table["OVERSCAN_MEDIAN_SIGMA"][5] == 0
    read = read_ptc(tmp_path / "ptc.fits")
    assert np.isnan(read["overscan_median_level"][0, 5])
    same(read, solved)


def test_pairs_are_sorted_by_mean(tmp_path, pairs):
    write_ptc(tmp_path / "ptc.fits", solve(pairs.isel(pair=slice(None, None, -1))), DETECTOR)
    read = read_ptc(tmp_path / "ptc.fits")
    np.testing.assert_array_equal(read["exposure_1"], pairs["exposure_1"])
    assert (np.diff(read["raw_mean"][0, 0]) > 0).all()


def test_what_cannot_be_written_or_read_is_named(tmp_path, pairs):
    with pytest.raises(DataError, match=r"detector 95 \(R22_S12\) .* detectors \[94\]"):
        write_ptc(tmp_path / "no.fits", pairs, LSSTCAM.detectors[95])
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(DataError, match=r"empty\.fits: no photon transfer curve"):
        read_ptc(tmp_path / "empty.fits")
    write_ptc(tmp_path / "old.fits", pairs, DETECTOR, {"PTC_VERSION": 1.4})
    with pytest.raises(DataError, match=r"version 1\.4 is too old"):
        read_ptc(tmp_path / "old.fits")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.fits")
    with pytest.raises(DataError, match=r"pipe\.fits: cannot be read \(Is a pipe"):
        read_ptc(tmp_path / "pipe.fits")
