"""Statistics of a pair of flats in one amp: means, variance, covariances, gain (reference/ptc_linearity.md 3-5).

    D = (m2 I1 - m1 I2) / mu,    mu = (m1 + m2) / 2

has zero mean though the means m1, m2 differ.  Variances and covariances are those of one image: half of those of D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray, Mask, Number, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.ptc.covariance import lag_covariance
from camcal_dask.kernels.statistics.clipped_mean import clip_many

GainCorrection = Literal["NONE", "SIMPLE", "SIMPLE_AS_CODED", "FULL", "UNBIASED"]

_HISTOGRAM_BINS, _HISTOGRAM_WIDTH = 100, 8.0
_SMALLEST_P = 1e-15


@dataclass(frozen=True)
class PairRules:
    """How a pair is measured; the last four follow peculiarities of the LSST stack (reference/ptc_linearity.md 15)."""

    lags: int = 10
    """Lags 0 .. ``lags`` - 1 are measured."""
    sigma: float = 5.5
    """Half-width of all clipping windows in standard deviations."""
    iterations: int = 3
    min_pixels: int = 10_000
    """With fewer good pixels an amp has neither variance nor covariances."""
    gain_correction: GainCorrection = "FULL"
    gaussianity: bool = False
    """Test the distribution of the difference: a sort and a fit per amp, many times the cost of everything else."""
    float32_difference: bool = True
    """D in float32 with a rounded reciprocal of mu; else in float64."""
    absolute_bound: bool = True
    """Pixels enter the covariances by abs(D) <= mean + 5.5 sigma; else by abs(D - mean) <= 5.5 sigma."""
    sample_variance: bool = True
    """``raw_var`` is divided by N - 1; else by N, as the covariances are."""


class PairStatistics(NamedTuple):
    """Statistics of one amp in a pair; float64, NaN = not available.

    ``raw_mean`` mu and ``raw_delta`` m2 - m1 [adu]; ``pixel_stdev`` clipped scatter of the pixels of one image, that of
    light and response [adu]; ``raw_var`` clipped variance of half the difference [adu^2];
    ``row_mean_variance`` of the row means of the whole difference [adu^2]; ``pair_gain`` [electron / adu]; ``hist_var``
    [adu^2], ``hist_chi2_dof``, ``ks_pvalue`` of the test of the whole difference; ``n_pixel`` good pixels before
    clipping; ``valid``: mean, variance and all covariances are known; ``covariance`` (lags, lags) [adu^2] at
    (i, j) = (serial, parallel), its weight 1 / sigma [1 / adu^2] and its number of pixel pairs.
    """

    raw_mean: float
    raw_delta: float
    pixel_stdev: float
    raw_var: float
    row_mean_variance: float
    pair_gain: float
    hist_var: float
    hist_chi2_dof: float
    ks_pvalue: float
    n_pixel: int
    valid: bool
    covariance: FloatArray
    covariance_sqrt_weight: FloatArray
    n_lag: IntArray


def measure_pair(
    image1: Pixels, image2: Pixels, bad: BoolArray, noise: float = math.nan, rules: PairRules | None = None
) -> PairStatistics:
    """Measure one amp in a pair of flats.

    Parameters
    ----------
    image1, image2 : (y, x) float32 [adu], overscan subtracted, edges cut off
    bad : (y, x) bool, pixels to leave out; those that are not finite in both images are left out as well
    noise : read noise [adu], for the gain
    rules : PairRules, optional

    Notes
    -----
    Different from upstream on purpose: a pixel must be good in *both* exposures, whatever the number in each; an amp is
    refused if mu is not positive, where upstream asks that of m1 + m2 / 2; all rows have a mean, the last one too.
    """
    rules = rules or PairRules()
    pair = np.empty((2, *image1.shape), np.float32)
    n_pixel, ratio = _select(image1, image2, bad, pair)
    one, two = (clip_many(image, sigma=rules.sigma, iterations=rules.iterations) for image in pair)
    m1, m2 = one.mean, two.mean
    mu, scatter = 0.5 * (m1 + m2), math.sqrt(0.5 * (one.stdev**2 + two.stdev**2))
    result = _nothing(rules)._replace(n_pixel=n_pixel, raw_mean=mu, raw_delta=m2 - m1, pixel_stdev=scatter)
    if math.isfinite(mu) and mu > 0:
        result = result._replace(pair_gain=pair_gain(ratio, mu, noise, rules.gain_correction))
        if n_pixel >= rules.min_pixels:
            result = result._replace(**_measure_difference(_difference(pair, m1, m2, rules), rules))
    if rules.gaussianity:
        tested = fit_gaussian(pair[0] - pair[1], mu) if result.valid else (math.nan, math.nan, 0.0)
        result = result._replace(hist_var=tested[0], hist_chi2_dof=tested[1], ks_pvalue=tested[2])
    return result


def _nothing(rules: PairRules) -> PairStatistics:
    nan, square = math.nan, (rules.lags, rules.lags)
    empty = np.full(square, nan), np.full(square, nan), np.zeros(square, np.int64)
    return PairStatistics(nan, nan, nan, nan, nan, nan, nan, nan, 1.0, 0, False, *empty)


def _difference(pair: Pixels, m1: float, m2: float, rules: PairRules) -> Pixels:
    """Weighted difference D (y, x) float32, NaN where a pixel is not good."""
    out = np.empty(pair.shape[1:], np.float32)
    mu = 0.5 * (m1 + m2)
    if rules.float32_difference:
        _subtract(pair, np.float32(m1), np.float32(m2), np.float32(1 / np.float32(mu)), out)
    else:
        _subtract(pair, m1, m2, 1 / mu, out)
    return out


def _measure_difference(difference: Pixels, rules: PairRules) -> dict[str, Any]:
    """Those of `PairStatistics` that follow from the difference."""
    clipped = clip_many(difference, sigma=rules.sigma, iterations=rules.iterations)
    bound, center = rules.sigma * clipped.stdev, clipped.mean
    good, row_mean = np.empty(difference.shape, np.bool_), np.empty(len(difference), np.float32)
    if rules.absolute_bound:
        n_good = _accept(difference, 0.0, center + bound, good, row_mean)
    else:
        n_good = _accept(difference, center, bound, good, row_mean)
    rows = clip_many(row_mean, sigma=rules.sigma, iterations=rules.iterations)
    result: dict[str, Any] = {"row_mean_variance": rows.stdev**2}
    if n_good < rules.min_pixels:
        return result
    factor = clip_bias(rules.sigma)
    variance = 0.5 * clipped.stdev**2 * factor
    if not rules.sample_variance:
        variance *= (clipped.n - 1) / clipped.n
    found = lag_covariance(difference, good, rules.lags, center=center)
    covariance = 0.5 * found.cov
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.sqrt(found.n) / covariance[0, 0]
    weight[0, 0] /= math.sqrt(2.0)
    covariance *= factor**2
    covariance[0, 0] /= factor
    valid = bool((found.n > 0).all()) and math.isfinite(variance)
    return result | {
        "raw_var": variance, "valid": valid, "n_lag": found.n,
        "covariance": covariance, "covariance_sqrt_weight": weight,
    }  # fmt: skip


def clip_bias(sigma: float) -> float:
    """Variance of a Gaussian over that of its values within ``sigma`` standard deviations of the mean."""
    density = math.exp(-0.5 * sigma**2) / math.sqrt(2 * math.pi)
    return 1 / (1 - 2 * sigma * density / math.erf(sigma / math.sqrt(2)))


def pair_gain(ratio: float, mean: float, noise: float, correction: GainCorrection = "FULL") -> float:
    """Gain from one flat pair (reference/ptc_linearity.md 5).

    Parameters
    ----------
    ratio : mean of (I1 - I2)^2 / (I1 + I2) over the good pixels [adu]
    mean : mean signal mu [adu]
    noise : read noise s [adu]; not finite: no correction
    correction : str
        "NONE" 1 / c; "SIMPLE" and "FULL" as published, to first order in 1 / mu, low by 1 / (2 g mu); "SIMPLE_AS_CODED"
        with the stack's precedence of operators; "UNBIASED" 1 / (c - s^2 / mu), exact to first order for Poisson light.

    Returns
    -------
    Gain [electron / adu]; NaN if there is none.
    """
    if not (math.isfinite(ratio) and ratio > 0 and mean > 0):
        return math.nan
    if correction == "NONE" or not math.isfinite(noise):
        return 1 / ratio
    square = noise**2
    if correction == "FULL":
        root = mean**2 - 2 * mean * ratio + 2 * square
        return (mean + math.sqrt(root)) / (2 * ratio * mean - 2 * square) if root >= 0 else math.nan
    shift = {"SIMPLE": 0.5 * ratio**2, "SIMPLE_AS_CODED": 0.5 / ratio**2, "UNBIASED": 0.0}[correction]
    return 1 / (ratio - (square - shift) / mean)


def fit_gaussian(difference: Pixels, mean: float) -> tuple[float, float, float]:
    """Test whether I1 - I2 is Gaussian, as upstream does (reference/ptc_linearity.md 4).

    Parameters
    ----------
    difference : float32, any shape [adu]; NaN = excluded
    mean : mu [adu]

    Returns
    -------
    Variance of the Gaussian fitted to a histogram [adu^2], its chi2 per degree of freedom, and the p-value of a
    Kolmogorov-Smirnov test against it (0 below 1e-15); NaN, NaN, 0 with fewer than 100 values or without a fit.
    """
    from scipy.stats import kstest  # takes a second, and only this function needs it

    values = difference[np.isfinite(difference)].astype(np.float64)
    limit = _HISTOGRAM_WIDTH * math.sqrt(mean)
    counts, edges = np.histogram(values, _HISTOGRAM_BINS, (-limit, limit))
    if values.size < _HISTOGRAM_BINS or not counts.any():
        return math.nan, math.nan, 0.0
    x, weight = 0.5 * (edges[1:] + edges[:-1]), 1 / np.sqrt(np.maximum(counts, 1))

    def residual(p: FloatArray) -> FloatArray:
        model = p[0] * np.exp(-0.5 * ((x - p[1]) / p[2]) ** 2)
        return np.asarray(weight * (counts - model))

    start = np.array([counts.max(), values.mean(), values.std()])
    fit = least_squares(residual, start, x_scale=np.maximum(np.abs(start), 1e-6 * limit))
    if not fit.success:
        return math.nan, math.nan, 0.0
    sigma = abs(float(fit.x[2]))
    p = float(kstest(values, "norm", (float(fit.x[1]), sigma)).pvalue)
    return sigma**2, 2 * float(fit.cost) / (_HISTOGRAM_BINS - 3), p if p >= _SMALLEST_P else 0.0


def unvignetted(radius: FloatArray, coefficients: Sequence[float], percent: float, min_pixels: int) -> BoolArray:
    """Return which pixels of an amp are about as bright as its brightest (reference/ptc_linearity.md 3).

    Parameters
    ----------
    radius : (y, x) float64, distance from the centre of the focal plane [m]
    coefficients : of the relative illumination as a polynomial of the radius, highest power first
    percent : tolerated loss against the brightest pixel [%], raised in steps of 1 until enough pixels remain
    min_pixels : how many are enough; at most all
    """
    light = np.polyval(np.asarray(coefficients), radius)
    floor = light.max() * (1 - percent / 100)
    while np.count_nonzero(light > floor) < min(min_pixels, light.size) and percent < 100:
        percent += 1
        floor = light.max() * (1 - percent / 100)
    return np.asarray(light > floor)


@compiled
def bad_pixels(mask1: Mask, mask2: Mask, reject: np.int32) -> BoolArray:
    """Pixels (y, x) with a mask bit of ``reject`` in either of two masks, int32; bool."""
    out: BoolArray = np.empty(mask1.shape, np.bool_)
    for y in range(out.shape[0]):
        a, b, row = mask1[y], mask2[y], out[y]
        for x in range(row.size):
            row[x] = ((a[x] | b[x]) & reject) != 0
    return out


@compiled(error_model="numpy")
def _select(image1: Pixels, image2: Pixels, bad: BoolArray, pair: Pixels) -> tuple[int, float]:
    """Copy the pixels that are good in both images, NaN the others; their number, mean of (I1 - I2)^2 / (I1 + I2)."""
    total, n = 0.0, 0
    largest, nan = np.float32(np.finfo(np.float32).max), np.float32(np.nan)
    for y in range(image1.shape[0]):
        a, b, skip, out1, out2 = image1[y], image2[y], bad[y], pair[0, y], pair[1, y]
        for x in range(a.size):
            good = (abs(a[x]) <= largest) & (abs(b[x]) <= largest) & (not skip[x])
            out1[x] = a[x] if good else nan
            out2[x] = b[x] if good else nan
        row = _add_ratios(out1, out2)
        total += row[0]
        n += row[1]
    return n, total / n


@compiled(fastmath={"reassoc", "contract"}, error_model="numpy")
def _add_ratios(a: Pixels, b: Pixels) -> tuple[float, int]:
    total, n = 0.0, 0
    for x in range(a.size):
        difference = a[x] - b[x]
        ratio = difference * difference / (a[x] + b[x])
        good = a[x] == a[x]
        total += np.float64(ratio) if good else 0.0
        n += good
    return total, n


@compiled
def _subtract(pair: Pixels, m1: Number, m2: Number, reciprocal: Number, out: Pixels) -> None:
    """Weighted difference in the precision of the means; operations neither fused nor reordered."""
    for y in range(out.shape[0]):
        a, b, row = pair[0, y], pair[1, y], out[y]
        for x in range(row.size):
            row[x] = (m2 * a[x] - m1 * b[x]) * reciprocal


@compiled(error_model="numpy")
def _accept(difference: Pixels, center: float, bound: float, good: BoolArray, row_mean: Pixels) -> int:
    """Mark pixels within ``center +- bound``; mean of all finite ones of each row; returns the number marked."""
    n_good = 0
    for y in range(difference.shape[0]):
        n, row_mean[y] = _accept_row(difference[y], center, bound, good[y])
        n_good += n
    return n_good


@compiled(fastmath={"reassoc", "contract"}, error_model="numpy")
def _accept_row(row: Pixels, center: float, bound: float, good: BoolArray) -> tuple[int, np.float32]:
    n_good, n, total = 0, 0, 0.0
    for x in range(row.size):
        there = row[x] == row[x]
        good[x] = abs(np.float64(row[x]) - center) <= bound
        n_good += good[x]
        n += there
        total += np.float64(row[x]) if there else 0.0
    return n_good, np.float32(total / n)
