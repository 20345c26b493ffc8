import pytest

from camcal_dask.calibs.state import common_state
from camcal_dask.errors import DataError


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
