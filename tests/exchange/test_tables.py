"""Tables of the LSST stack: layouts built by hand, a genuine file, and the way into a pipeline."""

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from camcal_dask.calibs.cti.fits import sorted_knots
from camcal_dask.campaign.importing import import_tables
from camcal_dask.cli import main
from camcal_dask.errors import ConfigError, DataError, RepoError
from camcal_dask.exchange.tables import read_table
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.config import CrosstalkConfig, IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.charge.cti import TRAP_KINDS, Trap, make_deferred_charge
from camcal_dask.repo.butler.repository import create_repo, open_repo
from tests.isr.frames import tiny_raw

CAMERA = get_instrument("TinyCam")
AMPS = list(CAMERA.amp_names)
N = len(AMPS)


def write(path, obstype, tables, detector=0, **cards):
    """File of tables {column: array}, each row by row; more cards in HDU 1."""
    hdus = [fits.PrimaryHDU()]
    for columns in tables:
        arrays = {name: np.asarray(v) for name, v in columns.items()}
        arrays = {name: v.astype("S") if v.dtype.kind == "U" else v for name, v in arrays.items()}
        dtype = [(name, v.dtype, v.shape[1:]) for name, v in arrays.items()]
        rows = np.empty(len(next(iter(arrays.values()))), dtype)
        for name, v in arrays.items():
            rows[name] = v
        hdus.append(fits.BinTableHDU(rows))
    values = {"OBSTYPE": obstype, "INSTRUME": "TinyCam", "DETECTOR": detector}
    for key, value in (values | {"DET_NAME": CAMERA.detectors[detector].full_name} | cards).items():
        hdus[1].header["HIERARCH " * (len(key) > 8) + key] = value
    fits.HDUList(hdus).writeto(path)
    return path


def crosstalk(path, detector=0, **cards):
    rng = np.random.default_rng(detector)
    linear, valid = rng.normal(0, 1e-3, (N, N)), rng.random((N, N)) > 0.1
    np.fill_diagonal(linear, 0)
    columns = {
        "CT_COEFFS": linear.reshape(1, -1), "CT_COEFFS_SQR": 1e-9 * linear.reshape(1, -1),
        "CT_VALID": valid.reshape(1, -1), "CT_FIT_GAINS": np.full((1, N), 1.5),
    }  # fmt: skip
    given = {"HAS_CROSSTALK": True, "NAMP": N, "CROSSTALK_VERSION": 1.2, "CROSSTALK_RATIOS_UNITS": "electron"}
    return write(path, "CROSSTALK", [columns], detector, **(given | cards)), linear, valid


def test_crosstalk_is_source_by_target(tmp_path):
    path, linear, valid = crosstalk(tmp_path / "x.fits")
    one = read_table(path, CAMERA)
    assert (one.dataset_type, one.detector.id, one.units) == ("crosstalk", 0, "electron")
    np.testing.assert_array_equal(one.arrays["linear"], linear)
    np.testing.assert_array_equal(one.arrays["valid"], valid)
    np.testing.assert_array_equal(one.arrays["fit_gain"], 1.5)
    old, *_ = crosstalk(tmp_path / "old.fits", CROSSTALK_VERSION=1.0)
    assert read_table(old, CAMERA).units == "adu"


def test_a_genuine_crosstalk_file(shared_data):
    (path,) = (shared_data / "raw/curated/lsstCam/crosstalk/r22_s11").glob("*.ecsv")
    one = read_table(path, get_instrument("LSSTCam"))
    assert (one.dataset_type, one.detector.full_name, one.units) == ("crosstalk", "R22_S11", "electron")
    # reference/raw_format.md 4.2
    assert one.arrays["linear"][0, 1] == pytest.approx(2.346e-4, abs=5e-8)
    assert one.arrays["linear"][1, 0] == pytest.approx(2.031e-4, abs=5e-8)


def cti(path, **cards):
    order = AMPS[::-1]  # rows are found by name
    rows = {"AMPLIFIER": order, "DRIFT_SCALE": np.arange(N) * 1e-5, "DECAY_TIME": np.full(N, 2.4),
            "GLOBAL_CTI": np.full(N, 1e-7), "INPUT_GAIN": np.full(N, 1.5)}  # fmt: skip
    nan = np.nan
    traps = {
        "AMPLIFIER": [AMPS[0], AMPS[1], AMPS[2], AMPS[2]],
        "SIZE": [10.0, 20.0, 3.0, 30.0], "EMISSION_TIME": [0.4, 0.5, 0.6, 0.7], "PIXEL": [1, 1, 1, 1],
        "TYPE": ["linear", "spline", "linear", "logistic"],
        "COEFFS": [[1e-3] + [nan] * 9, [100.0, 300, 200, 400, 1, 3, 2, 4, nan, nan], [0.0] + [nan] * 9,
                   [50.0, 0.1] + [nan] * 8],
    }  # fmt: skip
    return write(path, "CTI", [rows, traps], **({"CTI_VERSION": 1.3, "UNITS": "electron"} | cards))


def test_deferred_charge(tmp_path):
    found = read_table(cti(tmp_path / "c.fits"), CAMERA).arrays
    np.testing.assert_allclose(found["drift_scale"], np.arange(N)[::-1] * 1e-5)
    assert [TRAP_KINDS[k] for k in found["trap_kind"][:4]] == ["linear", "spline", "logistic", "none"]
    np.testing.assert_array_equal(found["trap_size"][:4], [10, 20, 30, 0])
    np.testing.assert_array_equal(found["trap_coefficients"][1], [100, 200, 300, 400, 1, 2, 3, 4])
    np.testing.assert_array_equal(found["trap_coefficients"][2, :2], [50, 0.1])
    with pytest.raises(DataError, match=r"c10.fits: CTI_VERSION 1.0 is too old"):
        read_table(cti(tmp_path / "c10.fits", CTI_VERSION=1.0), CAMERA)


def stack_interpolation(coefficients, s):
    """As the stack evaluates a table: sorted for the interpolation, outside the first and last knot of the file."""
    x, y = np.split(np.asarray(coefficients), 2)
    good = np.isfinite(x)
    x, y = x[good], y[good]
    order = np.argsort(x, kind="stable")
    inside = np.interp(s, x[order], y[order])
    return np.where(s < x.min(), y[0], np.where(s > x.max(), y[-1], inside))


def test_knots_in_the_order_of_the_image_mean():
    table = [100.0, 300, 200, 500, 400, 5, 3, 2, 9, 4]
    made = sorted_knots(np.array(table))
    x, y = np.split(made, 2)
    assert (np.diff(x) > 0).all()
    s = np.linspace(0, 700, 500)
    np.testing.assert_allclose(np.interp(s, x, y), stack_interpolation(table, s))
    make_deferred_charge([1e-4], [2.0], [1e-7], [Trap(10.0, 1.0, "spline", tuple(made))])  # rises: accepted
    with pytest.raises(DataError, match="even number"):
        sorted_knots(np.array(table[:-1]))


def test_kernels_of_the_detector_or_the_mean_of_its_amps(tmp_path):
    kernels = np.random.default_rng(1).normal(-1e-7, 1e-9, (N, 9))
    kernels[3] = 1.0  # invalid: does not count
    rows = {"AMPLIFIER": AMPS, "KERNEL": kernels, "VALID": np.arange(N) != 3}
    path = write(tmp_path / "amp.fits", "bfk", [rows], KERNEL_DX=3, KERNEL_DY=3, LEVEL="AMP")
    np.testing.assert_allclose(read_table(path, CAMERA).arrays["kernel"].ravel(), np.delete(kernels, 3, 0).mean(0))
    whole = {"DETECTOR": ["R22_S00"], "KERNEL": [np.arange(9.0)]}
    path = write(tmp_path / "whole.fits", "bfk", [rows, whole], KERNEL_DX=3, KERNEL_DY=3, LEVEL="DETECTOR")
    np.testing.assert_array_equal(read_table(path, CAMERA).arrays["kernel"], np.arange(9.0).reshape(3, 3))


def test_boundary_shifts_and_gain_correction(tmp_path):
    sides = {f"A_{side}": [np.arange(16.0) + 100 * i] for i, side in enumerate("NSEW")}
    one = read_table(write(tmp_path / "e.fits", "BF_DISTORTION_MATRIX", [sides]), CAMERA)
    assert one.dataset_type == "electroBfDistortionMatrix"
    np.testing.assert_array_equal(one.arrays["aE"], 200 + np.arange(16.0).reshape(4, 4))
    rows = {"AMP_NAME": AMPS[::-1], "GAIN_ADJUSTMENT": 1 + np.arange(N) / 100}
    one = read_table(write(tmp_path / "g.fits", "gainCorrection", [rows]), CAMERA)
    np.testing.assert_allclose(one.arrays["adjustment"], 1 + np.arange(N)[::-1] / 100)


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"INSTRUME": "LATISS"}, "it is of LATISS, the repository's camera is TinyCam"),
        ({"DETECTOR": 77}, "TinyCam has no detector 77"),
        ({"DET_NAME": "R22_S11"}, "it calls detector 0 R22_S11, but TinyCam calls it R22_S00"),
        ({"HAS_CROSSTALK": False}, "HAS_CROSSTALK is not set"),
        ({"OBSTYPE": "CROSTALK"}, "OBSTYPE = 'CROSTALK' .* did you mean 'CROSSTALK'"),
        ({"NAMP": 8}, "crosstalk of 8 amps, the detector has 16"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, cards, message):
    path, *_ = crosstalk(tmp_path / "x.fits", **cards)
    with pytest.raises(DataError, match=rf"x.fits: {message}"):
        read_table(path, CAMERA)


def test_no_table_at_all(tmp_path):
    path = tmp_path / "text.fits"
    path.write_text("no FITS file")
    with pytest.raises(DataError, match=r"text.fits: no table that can be read"):
        read_table(path, CAMERA)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Repository with the crosstalk of two detectors in u/x."""
    folder = tmp_path_factory.mktemp("imported")
    create_repo(str(folder / "repo"), "TinyCam").close()
    files = [str(crosstalk(folder / f"x{d}.fits", d)[0]) for d in (2, 0)]
    done = CliRunner().invoke(main, ["import", *files, str(folder / "repo"), "-o", "u/x"])
    assert done.exit_code == 0, done.output
    assert "crosstalk of 2 detectors in u/x: R22_S00" in done.output
    return folder


def test_an_imported_table_is_applied_like_one_of_ours(imported):
    with open_repo(imported / "repo") as repo:
        there = repo.open("crosstalk", run="u/x").load()
    assert there["detector"].values.tolist() == [0, 2]
    assert there.attrs["units"] == "electron"
    raw, _ = tiny_raw(1, pattern=2000)
    raw = raw.sel(detector=[0, 2])
    config = IsrConfig(gains="nominal", crosstalk=CrosstalkConfig(terms="quadratic"))
    got = isr(raw, {"crosstalk": there}, config).dataset().compute(scheduler="sync")["image"]
    direct = there.copy()
    for i, d in enumerate((0, 2)):
        _, linear, valid = crosstalk(imported / f"again{d}.fits", d)
        direct["linear"][i], direct["quadratic"][i], direct["valid"][i] = linear, 1e-9 * linear, valid
    np.testing.assert_array_equal(
        got, isr(raw, {"crosstalk": direct}, config).dataset().compute(scheduler="sync")["image"]
    )
    plain = isr(raw, {}, IsrConfig(gains="nominal")).dataset().compute(scheduler="sync")["image"]
    assert np.nanmax(np.abs(got - plain)) > 0.1


def test_importing_again_is_safe_and_mixtures_are_refused(imported):
    with open_repo(imported / "repo", writeable=True) as repo:
        again = [imported / f"x{d}.fits" for d in (0, 2)]
        assert import_tables(repo, again, "u/x") == ("crosstalk", ["R22_S00", CAMERA.detectors[2].full_name])
        assert len(repo.datasets("crosstalk", "u/x")) == 2
        with pytest.raises(ConfigError, match="are both of R22_S00"):
            import_tables(repo, [again[0], again[0]], "u/y")
        other = cti(imported / "c.fits", DETECTOR=2, DET_NAME=CAMERA.detectors[2].full_name)
        with pytest.raises(ConfigError, match="files of one kind go into one RUN; these are crosstalk and cti"):
            import_tables(repo, [again[0], other], "u/y")
        with pytest.raises(RepoError):
            import_tables(repo, again, "../y")
        assert not repo.collections("u/y")
