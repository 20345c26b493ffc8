"""Photodiode files in their three forms."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from camcal_dask.errors import DataError
from camcal_dask.raw_fits.photodiode import is_reading, read_reading

TIME, CURRENT = np.array([0.0, 0.1, 0.2]), np.array([-1e-12, -2e-8, -1.5e-12])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Photodiode_Readings_20260812_000001.txt", True),
        ("MC_O_20260812_000001_photodiode.ecsv", True),
        ("Electrometer_index_101_20260812.fits", True),
        ("EM1_O_20260812_000001.fits", True),
        ("MC_O_20260812_000001_R22_S11.fits", False),
        ("truth.yaml", False),
    ],
)
def test_names(name, expected):
    assert is_reading(f"/some/where/{name}") is expected


def test_two_columns(tmp_path):
    path = tmp_path / "Photodiode_Readings_20260812_000017.txt"
    path.write_text("0.0 -1E-12\n0.1 -2E-8\n0.2 -1.5E-12\n")
    reading = read_reading(str(path))
    assert reading.key == {"day_obs": 20260812, "seq_num": 17}
    np.testing.assert_array_equal([reading.time, reading.current], [TIME, CURRENT])


@pytest.mark.parametrize("columns", [("TIME", "CURRENT"), ("Elapsed Time", "Signal"), ("RNUM", "CURRENT")])
@pytest.mark.parametrize("as_vectors", [False, True])
def test_electrometer_fits(tmp_path, columns, as_vectors):
    shape = (1, -1) if as_vectors else (-1,)
    table = fits.table_to_hdu(Table({columns[0]: TIME.reshape(shape), columns[1]: CURRENT.reshape(shape)}))
    primary = fits.PrimaryHDU()
    primary.header["GROUPID"] = "2026-08-12T10:00:00#3"
    path = tmp_path / "Electrometer_index_101.fits"
    fits.HDUList([primary, table]).writeto(path)
    reading = read_reading(str(path))
    assert reading.key == {"group": "2026-08-12T10:00:00#3"}
    np.testing.assert_array_equal([reading.time, reading.current], [TIME, CURRENT])


def test_the_last_time_column_counts(tmp_path):
    path = tmp_path / "MC_O_20260812_000001_photodiode.ecsv"
    table = Table({"RNUM": TIME, "TIME": TIME + 5, "CURRENT": CURRENT}, meta={"obsId": "MC_O_20260812_000001"})
    table.write(path, format="ascii.ecsv")
    reading = read_reading(str(path))
    assert reading.key == {"obs_id": "MC_O_20260812_000001"}
    np.testing.assert_array_equal(reading.time, TIME)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Photodiode_Readings_x.txt", "0 1\n", "expected the name Photodiode_Readings_YYYYMMDD_NNNNNN.txt"),
        ("Photodiode_Readings_20260812_1.txt", "0 1 2\n", "3 columns, expected two"),
        ("Photodiode_Readings_20260812_1.txt", "a b\n", "not a photodiode reading"),
        ("EM1.fits", "nothing", "not a photodiode reading"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_reading(str(tmp_path / name))


def test_a_fits_reading_must_name_its_group(tmp_path):
    path = tmp_path / "EM1.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(Table({"TIME": TIME, "CURRENT": CURRENT}))]).writeto(path)
    with pytest.raises(DataError, match="GROUPID = '', expected GROUP#N"):
        read_reading(str(path))
