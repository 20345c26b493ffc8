"""Facts of sensors and vendors, copied by hand from reference/verification.md 1.8, 1.14 and reference/isr.md 2.21."""

import pytest

from camcal_dask.instruments import get_instrument, instrument_names
from camcal_dask.instruments.facts import itl_dips, known_bad_amps, vendors
from camcal_dask.isr.config import MorphologyConfig


def test_known_bad_amps_have_reasons():
    assert known_bad_amps("LSSTCam") == {
        ("R42_S21", "C07"): "inconsistent linearizer and gain",
        ("R03_S01", "C10"): "extreme charge-transfer inefficiency",
        ("R03_S11", "C00"): "dead",
        ("R30_S00", "C10"): "dead",
        ("R41_S21", "C02"): "noisy",
        ("R43_S20", "C14"): "noisy",
    }
    assert known_bad_amps("LATISS") == known_bad_amps("nobody's") == {}


@pytest.mark.parametrize("camera", instrument_names())
def test_known_bad_amps_exist(camera):
    instrument = get_instrument(camera)
    for detector, amp in known_bad_amps(camera):
        assert amp in {a.name for a in instrument.detector(detector).amps}


def test_vendors():
    assert {name: tuple(vendor) for name, vendor in vendors().items()} == {
        "ITL": ((-4.56e-6, 6.91e-7), 0.00027e-2),
        "E2V": ((-3.52e-6, -2.61e-6), 0.00046e-2),
    }


def test_dips_are_of_itl_sensors_and_the_default_of_the_isr():
    dips, lsstcam = itl_dips(), get_instrument("LSSTCam")
    assert {lsstcam.detector(name).vendor for name in dips} == {"ITL"}
    assert (len(dips), dips["R01_S12"], dips["R43_S01"]) == (25, (8, 0.0030), (15, 0.0010))
    assert MorphologyConfig().itl_dips == dips
    dips.clear()
    assert itl_dips()  # nobody changes what the next one gets


def test_back_bias_is_told_by_the_large_camera_only():
    assert {name for name in instrument_names() if get_instrument(name).settings.back_biased} == {"LSSTCam", "TinyCam"}
