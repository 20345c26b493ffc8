"""The FITS layout of linearizers: as listed, and back without loss."""

import os

import numpy as np
import pytest
from astropy.io import fits

from camcal_dask.calibs.linearizer.config import LinearityConfig, PolynomialConfig
from camcal_dask.calibs.linearizer.fit import fit
from camcal_dask.calibs.linearizer.fits import COLUMNS, read_linearizer, write_linearizer
from camcal_dask.calibs.linearizer.table import linearizer_table
from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.focal_plane import amp_boxes
from camcal_dask.kernels.linearity.correct import linearize, make_linearity
from camcal_dask.verify.judging.account import summary
from camcal_dask.verify.judging.levels import NOT_EVALUATED
from camcal_dask.verify.judging.tables import judge_table
from tests.calibs.linearizer.linearity_tables import Camera, ramp

DETECTOR = get_instrument("LSSTCam").detectors[94]
CAMERA = Camera(n_amp=16)


def made(kind, n_pair=120):
    table, ratios = ramp(CAMERA, n_pair)
    names = [amp.name for amp in DETECTOR.amps]
    table, ratios = table.assign_coords(amp=names), ratios.assign_coords(amp=names)
    table["bad"][0, 5] = True
    config = LinearityConfig(type=kind, polynomial=PolynomialConfig(n_column=1000))
    return fit(table, config, ratios=ratios).assign_attrs(instrument="LSSTCam")


@pytest.mark.parametrize("kind", ["DoubleSpline", "Spline", "LookupTable", "Squared"])
def test_back_without_loss(tmp_path, kind):
    linearizer = made(kind)
    write_linearizer(tmp_path / "one.fits", linearizer, DETECTOR)
    read = read_linearizer(tmp_path / "one.fits")
    assert set(read.data_vars) == set(linearizer.data_vars) - {"left_out"}  # the layout has no place for it
    for name, values in linearizer.drop_vars("left_out").data_vars.items():
        np.testing.assert_array_equal(read[name].transpose(*values.dims), values, err_msg=str(name))
        assert read[name].dtype == values.dtype
    assert read.attrs["linearity_type"] == kind
    assert read["reference_amp"].item() == linearizer["reference_amp"].item()
    write_linearizer(tmp_path / "two.fits", read, DETECTOR, read.attrs["cards"])
    assert (tmp_path / "two.fits").read_bytes() == (tmp_path / "one.fits").read_bytes()


def test_what_the_layout_has_no_place_for_is_not_measured(tmp_path):
    """A good linearizer stays good on its way through a file; the levels left out are no failure and no pass."""
    linearizer, known_bad = made("DoubleSpline"), [(DETECTOR.full_name, DETECTOR.amps[5].name)]
    verdict = judge_table(linearizer_table(linearizer), "linearizer", known_bad=known_bad)
    assert bool(verdict["run_success"]), summary(verdict)
    assert "not measured" not in summary(verdict)
    write_linearizer(tmp_path / "one.fits", linearizer, DETECTOR)
    imported = judge_table(linearizer_table(read_linearizer(tmp_path / "one.fits")), "linearizer", known_bad=known_bad)
    assert bool(imported["run_success"]), summary(imported)
    assert "not measured: levels left out of the fit" in summary(imported)
    left_out = [t for t in imported["test"].values.tolist() if "left_out" in t]
    assert len(left_out) == 2
    assert (imported["status"].sel(test=left_out) == NOT_EVALUATED).all()
    assert imported["value"].sel(test=left_out).isnull().all()
    rest = [t for t in imported["test"].values.tolist() if t not in left_out]
    np.testing.assert_array_equal(imported["status"].sel(test=rest), verdict["status"].sel(test=rest))


def test_layout_is_the_one_listed(tmp_path):
    linearizer = made("DoubleSpline")
    write_linearizer(tmp_path / "one.fits", linearizer, DETECTOR, {"SEQNAME": "FP_E2V_2s"})
    with fits.open(tmp_path / "one.fits") as hdus:
        assert len(hdus) == 2
        assert hdus[0].data is None
        table, header = hdus[1].data, hdus[1].header
        assert table.names == ["AMPLIFIER_NAME", *(c.name for c in COLUMNS)]
        m = linearizer.sizes["coefficient"]
        formats = {
            "AMPLIFIER_NAME": "3A", "INPUT_GAIN": "D", "TYPE": "12A", "COEFFS": f"{m}D", "BBOX_X0": "K",
            "INP_ABSCISSA": "240D", "INP_MASK": "240L", "INP_GROUPING_INDEX": "240K", "LIN_FIT": "2D",
            "ABS_REF_AMP": "3A", "FIT_PARAMS": "D", "RED_CHI_SQ": "D",
        }  # fmt: skip
        assert {name: hdus[1].columns[name].format for name in formats} == formats
        assert table["TYPE"].tolist() == ["None" if i == 5 else "DoubleSpline" for i in range(16)]
        boxes = np.stack([table[f"BBOX_{k}"] for k in ("X0", "Y0", "DX", "DY")], axis=1)
        np.testing.assert_array_equal(boxes, amp_boxes(DETECTOR))
        assert set(table["ABS_REF_AMP"]) == {DETECTOR.amps[0].name}
        cards = {
            "OBSTYPE": "LINEARIZER", "LINEARIZER_SCHEMA": "Gen3 Linearizer", "LINEARIZER_VERSION": 1.8,
            "HAS_LINEARITY": True, "HAS_TABLE": False, "LINEARITY_UNITS": "adu", "FILTER": "NONE",
            "CALIBCLS": "lsst.ip.isr.linearize.Linearizer", "DET_NAME": "R22_S11", "DETECTOR": 94,
            "SEQNAME": "FP_E2V_2s", "INSTRUME": "LSSTCam",
        }  # fmt: skip
        assert {key: header[key] for key in cards} == cards


def test_amps_without_linearity_hold_zeros_and_no_reference_one_character(tmp_path):
    linearizer = made("Spline")
    assert linearizer.sizes["parameter"] == 1  # one slope; no weight was fitted
    write_linearizer(tmp_path / "one.fits", linearizer, DETECTOR)
    with fits.open(tmp_path / "one.fits") as hdus:
        table = hdus[1].data
        for name in (
            "COEFFS",
            "FIT_PARAMS",
            "FIT_PARAMS_ERR",
            "FIT_RES",
            "FIT_RES_UNMASKED",
            "FIT_RES_MODEL",
            "LIN_FIT",
        ):
            assert not table[name][5].any()
            assert np.isnan(table[name][4]).sum() == (~table["INP_MASK"][4]).sum() * (name == "FIT_RES")
        assert not table["INP_MASK"][5].any()
        assert hdus[1].columns["ABS_REF_AMP"].format == "1A"
        assert set(table["ABS_REF_AMP"]) == {""}
        np.testing.assert_array_equal(table["FIT_PARAMS"][4], linearizer["fit_params"][0, 4])


def test_lookup_values_are_a_second_table(tmp_path):
    linearizer = made("LookupTable")
    write_linearizer(tmp_path / "one.fits", linearizer, DETECTOR)
    with fits.open(tmp_path / "one.fits") as hdus:
        assert hdus[1].header["HAS_TABLE"] is True
        assert hdus[2].data["LOOKUP_VALUES"].shape == (16, 1000)
        kinds, c, table = hdus[1].data["TYPE"].tolist(), hdus[1].data["COEFFS"], hdus[2].data["LOOKUP_VALUES"]
    image = np.full((16, 1, 3), 500, "f4")
    applied, outside = linearize(image, make_linearity(kinds, c.astype(float), table=table.astype(float)))
    np.testing.assert_allclose(applied[3, 0], 500 + table[3, 500], rtol=1e-6)
    assert not outside.any()


def test_least_file_of_the_stack_is_read(tmp_path):
    """Only the required columns; what they lack is not there."""
    write_linearizer(tmp_path / "one.fits", made("Squared"), DETECTOR)
    with fits.open(tmp_path / "one.fits") as hdus:
        keep = ["AMPLIFIER_NAME", "TYPE", "COEFFS", "BBOX_X0", "BBOX_Y0", "BBOX_DX", "BBOX_DY"]
        columns = fits.ColDefs([hdus[1].columns[name] for name in keep])
        few = fits.BinTableHDU.from_columns(columns)
        few.header.update({"OBSTYPE": "LINEARIZER", "DETECTOR": 94, "HIERARCH HAS_LINEARITY": True})
        fits.HDUList([fits.PrimaryHDU(), few]).writeto(tmp_path / "few.fits")
    read = read_linearizer(tmp_path / "few.fits")
    assert set(read.data_vars) == {"type", "coefficients", "reference_amp", "bad"}
    assert read["reference_amp"].item() == -1


def test_other_files_are_refused(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(DataError, match="no linearizer"):
        read_linearizer(tmp_path / "empty.fits")
    write_linearizer(tmp_path / "off.fits", made("Squared"), DETECTOR, {"HAS_LINEARITY": False})
    with pytest.raises(DataError, match="HAS_LINEARITY"):
        read_linearizer(tmp_path / "off.fits")
    with pytest.raises(DataError, match=r"detector 93 \(R22_S10\) with amps C10 to C00 is not in this linearizer"):
        write_linearizer(tmp_path / "x.fits", made("Squared"), get_instrument("LSSTCam").detectors[93])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.fits")
    with pytest.raises(DataError, match=r"pipe\.fits: cannot be read \(Is a pipe"):
        read_linearizer(tmp_path / "pipe.fits")
