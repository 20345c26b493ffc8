"""Pairing of flats: the rules of reference/ptc_linearity.md 1, on paper."""

import numpy as np
import pytest

from camcal_dask.calibs.ptc.pairs import pair_exposures
from camcal_dask.errors import ConfigError

TIMES = {"A": 1.0, "B": 2.0, "C": 3.0}


@pytest.mark.parametrize(
    ("sequence", "pairs", "odd"),
    [
        ("AABBCC", [(1, 2), (3, 4), (5, 6)], []),
        ("AAAA", [(1, 2)], [3, 4]),
        ("ABBA", [(2, 3)], [1, 4]),
        ("AABAA", [(1, 2), (4, 5)], [3]),
        ("A", [], [1]),
        ("", [], []),
    ],
)
@pytest.mark.parametrize("mode", ["time", "flux"])
def test_adjacent_equal_exposures_are_pairs(sequence, pairs, odd, mode):
    values = [TIMES[s] for s in sequence]
    found = pair_exposures(range(1, len(sequence) + 1), exposure_time=values, flux=values, mode=mode)
    assert (found.pairs, list(found.odd)) == (pairs, odd)


def test_exposure_times_are_equal_within_5_ms_and_1e_5():
    assert pair_exposures([1, 2], exposure_time=[1.0, 1.005]).pairs == [(1, 2)]
    assert pair_exposures([1, 2], exposure_time=[1.0, 1.0051]).pairs == []
    assert pair_exposures([1, 2], exposure_time=[100.0, 100.0059]).pairs == [(1, 2)]
    # a slow drift does not pair the third with the first
    assert list(pair_exposures([1, 2, 3], exposure_time=[1.0, 1.004, 1.008]).odd) == [3]


def test_order_is_that_of_the_ids():
    found = pair_exposures([4, 1, 3, 2], exposure_time=[2.0, 1.0, 2.0, 1.0])
    assert found.pairs == [(1, 2), (3, 4)]


def test_unknown_values_pair_with_nothing():
    found = pair_exposures([1, 2, 3], flux=[np.nan, np.nan, 1.0], mode="flux")
    assert found.odd == {1: "its flux is not known", 2: "its flux is not known", 3: "no neighbour of the same flux"}


def test_photodiode_fluxes_pair_within_a_tolerance():
    flux = [1.000, 1.003, 2.000, 1.995]
    assert pair_exposures(range(4), flux=flux, mode="flux").pairs == []
    assert pair_exposures(range(4), flux=flux, mode="flux", tolerance=0.01).pairs == [(0, 1), (2, 3)]


def test_exposure_ids_pair_two_by_two_without_a_check():
    found = pair_exposures([5, 6, 9, 12, 13], mode="expid")
    assert found.pairs == [(5, 6), (9, 12)]
    assert found.odd == {13: "the last of an odd number of exposures"}


def test_the_account_names_what_is_left_over():
    found = pair_exposures(range(1, 6), exposure_time=[1, 1, 1, 1, 2])
    assert found.text() == (
        "1 pairs; 2 odd: more than two neighbours of one exposure time (3, 4); "
        "1 odd: no neighbour of the same exposure time (5)"
    )
    assert found.exposures == [1, 2]


def test_a_stride_takes_every_nth_pair():
    assert pair_exposures(range(8), mode="expid").every(2).pairs == [(0, 1), (4, 5)]


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ConfigError, match=r"mode 'tme'; did you mean 'time'"):
        pair_exposures([1], mode="tme")
    with pytest.raises(ConfigError, match=r"mode 'time' needs exposure_time of shape \(2,\), got \(\)"):
        pair_exposures([1, 2])
