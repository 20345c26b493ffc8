"""The overscan engine against a slow, step-by-step reading of reference/isr.md 2.2, and hand-made strips."""

import numpy as np
import pytest

from camcal_dask.kernels.pixels.masks import BAD, SAT
from camcal_dask.kernels.readout.overscan import FILL, correct_pixels, describe, fill_gaps, fit_lines, mask_saturated
from camcal_dask.kernels.simulator.random import split64
from tests.kernels.simulator.test_random import philox_words

SERIAL = {"skip_leading": 3, "skip_trailing": 3, "max_deviation": 1000.0, "two_sided": True}
PARALLEL = {
    "skip_leading": 3,
    "skip_trailing": 3,
    "max_deviation": 100.0,
    "two_sided": False,
    "grow": 2,
    "smoothing": 5,
    "smoothing_threshold": 5.0,
}


def slow_fit(  # noqa: C901 - the reference, step by step
    strip,
    mask,
    *,
    skip_leading,
    skip_trailing,
    max_deviation,
    two_sided,
    sigma=3.0,
    grow=0,
    smoothing=0,
    smoothing_threshold=0.0,
    use_mean=False,
):
    """Vector and mask by reference/isr.md 2.2, one number at a time."""
    n_pixel, n_line = strip.shape
    mask = mask.copy()
    used = range(skip_leading, n_pixel - skip_trailing)
    level = np.median([float(strip[k, i]) for k in used for i in range(n_line) if not mask[k, i] & (BAD | SAT)])
    bad = set()
    for i in range(n_line):  # step 2
        flagged = 0
        for k in used:
            deviation = float(strip[k, i]) - level
            if (abs(deviation) if two_sided else deviation) > max_deviation:
                mask[k, i] |= BAD
                flagged += 1
        if flagged == len(used):
            bad.add(i)
    if smoothing:  # step 3
        line = [np.median([float(strip[k, i]) for k in used]) for i in range(n_line)]
        half = smoothing // 2
        for i in range(5, n_line - 5):
            window = sorted(line[j] if 0 <= j < n_line else 0.0 for j in range(i - half, i + half + 1))
            if line[i] - window[half] >= smoothing_threshold:
                bad.add(i)
    grown = {j for i in bad for j in range(i - grow, i + grow + 1) if 0 <= j < n_line}  # step 4
    for i in grown:
        mask[:, i] |= BAD
    vector = np.full(n_line, np.nan)
    for i, keep in enumerate(slow_survivors(strip, mask, used, sigma)):
        if keep:  # step 6
            vector[i] = np.mean(keep) if use_mean else np.median(keep)
    return slow_fill(vector).astype("f4"), mask, grown


def slow_survivors(strip, mask, used, sigma):
    """Step 5."""
    lines = range(strip.shape[1])
    quartiles = [np.percentile([float(strip[k, i]) for k in used], [25, 50, 75]) for i in lines]
    spread = [0.74 * (q[2] - q[0]) for q in quartiles]
    typical = np.median(spread)
    for i in lines:
        s = typical if spread[i] > 2 * typical else spread[i]
        near = [k for k in used if abs(float(strip[k, i]) - quartiles[i][1]) <= sigma * s]
        yield [float(strip[k, i]) for k in near if not mask[k, i] & (BAD | SAT)]


def slow_fill(vector):
    """Step 7."""
    out, n = vector.copy(), len(vector)
    finite = [v for v in vector if np.isfinite(v)]
    i = 0
    while i < n:
        if np.isfinite(vector[i]):
            i += 1
            continue
        start = i
        while i < n and not np.isfinite(vector[i]):
            i += 1
        near = list(out[start - 5 : start]) if start > 5 else []
        near += list(out[i : i + 5]) if i < n - 5 else []
        near = [v for v in near if np.isfinite(v)]
        out[start:i] = np.median(near) if near else np.median(finite)
    return out


def strip_with_faults(rng, n_pixel, n_line):
    strip = rng.normal(20000, 6, (n_pixel, n_line))
    strip += rng.normal(0, 4, n_line)
    hot = rng.random(strip.shape) < 0.02
    strip[hot] += rng.choice([30.0, 90.0, 150.0, -200.0, 3000.0], hot.sum())
    for i in rng.integers(0, n_line, 4):
        strip[:, i] += rng.choice([8.0, 60.0, 500.0, 2500.0])
    start = rng.integers(0, n_line - 9)
    strip[:, start : start + rng.integers(1, 9)] += 5000
    mask = np.where(rng.random(strip.shape) < 0.01, SAT, 0).astype("i4")
    return strip.astype("f4"), mask


@pytest.mark.parametrize("use_mean", [False, True])
@pytest.mark.parametrize(("settings", "shape"), [(SERIAL, (54, 120)), (SERIAL, (16, 64)), (PARALLEL, (46, 130))])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_reading(seed, settings, shape, use_mean):
    rng = np.random.default_rng([seed, *shape])
    strip, mask = strip_with_faults(rng, *shape)
    vector, expected_mask, bad = slow_fit(strip, mask, **settings, use_mean=use_mean)
    fit = fit_lines(strip, mask, **settings, use_mean=use_mean)
    if use_mean:
        np.testing.assert_allclose(fit.vector, vector, rtol=1e-7)
    else:
        np.testing.assert_array_equal(fit.vector, vector)
    np.testing.assert_array_equal(mask, expected_mask)
    assert set(np.flatnonzero(fit.bad)) == bad


def test_constant_rows_give_the_row_exactly():
    """reference/isr.md 7.1."""
    rows = np.random.default_rng(0).integers(19000, 21000, 200).astype("f4") * 0.25
    strip = np.repeat(rows[None], 54, axis=0)
    fit = fit_lines(strip, np.zeros(strip.shape, "i4"), **{**SERIAL, "max_deviation": 1e6})
    np.testing.assert_array_equal(fit.vector, rows)
    assert not fit.bad.any()


@pytest.mark.parametrize(("row", "neighbours"), [(100, [*range(95, 100), *range(101, 106)]), (3, range(4, 9))])
def test_flagged_row_takes_its_neighbours(row, neighbours):
    """reference/isr.md 7.1: all pixels of a row beyond the cut; near the end only one side counts."""
    rng = np.random.default_rng(1)
    rows = rng.normal(20000, 10, 200).astype("f4")
    strip = np.repeat(rows[None], 54, axis=0)
    strip[:, row] += 1500
    mask = np.zeros(strip.shape, "i4")
    fit = fit_lines(strip, mask, **SERIAL)
    assert fit.vector[row] == np.float32(np.median(rows[list(neighbours)].astype("f8")))
    assert np.flatnonzero(fit.bad).tolist() == [row]
    assert (mask[:, row] == BAD).all()
    assert not np.delete(mask, row, axis=1).any()


@pytest.mark.parametrize("height", [60.0, 120.0])
def test_hot_column_of_the_parallel_strip(height):
    """reference/isr.md 7.2: caught by the smoothing test, beyond 100 adu by the cut as well."""
    rng = np.random.default_rng(2)
    strip = rng.normal(0, 3, (46, 512)).astype("f4")
    strip[:, 200] += height
    mask = np.zeros(strip.shape, "i4")
    fit = fit_lines(strip, mask, **PARALLEL)
    assert np.flatnonzero(fit.bad).tolist() == [198, 199, 200, 201, 202]
    assert (mask[:, 198:203] & BAD).all()
    clean = [fit.vector[i] for i in (193, 194, 195, 196, 197, 203, 204, 205, 206, 207)]
    np.testing.assert_array_equal(fit.vector[198:203], np.float32(np.median(np.asarray(clean, "f8"))))
    without = fit_lines(strip, np.zeros(strip.shape, "i4"), **{**PARALLEL, "smoothing": 0})
    assert without.bad.any() == (height > 110)


def test_ends_are_left_alone_by_the_smoothing_test():
    strip = np.zeros((46, 100), "f4")
    strip[:, [2, 4, 50, 96]] = 50.0
    fit = fit_lines(strip, np.zeros(strip.shape, "i4"), **PARALLEL)
    assert np.flatnonzero(fit.bad).tolist() == [48, 49, 50, 51, 52]


@pytest.mark.parametrize("seed", range(20))
def test_gaps(seed):
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=60)
    vector[rng.random(60) < 0.35] = np.nan
    np.testing.assert_array_equal(fill_gaps(vector), slow_fill(vector))


def test_gap_of_everything():
    assert fill_gaps(np.full(20, np.nan)) is None
    strip = np.full((54, 30), np.nan, "f4")
    assert fit_lines(strip, np.zeros(strip.shape, "i4"), **SERIAL) is None
    assert fit_lines(np.zeros((54, 30), "f4"), np.full((54, 30), SAT, "i4"), **SERIAL) is None


def test_missing_pixels_do_not_matter():
    rng = np.random.default_rng(4)
    strip = rng.normal(20000, 6, (54, 80)).astype("f4")
    short = strip.copy()
    short[40:] = np.nan  # a narrower readout
    expected = fit_lines(strip[:43].copy(), np.zeros((43, 80), "i4"), **SERIAL)
    fit = fit_lines(short, np.zeros(short.shape, "i4"), **SERIAL)
    np.testing.assert_array_equal(fit.vector, expected.vector)


def test_saturation_grows_as_a_diamond():
    strip = np.zeros((46, 60), "f4")
    strip[20, 30], strip[0, 1], strip[5, 5] = 20000, 30000, 19999.9
    mask = np.zeros(strip.shape, "i4")
    mask_saturated(strip, mask, 20000.0, 7)
    y, x = np.mgrid[:46, :60]
    expected = (abs(y - 20) + abs(x - 30) <= 7) | (y + abs(x - 1) <= 7)
    np.testing.assert_array_equal(mask, np.where(expected, SAT, 0))


def test_describe():
    rng = np.random.default_rng(6)
    values = rng.normal(5, 2, (30, 40)).astype("f4")
    mask = np.where(rng.random(values.shape) < 0.1, SAT, 0).astype("i4")
    good = values[mask == 0].astype("f8")
    values[mask == SAT] = 1e6
    mean, middle, stdev = describe(values, mask)
    assert mean == pytest.approx(good.mean(), rel=1e-12)
    assert middle == pytest.approx(np.median(good), rel=1e-12)
    assert stdev == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("low", [-0.5, 0.0])
def test_correct_pixels_one_by_one(low):
    rng = np.random.default_rng(7)
    raw = rng.integers(19000, 21000, (6, 20)).astype("i4")
    raw[2, 9] = FILL
    serial, parallel = rng.normal(20000, 5, 70).astype("f4"), rng.normal(0, 1, 11).astype("f4")
    exposure, amp, detector, gain = 2026081200017, 3, 94, np.float32(1.7)
    out = np.full((8, 14), -1, np.float32)
    address, key = np.array([0, amp, detector], np.uint64), np.array(split64(exposure), np.uint64)
    n = correct_pixels(raw, (60, 5), (61, 66, 8, 19), serial, gain, parallel, (True, low), address, key, out)
    assert n == 1
    for y in range(61, 66):
        for x in range(8, 19):
            word = philox_words(np.array([x // 4, y, amp, detector], np.uint64), key)[x % 4]
            dither = np.float32((int(word) >> 8) * 2.0**-24 + low)
            value = ((np.float32(raw[y - 60, x - 5]) + dither) - serial[y]) * gain - parallel[x - 8]
            got = out[y - 61, x - 8]
            assert np.isnan(got) if raw[y - 60, x - 5] == FILL else got == value
    assert (out[5:] == -1).all()
    assert (out[:, 11:] == -1).all()
