"""Ratios of the gains of a detector's amps from the steps that a smooth flat shows between them.

See reference/ptc_linearity.md 8, reference/construction.md 12 and Q28.  The model of a binned flat is

    value = ratio(amp) S(radius) P(x, y),

a ratio per amp, a spline about the optical axis, a Chebyshev field.  Upstream fits S to the values, then P to what is
left, then takes the ratios, so that part of the steps leaks into S and P (and it drops amps with large steps to limit
that).  Here all three are fitted together by Gauss-Newton steps: nothing leaks, whatever the ratios are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.interpolate import BSpline

from camcal_dask.kernels.arrays import FloatArray, IntArray
from camcal_dask.kernels.linearity.fit import mad_sigma

_MAX_STEPS = 12
_CONVERGED = 1e-10
_ROUNDS = 4


def reference_amp(gain: FloatArray, noise: FloatArray, turnoff: FloatArray, *, max_noise: float = 12.0) -> int | None:
    """Return the amp of median gain among those of low noise and not too early a turnoff, None if it is the only one.

    Parameters
    ----------
    gain, noise, turnoff : (n_amp,) [electron/adu, electron, adu], NaN for bad amps
    max_noise : [electron]
    """
    good = np.isfinite(gain) & np.isfinite(turnoff) & (noise <= max_noise)
    if not good.any():
        return None
    good &= turnoff >= np.percentile(turnoff[good], 25)
    candidates = np.flatnonzero(good)
    if len(candidates) < 2:
        return None
    return int(candidates[np.argsort(gain[candidates], kind="stable")][len(candidates) // 2])


def ratios_from_offsets(offset: FloatArray, reference_mean: FloatArray, reference: int, min_pairs: int) -> FloatArray:
    """Gains over that of the reference amp, from the steps between amps in images in adu.

    At the same light an amp of gain g has the level L / g, and the steps at the edges carry the difference of levels:
    g / g_ref = 1 / (1 + (offset - offset_ref) / mean_ref).

    Parameters
    ----------
    offset : (n_amp, n) float64, pedestals of the amps [adu], NaN where not measured
    reference_mean : (n,) float64, mean of the reference amp [adu]
    reference : index of the reference amp
    min_pairs : fewer values give no ratio

    Returns
    -------
    (n_amp,) float64: medians over n; NaN without enough values.
    """
    ratio = 1 / (1 + (offset - offset[reference]) / reference_mean)
    enough = np.isfinite(ratio).sum(axis=1) >= max(min_pairs, 1)
    out = np.full(len(offset), np.nan)
    out[enough] = np.nanmedian(ratio[enough], axis=1) if ratio.size else np.nan
    return out


def radial_basis(radius: FloatArray, n_nodes: int) -> FloatArray:
    """Cubic B-splines (m, n_nodes + 2) on nodes spread over the range of ``radius`` (m,); (m, 0) for no nodes."""
    if n_nodes < 2:
        return np.zeros((len(radius), 0))
    nodes = np.linspace(radius.min(), radius.max(), n_nodes)
    knots = np.concatenate([[nodes[0]] * 3, nodes, [nodes[-1]] * 3])
    return np.asarray(BSpline.design_matrix(radius, knots, 3).toarray())


def chebyshev_basis(x: FloatArray, y: FloatArray, width: int, height: int, order: int) -> FloatArray:
    """Products T_i(x) T_j(y), i, j <= ``order``, without the constant: (m, (order + 1)^2 - 1); [pixel] of the CCD."""
    u, v = 2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1
    products = np.polynomial.chebyshev.chebvander2d(u, v, [order, order])
    return np.asarray(products[:, 1:])


def fit_gain_ratios(
    values: FloatArray,
    amp: IntArray,
    n_amp: int,
    radial: FloatArray,
    field: FloatArray,
    *,
    n_sigma: float = 5.0,
) -> FloatArray:
    """Fit one flat.

    Values beyond [0.8 P5, 1.2 P95] do not count, nor those that deviate by ``n_sigma`` robust sigma from the model.

    Parameters
    ----------
    values : (m,) float64, any unit, NaN = no data
    amp : (m,) int, amp of each value
    n_amp : int
    radial, field : (m, k), (m, l) of :func:`radial_basis` and :func:`chebyshev_basis`

    Returns
    -------
    (n_amp,) float64 relative to their median; NaN for an amp without values.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(n_amp, np.nan)
    low, high = np.percentile(values[finite], (5, 95))
    used = finite & (values >= 0.8 * low) & (values <= 1.2 * high)
    medians = [np.median(values[used & (amp == k)]) if (used & (amp == k)).any() else np.nan for k in range(n_amp)]
    model = _Model(np.array(medians), np.ones(radial.shape[1]), np.zeros(field.shape[1]))
    for _ in range(_ROUNDS):
        model, residual = _fit(model, values[used], amp[used], radial[used], field[used])
        spread = mad_sigma(residual)
        keep = np.abs(residual) <= max(n_sigma * spread, 1e-12)
        if keep.all():
            break
        used[np.flatnonzero(used)[~keep]] = False
    return np.asarray(model.ratio / np.nanmedian(model.ratio))


class _Model(NamedTuple):
    ratio: FloatArray  # (n_amp,)
    spline: FloatArray  # (k,)
    chebyshev: FloatArray  # (l,)


def _fit(
    model: _Model, values: FloatArray, amp: IntArray, radial: FloatArray, field: FloatArray
) -> tuple[_Model, FloatArray]:
    """Gauss-Newton steps from ``model`` to the least relative residuals; the model and those (m,)."""
    ratio, spline, chebyshev = model
    count = np.bincount(amp, minlength=len(ratio))
    residual = np.zeros_like(values)
    for _ in range(_MAX_STEPS):
        s = radial @ spline if len(spline) else np.ones_like(values)
        p = 1 + field @ chebyshev
        residual = values / (ratio[amp] * s * p) - 1
        columns = np.concatenate([radial / s[:, None], field / p[:, None], residual[:, None]], axis=1)
        # The ratios take up the means of each amp; the rest of the model is fitted to what is left within the amps.
        sums = np.stack([np.bincount(amp, column, minlength=len(ratio)) for column in columns.T], axis=1)
        mean = sums / np.maximum(count, 1)[:, None]
        gram = columns.T @ columns - sums.T @ mean
        step = np.linalg.lstsq(gram[:-1, :-1], gram[:-1, -1], rcond=1e-13)[0]
        of_amp = mean[:, -1] - mean[:, :-1] @ step
        ratio = ratio * (1 + of_amp)
        spline, chebyshev = spline + step[: len(spline)], chebyshev + step[len(spline) :]
        if np.abs(columns[:, :-1] @ step + of_amp[amp]).max(initial=0.0) < _CONVERGED:
            break
    return _Model(ratio, spline, chebyshev), residual
