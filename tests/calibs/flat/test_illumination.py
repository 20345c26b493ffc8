"""One illumination out of what an observatory takes in a night: sets, ramps, lamps that were off."""

import numpy as np
import pytest

from camcal_dask.calibs.flat.illumination import Flats, SelectConfig, pick

FULL_WELL = 130_000.0
DAY = 20260812


def table(*sets, day=DAY):
    """Flats of sets (reason, exposure time, levels); each set is one of the acquisition."""
    rows = []
    for reason, time, levels in sets:
        start = len(rows) + 1
        rows += [(start, time, reason, level) for level in levels]
    start, time, reason, level = (np.array(column) for column in zip(*rows, strict=True))
    n = len(rows)
    level = level.astype(float)
    return Flats(
        day * 100_000 + 1 + np.arange(n), np.full(n, day), start, time.astype(float), reason, level,
        np.full(n, 6.0), level / FULL_WELL,
    )  # fmt: skip


def ramp(reason, lowest=1_000.0, highest=150_000.0, n=12, time=None, order=None):
    """Pairs of levels, by the exposure time or (``time`` given) by the lamp; each pair a set."""
    levels = np.geomspace(lowest, highest, n)[slice(None) if order is None else order]
    return [(reason, round(v / 2000, 3) if time is None else time, [v, v * 1.001]) for v in levels]


def numbers(picked):
    return [e % 100_000 for e in picked.exposures]


SHUFFLED = np.random.default_rng(2).permutation(12)


@pytest.mark.parametrize("reason", ["ptc", "flat", ""])
@pytest.mark.parametrize("time", [None, 3.0])
@pytest.mark.parametrize("order", [None, SHUFFLED])
def test_a_ramp_is_left_out_whatever_its_reason_is(reason, time, order):
    """By exposure time or by lamp, in order or shuffled, before the flats and with their reason."""
    flats = table(*ramp(reason, time=time, order=order), ("flat", 3.0, 13_000 + np.arange(6) * 20.0))
    picked = pick(flats, SelectConfig())
    assert numbers(picked) == [25, 26, 27, 28, 29, 30]
    assert any("24 left out: a ramp of a photon transfer curve" in line for line in picked.reasons)
    assert picked.reasons[-1].startswith("one illumination: 6 flats of reason flat, 3 s, level 13000 to 13100 adu")


@pytest.mark.parametrize("together", [True, False])
def test_a_ramp_of_one_set_is_one_too(together):
    levels = np.repeat(np.geomspace(2e3, 1e5, 10), 2)
    one = [("flat", 5.0, levels)] if together else [("flat", 5.0, [v]) for v in levels]
    assert numbers(pick(table(*one), SelectConfig())) == []
    assert len(pick(table(*one), SelectConfig(ramps=True)).exposures) > 10


def test_ramps_are_taken_when_asked_for_within_the_limits():
    flats = table(*ramp("ptc"), ("sflat", 3.0, [13_000.0] * 6))
    picked = pick(flats, SelectConfig(ramps=True, reason="ptc"))
    levels = flats.level[np.isin(flats.exposure, picked.exposures)]
    assert len(levels) > 4
    assert 0.05 * FULL_WELL <= levels.min() < levels.max() <= 0.6 * FULL_WELL
    assert np.ptp(levels) > 10_000


def test_a_lamp_that_was_off_is_left_out_by_name():
    levels = [5900.0, 5910.0, 0.14, 5905.0, -3.0, 5890.0]
    picked = pick(table(("sflat", 5.0, levels)), SelectConfig(least_fraction=0.01))
    assert numbers(picked) == [1, 2, 4, 6]
    (line,) = [line for line in picked.reasons if "no light" in line]
    assert f"2 left out: no light: level -3 to 0.14 adu, below 5 times the noise ({DAY}00003, {DAY}00005)" in line


def test_only_lamps_that_were_off_are_no_flats():
    picked = pick(table(("sflat", 5.0, [0.1, -0.2, 0.3, 0.0])), SelectConfig())
    assert picked.exposures == ()
    assert "4 left out: no light" in picked.reasons[0]


def test_levels_beyond_the_limits_are_left_out():
    flats = table(("sflat", 1.0, [6_000.0] * 9), ("sflat", 9.0, [90_000.0] * 9), ("sflat", 5.0, [30_000.0] * 5))
    picked = pick(flats, SelectConfig(), of="turnoff of the ptc")
    assert numbers(picked) == [19, 20, 21, 22, 23]
    text = "; ".join(picked.reasons)
    assert "9 left out: level 6000 adu, below 5% of the turnoff of the ptc" in text
    assert "9 left out: level 90000 adu, above 60% of the turnoff of the ptc" in text


def test_levels_of_one_illumination_agree_within_a_fifth():
    """One lamp setting, dimmed later: the larger group; of equally large ones the later."""
    flats = table(("sflat", 5.0, [20_000.0] * 5 + [23_000.0] * 3 + [30_000.0] * 4))
    picked = pick(flats, SelectConfig())
    assert numbers(picked) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "4 left out: another illumination, level 30000 adu" in "; ".join(picked.reasons)
    assert numbers(pick(flats, SelectConfig(level_within=0.1))) == [1, 2, 3, 4, 5]
    twice = table(("sflat", 5.0, [20_000.0] * 25), ("sflat", 5.0, [30_000.0] * 22))
    assert numbers(pick(twice, SelectConfig())) == list(range(26, 48))


def test_reason_and_exposure_time_are_part_of_the_illumination():
    flats = table(
        ("sflat_hi", 5.0, [20_000.0] * 4), ("sflat_lo", 5.0, [20_000.0] * 3), ("sflat_hi", 6.0, [20_000.0] * 3)
    )
    assert numbers(pick(flats, SelectConfig())) == [1, 2, 3, 4]
    assert numbers(pick(flats, SelectConfig(reason="sflat_lo"))) == [5, 6, 7]


@pytest.mark.parametrize("jitter", [1e-7, 1e-3])
def test_a_shutter_that_jitters_makes_no_ramp_of_equal_flats(jitter):
    """Times and levels of seven flats differ by a little, so that none equals another; a real ramp stays one."""
    sets = [("", 3.0 + jitter * (i - 3), [13_000.0 + 20 * i]) for i in range(7)]
    ladder = [("", round(v / 2000, 3) + jitter * k, [v]) for v in np.geomspace(1e3, 1.5e5, 12) for k in (0, 1)]
    assert numbers(pick(table(*sets), SelectConfig())) == list(range(1, 8))
    assert numbers(pick(table(*ladder, *sets), SelectConfig())) == list(range(25, 32))


def test_a_flat_of_unknown_exposure_time_is_left_out_by_name():
    flats = table(("sflat", 5.0, [20_000.0] * 4), ("sflat", np.nan, [20_000.0] * 6))
    picked = pick(flats, SelectConfig())
    assert numbers(picked) == [1, 2, 3, 4]
    assert f"6 left out: their exposure time is not known ({DAY}00005 .. {DAY}00010)" in picked.reasons


def test_alternating_lamps_are_no_ramp():
    """Three lamps in turn, ten times: the blue and red flats of an anaglyph, and one more."""
    flats = table(*[("led", 5.0, [v]) for _ in range(10) for v in (10_000.0, 20_000.0, 40_000.0)])
    assert numbers(pick(flats, SelectConfig())) == list(range(3, 31, 3))


def test_exposures_without_pixels_are_named():
    flats = table(("sflat", 5.0, [20_000.0, np.nan, 20_000.0]))
    picked = pick(flats, SelectConfig())
    assert numbers(picked) == [1, 3]
    assert f"1 left out: no pixels of these detectors can be read ({DAY}00002)" in picked.reasons[0]
