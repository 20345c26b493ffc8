import pytest

from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.state import check_powered, common_state


def test_shared_cards_are_returned_and_absent_ones_left_out():
    headers = {1: {"SEQFILE": "a", "ODP": 23.4}, 2: {"SEQFILE": "a"}, 3: None}
    assert common_state(headers, ["SEQFILE", "ODP", "AP0_RC"], what="bias") == {"SEQFILE": "a", "ODP": 23.4}


def test_different_states_are_refused_by_name():
    headers = {11: {"SEQFILE": "a"}, 12: {"SEQFILE": "b"}, 13: {"SEQFILE": "b"}}
    with pytest.raises(DataError) as error:
        common_state(headers, ["SEQFILE"], what="bias, detector 94 (R22_S11)")
    message = str(error.value)
    assert "bias, detector 94 (R22_S11)" in message
    assert "SEQFILE is 'a' in 1 (first 11), 'b' in 2 (first 12)" in message
    assert common_state(headers, ["SEQFILE"], what="bias", strict=False) == {}


def test_a_sensor_without_back_bias_is_refused_where_the_camera_tells():
    headers = {1: {"HVBIAS": "ON", "BSSVBS": 50.0}, 2: {"HVBIAS": "OFF"}, 3: {"BSSVBS": 1.0}, 4: {}, 5: None}
    with pytest.raises(DataError, match=r"dark: in 2 of 5 exposures \(first 2\) the sensor was switched off: .*'OFF'"):
        check_powered(headers, get_instrument("LSSTCam"), what="dark")
    check_powered({1: headers[1], 4: {}}, get_instrument("LSSTCam"), what="dark")
    check_powered(headers, get_instrument("LATISS"), what="dark")
