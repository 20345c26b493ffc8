"""Spline linearity of one amp after P. Astier: one Akima spline, one slope per group of flats, nuisance terms.

See reference/ptc_linearity.md 12.  With m = y (1 + alpha T) (1 + beta t) the signal corrected for temperature T and
time t, the residual of a flat of abscissa D in group j is

    r = w [ (m - S(m) - O) / (k_j D) - 1 ],    w = 1 / sqrt(w0^2 + w1^2 / y)

The spline is linear in its node values and in its slopes at the nodes, and these are functions of few values, so
the derivatives are known and Levenberg-Marquardt needs a few steps of less than a millisecond.

Where we differ from today's system: S(0) = 0 holds exactly because the first node value is no parameter; points
above the turnoff are cut by their signal, not by their row; the degrees of freedom count the node values; outliers are
judged by the scatter of points of like signal if it is larger than that of all, lest photon noise reject faint flats;
nodes that the flats do not support are left out, and a spline that misbehaves between the flats is fitted anew with
fewer (:mod:`camcal_dask.kernels.linearity.nodes`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import leastsq

from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import BoolArray, FloatArray, IndexArray, IntArray
from camcal_dask.kernels.linearity.akima import akima_jacobian, akima_spline
from camcal_dask.kernels.linearity.fit import mad_sigma
from camcal_dask.kernels.linearity.nodes import (
    coarser_nodes,
    find_levels,
    level_signals,
    measure_shape,
    still_supported,
    wild_levels,
)

_MEAN_POINTS = 100
_WALL = 1e10
_SMOOTH = 1e-3
_EARLY_ROUNDS, _EARLY_SIGMA = 2, 20.0
_NEARLY = 0.8
_LIKE = 30


@dataclass(frozen=True)
class SplineTerms:
    """Which terms are fitted, and the rules of rejection."""

    offset: bool = False
    temperature: bool = False
    temporal: bool = False
    weights: bool = False
    weight_start: tuple[float, float] = (1.0, 0.0)
    """w0 and w1; kept if ``weights`` is False."""
    max_correction: float | None = None
    """Largest correction at the last node [adu]; None: a quarter of that node."""
    n_sigma: float = 5.0
    at_most: int = 4
    """Points rejected in a round."""
    min_rounds: int = 3
    max_rounds: int = 20


@dataclass(frozen=True, eq=False)
class Ramp:
    """One amp's flats: arrays (flat,).

    ``abscissa`` [s or C], ``ordinate`` [adu], ``group`` 0 .. (n_group - 1) or -1 (none), ``temperature`` and ``time``
    relative to their medians.
    """

    abscissa: FloatArray
    ordinate: FloatArray
    group: IntArray
    temperature: FloatArray
    time: FloatArray

    def take(self, index: IndexArray) -> Ramp:
        """Return only these flats."""
        return Ramp(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


class SplineFit(NamedTuple):
    """Result for one amp.

    ``values`` [adu] at ``nodes`` [adu] are subtracted from the signal; ``slopes`` (group,) [adu per abscissa], NaN in
    groups without good flat;
    ``offset`` [adu]; ``weight`` (w0, w1); ``temperature``, ``temporal`` coefficients alpha, beta; ``used`` (flat,) the
    points that survived; ``chi2`` reduced.
    """

    nodes: FloatArray
    values: FloatArray
    slopes: FloatArray
    offset: float
    weight: tuple[float, float]
    temperature: float
    temporal: float
    used: BoolArray
    chi2: float

    def correct(self, signal: FloatArray) -> FloatArray:
        """Subtract the spline from signals (n,) [adu], as is done to pixels."""
        return np.asarray(signal - akima_spline(self.nodes, self.values, signal))

    def signal(self, ramp: Ramp) -> FloatArray:
        """Signal (flat,) [adu] without the nuisance terms: linear in each group's abscissa."""
        m = ramp.ordinate * (1 + self.temperature * ramp.temperature) * (1 + self.temporal * ramp.time)
        return self.correct(m) - self.offset

    def scaled_abscissa(self, ramp: Ramp) -> FloatArray:
        """Abscissa (flat,) with the groups brought to their mean slope; NaN in groups without slope."""
        known = np.where(ramp.group >= 0, self.slopes[ramp.group], np.nan)
        return np.asarray(ramp.abscissa * known / np.nanmean(self.slopes))

    def parameters(self, terms: SplineTerms) -> FloatArray:
        """Slopes, then offset, w0, w1, alpha, beta as far as they are fitted."""
        optional = [(terms.offset, self.offset), *((terms.weights, w) for w in self.weight)]
        optional += [(terms.temperature, self.temperature), (terms.temporal, self.temporal)]
        return np.concatenate([self.slopes, [value for fitted, value in optional if fitted]])


@dataclass(frozen=True, eq=False)
class _Model:
    """Residuals and derivatives for the flats in use; parameters are ordered as ``split`` says."""

    ramp: Ramp
    nodes: FloatArray
    n_group: int
    terms: SplineTerms
    nearly_linear: float
    offset_scale: float
    slope_scale: FloatArray

    def split(self, p: FloatArray) -> tuple[FloatArray, FloatArray, float, tuple[float, float], float, float]:
        """Node values, slopes, offset, weights, alpha and beta of a parameter vector."""
        n = len(self.nodes) - 1
        values = np.concatenate([[0.0], p[:n]])
        slopes = p[n : n + self.n_group] * self.slope_scale
        rest = iter(p[n + self.n_group :].tolist())
        offset = next(rest) * self.offset_scale if self.terms.offset else 0.0
        weight = (next(rest), next(rest)) if self.terms.weights else self.terms.weight_start
        alpha = next(rest) if self.terms.temperature else 0.0
        beta = next(rest) if self.terms.temporal else 0.0
        return values, slopes, offset, weight, alpha, beta

    def weight(self, pair: tuple[float, float]) -> FloatArray:
        return 1 / np.sqrt(pair[0] ** 2 + pair[1] ** 2 / np.maximum(self.ramp.ordinate, 1.0))

    def data_residual(self, p: FloatArray) -> FloatArray:
        """(flat,) weighted relative residuals."""
        values, slopes, offset, weight, alpha, beta = self.split(p)
        ramp = self.ramp
        m = ramp.ordinate * (1 + alpha * ramp.temperature) * (1 + beta * ramp.time)
        linear = m - akima_spline(self.nodes, values, m) - offset
        return np.asarray(self.weight(weight) * (linear / (slopes[ramp.group] * ramp.abscissa) - 1))

    def residual(self, p: FloatArray) -> FloatArray:
        """Residuals of the data, then of the conditions: mean of the spline, its end, smoothness, the weights."""
        values, _, _, weight, _, _ = self.split(p)
        data = self.data_residual(p)
        mean = self._mean_weight() * akima_spline(self.nodes, values, self._mean_points()).mean()
        last, limit = abs(values[-1]), self.terms.max_correction
        wall = _WALL * float(last > (0.25 * self.nodes[-1] if limit is None else limit))
        parts = [data, np.array([mean, wall]), self._smoothness() @ values[1:]]
        if self.terms.weights:
            largest = self.weight(self.terms.weight_start).max()
            parts.append(np.sqrt(-2 * np.log(np.minimum(1e-3 * self.weight(weight) / largest, 1.0))))
        return np.concatenate(parts)

    def _mean_weight(self) -> float:
        """Weight of the mean of the spline [1/adu]: any serves, for the data do not know it; this one scales well."""
        return float(np.linalg.norm(self.weight(self.terms.weight_start)) / self.nearly_linear)

    def _smoothness(self) -> FloatArray:
        """Matrix (n - 3, n - 1) from node values to weak conditions on second differences of the relative correction.

        They decide only where no flat lies between the nodes; without them such node values run away.
        """
        weight = _SMOOTH * float(self.weight(self.terms.weight_start).mean())
        return np.asarray(weight * np.diff(np.eye(len(self.nodes) - 1), 2, axis=0) / self.nodes[1:])

    def _mean_points(self) -> FloatArray:
        return np.linspace(0.0, self.nearly_linear, _MEAN_POINTS)

    def jacobian(self, p: FloatArray) -> FloatArray:
        """Derivatives of `residual`: closed forms, and central differences for the few nuisance terms."""
        values, slopes, _, weight, alpha, beta = self.split(p)
        ramp, n = self.ramp, len(values) - 1
        m = ramp.ordinate * (1 + alpha * ramp.temperature) * (1 + beta * ramp.time)
        k = slopes[ramp.group]
        to_relative = self.weight(weight) / (k * ramp.abscissa)
        n_data = len(m)
        out = np.zeros((len(self.residual(p)), len(p)))
        out[:n_data, :n] = -to_relative[:, None] * akima_jacobian(self.nodes, values, m)[:, 1:]
        out[n_data, :n] = self._mean_weight() * akima_jacobian(self.nodes, values, self._mean_points())[:, 1:].mean(0)
        smooth = self._smoothness()
        out[n_data + 2 : n_data + 2 + len(smooth), :n] = smooth
        signal = self.data_residual(p) + self.weight(weight)
        out[np.arange(n_data), n + ramp.group] = -signal * self.slope_scale[ramp.group] / k
        for i in range(n + self.n_group, len(p)):
            step = np.zeros_like(p)
            step[i] = 1e-6 * max(abs(p[i]), 1e-3)
            out[:, i] = (self.residual(p + step) - self.residual(p - step)) / (2 * step[i])
        return out


def fit_spline(
    ramp: Ramp, used: BoolArray, nodes: FloatArray, nearly_linear: float, terms: SplineTerms, outer_rounds: int = 1
) -> SplineFit:
    """Fit one amp, rejecting outliers.

    Parameters
    ----------
    ramp : Ramp
    used : (flat,) points to begin with: good, and not above the turnoff
    nodes : (n,) [adu], rising from 0: those wanted; fewer are taken where the flats have too few distinct levels
    nearly_linear : [adu] signal up to which the mean of the spline is 0 (what makes it and the slopes unique)
    terms : SplineTerms
    outer_rounds : how often the nuisance terms are folded into the data and everything is fitted anew

    Raises
    ------
    DataError
        If the flats have too few distinct levels, or no spline through them behaves between them.
    """
    there = np.unique(ramp.group[used & (ramp.group >= 0)])
    if not there.size:
        raise DataError("spline linearity: no good flat below the turnoff")
    known = np.isin(ramp.group, there)
    compact = replace(ramp, group=np.where(known, np.searchsorted(there, ramp.group), -1))
    fit = _fit_tame(compact, used & known, nodes, nearly_linear, terms, outer_rounds)
    slopes = np.full(int(ramp.group.max()) + 1, np.nan)
    slopes[there] = fit.slopes
    return fit._replace(slopes=slopes)


def _fit_tame(
    ramp: Ramp, used: BoolArray, nodes: FloatArray, nearly_linear: float, terms: SplineTerms, outer_rounds: int
) -> SplineFit:
    """Fit with as many nodes as the levels support, with fewer if the correction misbehaves between the levels."""
    good = _usable(ramp, used)
    good &= ~_wild(ramp, good, nearly_linear, terms.n_sigma)
    levels = level_signals(ramp.ordinate, find_levels(ramp.abscissa, ramp.group, good))
    others = int(ramp.group.max()) + 1 + int(terms.offset) + int(terms.temperature) + int(terms.temporal)
    tried = None
    for supported in coarser_nodes(nodes, levels):
        if len(levels) >= len(supported) - 1 + others:
            fit = _fit_outer(ramp, good, supported, nearly_linear, terms, outer_rounds)
            tried = measure_shape(fit.correct, levels)
            if tried.tame:
                return fit
    if tried is not None:
        raise DataError(
            f"spline linearity: between {len(levels)} distinct levels of light the correction departs by "
            f"{tried.wander:.2g} of the signal (least slope {tried.slope:.2g}); are all the flats good?"
        )
    raise DataError(
        f"spline linearity: {int(good.sum())} good flats of {len(levels)} distinct levels do not determine a spline, "
        f"{others} slopes and other terms; take more levels, or fewer groups and terms"
    )


def _wild(ramp: Ramp, good: BoolArray, nearly_linear: float, n_sigma: float) -> BoolArray:
    """Flats (flat,) of levels with other light than their neighbours', group by group."""
    wild = np.zeros(len(good), bool)
    level = find_levels(ramp.abscissa, ramp.group, good)
    for g, slope in enumerate(_slopes(ramp, good, nearly_linear)):
        mine = np.flatnonzero(good & (ramp.group == g))
        x, y = ramp.abscissa[mine], ramp.ordinate[mine]
        wild[mine] = np.isin(level[mine], wild_levels(y / (slope * x), y, level[mine], n_sigma))
    return wild


def _usable(ramp: Ramp, used: BoolArray) -> BoolArray:
    positive = (ramp.abscissa > 0) & (ramp.ordinate > 0)
    return np.asarray(used & (ramp.group >= 0) & np.isfinite(ramp.abscissa) & positive)


def _fit_outer(
    ramp: Ramp, used: BoolArray, nodes: FloatArray, nearly_linear: float, terms: SplineTerms, outer_rounds: int
) -> SplineFit:
    total = _fit_once(ramp, used, nodes, nearly_linear, terms)
    for _ in range(outer_rounds - 1):
        again = _fit_once(_folded(ramp, total), total.used, nodes, nearly_linear, terms)
        a, b = total.temperature, total.temporal
        total = again._replace(
            slopes=again.slopes * total.slopes / total.slopes.mean(),
            offset=again.offset + total.offset,
            temperature=a + again.temperature + a * again.temperature,
            temporal=b + again.temporal + b * again.temporal,
        )
    return total


def _folded(ramp: Ramp, fit: SplineFit) -> Ramp:
    """Data with the nuisance terms of a fit taken out."""
    m = ramp.ordinate * (1 + fit.temperature * ramp.temperature) * (1 + fit.temporal * ramp.time) - fit.offset
    return replace(ramp, ordinate=m, abscissa=fit.scaled_abscissa(ramp))


def _fit_once(ramp: Ramp, used: BoolArray, nodes: FloatArray, nearly_linear: float, terms: SplineTerms) -> SplineFit:
    n_group = int(ramp.group.max()) + 1
    good = _usable(ramp, used)
    slopes, values = _start(ramp, good, nodes, nearly_linear)
    free_terms = int(terms.temperature) + int(terms.temporal)
    p = np.concatenate([values[1:], np.ones(n_group), np.zeros(int(terms.offset))])
    p = np.concatenate([p, terms.weight_start if terms.weights else (), np.zeros(free_terms)])
    scale = 0.01 * float(np.median(ramp.ordinate[good]))
    whole = _Model(ramp, nodes, n_group, terms, nearly_linear, scale, slopes)
    level = find_levels(ramp.abscissa, ramp.group, good)
    for round_ in range(terms.max_rounds):
        model = replace(whole, ramp=ramp.take(np.flatnonzero(good)))
        p = leastsq(model.residual, p, Dfun=model.jacobian, ftol=1e-9, xtol=1e-9, maxfev=200, full_output=1)[0]
        residual = model.data_residual(p)
        n_sigma = _EARLY_SIGMA if round_ < _EARLY_ROUNDS else terms.n_sigma
        worst = _outliers(residual, model.ramp.ordinate, len(p), n_sigma, terms.at_most)
        left = good.copy()
        left[np.flatnonzero(good)[worst]] = False
        left |= good & ~still_supported(nodes, ramp.ordinate, np.where(left, level, -1))
        rejected, good = bool((good & ~left).any()), left
        if not rejected and round_ + 1 >= terms.min_rounds:
            break
    free = max(len(residual) - len(p) + 1, 1)
    fitted_values, k, offset, weight, alpha, beta = whole.split(p)
    chi2 = float((residual**2).sum() / free)
    return SplineFit(nodes, fitted_values, k, offset, weight, alpha, beta, good, chi2)


def _outliers(residual: FloatArray, signal: FloatArray, n_free: int, n_sigma: float, at_most: int) -> BoolArray:
    """Points beyond n_sigma and among the largest few, in units of the scatter of all or of those of like signal.

    A fit of ``n_free`` parameters takes its share of the scatter of few points; it is given back.
    """
    share = np.sqrt(len(residual) / max(len(residual) - n_free, 1))
    scatter = np.full(len(residual), mad_sigma(residual))
    for like in np.array_split(np.argsort(signal), max(1, len(signal) // _LIKE)):
        scatter[like] = np.maximum(scatter[like], mad_sigma(residual[like]))
    size = np.abs(residual) / np.maximum(share * scatter, np.finfo(float).tiny)
    few = np.partition(size, -at_most - 1)[-at_most - 1] if len(size) > at_most else 0.0
    return np.asarray(size > max(float(few), n_sigma))


def _slopes(ramp: Ramp, good: BoolArray, nearly_linear: float) -> FloatArray:
    """Slopes (group,) of lines through the origin in the nearly linear part; NaN without good flats."""
    x, y = ramp.abscissa, ramp.ordinate
    slopes = np.full(int(ramp.group.max()) + 1, np.nan)
    for g in np.unique(ramp.group[good]):
        mine = good & (ramp.group == g)
        low = mine & (y < _NEARLY * nearly_linear)
        low = low if low.sum() > 1 else mine & (y <= np.quantile(y[mine], 0.25))
        slopes[g] = x[low].sum() / (x[low] ** 2 / y[low]).sum()
    return slopes


def _start(ramp: Ramp, good: BoolArray, nodes: FloatArray, nearly_linear: float) -> tuple[FloatArray, FloatArray]:
    """Slopes of lines through the origin in the nearly linear part, and node values from what is left."""
    x, y, slopes = ramp.abscissa, ramp.ordinate, _slopes(ramp, good, nearly_linear)
    ratio = y[good] / (slopes[ramp.group] * x)[good]
    middle = float(np.median(ratio))
    slopes, ratio = slopes * middle, ratio / middle
    bins = np.searchsorted((nodes[1:] + nodes[:-1]) / 2, y[good])
    count = np.bincount(bins, minlength=len(nodes))
    mean = np.bincount(bins, ratio - 1, minlength=len(nodes)) / np.maximum(count, 1)
    filled = np.interp(nodes, nodes[count > 0], mean[count > 0])
    return slopes, filled * nodes


def uniform_nodes(ordinate: FloatArray, n_node: int = 10) -> FloatArray:
    """Equally spaced nodes (n_node,) from 0 to just above the largest of these signals [adu]."""
    return np.linspace(0.0, float(ordinate.max()) + 1, n_node)
