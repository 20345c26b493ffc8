"""A sensor of another type than the tables have in its bay is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.io import fits

from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument
from camcal_dask.raw_fits.sensor import check_sensor

E2V, ITL, WAVEFRONT = "R22_S11", "R01_S00", "R44_SW0"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        (E2V, {"CCD_MANU": "E2V", "DETSIZE": "[1:4096,1:4004]", "DATASEC": "[11:522,1:2002]"}),
        (E2V, {"CCD_MANU": "e2v "}),
        (ITL, {"CCD_MANU": "ITL", "DETSIZE": "[1:4072,1:4000]", "DATASEC": "[4:512,1:2000]"}),
        (ITL, {"CCD_MANU": "", "DETSIZE": None, "DATASEC": "[1:509,1:2000]"}),
        (ITL, {}),
        (WAVEFRONT, {"CCD_MANU": "ITL", "DETSIZE": "[1:4072,1:4000]", "DATASEC": "[4:512,1:2000]"}),
        (WAVEFRONT, {"DETSIZE": "[1:4072,1:2000]"}),
    ],
)
def test_sensor_of_the_tables_is_accepted(name: str, header: dict[str, object]) -> None:
    check_sensor(header, get_instrument("LSSTCam").detector(name))


@pytest.mark.parametrize(
    ("name", "card", "value", "expected"),
    [
        (E2V, "CCD_MANU", "ITL", "E2V"),
        (ITL, "CCD_MANU", "E2V", "ITL"),
        (E2V, "DETSIZE", "[1:4072,1:4000]", "4096 x 4004"),
        (ITL, "DETSIZE", "[1:4072,1:2000]", "4072 x 4000"),
        (ITL, "DATASEC", "[11:522,1:2002]", "509 x 2000"),
        (E2V, "DATASEC", "[4:512,1:2000]", "512 x 2002"),
        (WAVEFRONT, "DETSIZE", "[1:4096,1:4004]", "4072 x 2000 or 4072 x 4000"),
    ],
)
def test_other_sensor_is_refused_with_both_values(name: str, card: str, value: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        check_sensor({card: value}, get_instrument("LSSTCam").detector(name), file="a.fits")
    assert all(part in str(caught.value) for part in ("a.fits", name, card, value, expected))


def test_section_that_is_none() -> None:
    with pytest.raises(DataError, match="DATASEC is 'all'"):
        check_sensor({"DATASEC": "all"}, get_instrument("LSSTCam").detector(ITL))


@pytest.mark.parametrize(
    ("path", "detector", "conflict"),
    [
        ("3019031900001-R22-S21-det097.fits", 97, "CCD_MANU"),
        ("3019031900001-R10-S02-det029.fits", 29, None),
        ("30211212000310-R22-S22-det098.fits", 98, None),
        ("e2v_spot.fits.gz", 94, None),
    ],
)
def test_real_files(shared_data: Path, path: str, detector: int, conflict: str | None) -> None:
    """The engineering raft of March 2019: an ITL sensor in a bay that is E2V today."""
    model = get_instrument("LSSTCam").detector(detector)
    with fits.open(shared_data / "raw" / "LSSTCam" / path) as hdus:
        primary, amp = dict(hdus[0].header), dict(hdus[1].header)
    if conflict is None:
        check_sensor(primary, model)
        check_sensor(amp, model)
        return
    with pytest.raises(DataError, match=rf"{path}.*97 \(R22_S21\).*{conflict} is ITL.*E2V"):
        check_sensor(primary, model, file=path)
    with pytest.raises(DataError, match="DETSIZE|DATASEC"):
        check_sensor({k: v for k, v in amp.items() if k != "CCD_MANU"}, model)
