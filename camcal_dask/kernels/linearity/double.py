"""Double spline linearity of a detector: amps relative to one amp, and that one against the light.

See reference/ptc_linearity.md 12.  Ratios of amps in one exposure do not know how much light there was,
so the relative splines are free of lamp and shutter; the absolute one is common to all amps of the detector.

Where we differ from today's system: a relative spline aims at what the absolute one makes linear, see `fit_relative`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import BoolArray, FloatArray
from camcal_dask.kernels.linearity.akima import akima_spline
from camcal_dask.kernels.linearity.spline import Ramp, SplineFit, SplineTerms, fit_spline

_FIRST_NODE = 100.0
_INVERSIONS = 8
_NODES_BELOW_TURNOFF, _NODES_ABOVE_TURNOFF = 5, 3


@dataclass(frozen=True)
class NodeSizes:
    """Wanted distance of nodes [adu]: up to ``low_end``, from there to the PTC turnoff, and beyond it."""

    low: float = 750.0
    middle: float = 5000.0
    high: float = 2000.0
    low_end: float = 5000.0


class Ratios(NamedTuple):
    """Levels of one exposure: of the reference amp [adu], and of each amp (amp,) relative to it."""

    reference: float
    amp: FloatArray


def place_nodes(ptc_turnoff: float, linear_turnoff: float, sizes: NodeSizes) -> FloatArray:
    """Nodes of a relative spline.

    0; then [100, low_end], [low_end, PTC turnoff] with at least 5 and [PTC turnoff, linear turnoff] with at least 3
    nodes.  A range of width w gets ``linspace`` with max(least, ceil(w / size)) nodes, both ends counted, and shared
    ends are kept once.  A PTC turnoff below ``low_end`` leaves one range from 0 to it.

    Returns
    -------
    (n,) [adu], rising.
    """
    if ptc_turnoff < sizes.low_end:
        parts = [_range(0.0, ptc_turnoff, sizes.middle, _NODES_BELOW_TURNOFF)]
    else:
        parts = [
            np.zeros(1),
            _range(_FIRST_NODE, sizes.low_end, sizes.low, 2),
            _range(sizes.low_end, ptc_turnoff, sizes.middle, _NODES_BELOW_TURNOFF),
        ]
    if linear_turnoff > ptc_turnoff:
        parts.append(_range(ptc_turnoff, linear_turnoff, sizes.high, _NODES_ABOVE_TURNOFF))
    return np.unique(np.concatenate(parts))


def absolute_nodes(ptc_turnoff: float, linear_turnoff: float, size: float) -> FloatArray:
    """Nodes [adu] of the absolute spline: at about ``size``, one exactly at the PTC turnoff."""
    parts = [_range(0.0, min(ptc_turnoff, linear_turnoff), size, _NODES_BELOW_TURNOFF)]
    if linear_turnoff > ptc_turnoff:
        parts.append(_range(ptc_turnoff, linear_turnoff, size, 2))
    return np.unique(np.concatenate(parts))


def _range(low: float, high: float, size: float, least: int) -> FloatArray:
    if high <= low:
        return np.array([low])
    return np.linspace(low, high, max(least, int(np.ceil((high - low) / size))))


def choose_reference(
    turnoff: FloatArray, ptc_turnoff: FloatArray, noise: FloatArray, bad: BoolArray, max_noise: float = 12.0
) -> int:
    """Index of the reference amp: the largest turnoff [adu] of those with noise [electron] up to ``max_noise``.

    Raises
    ------
    DataError
        If no amp qualifies.
    """
    fit = ~bad & np.isfinite(turnoff) & np.isfinite(ptc_turnoff) & (noise <= max_noise)
    if not fit.any():
        raise DataError(
            f"double spline: no amp can be the reference: {int(bad.sum())} of {len(bad)} are bad, least noise "
            f"{np.nanmin(np.append(noise, np.inf)):.1f} electron (limit {max_noise})"
        )
    return int(np.argmax(np.where(fit, turnoff, -np.inf)))


def measure_ratios(binned: FloatArray, flat: FloatArray, reference_amp: int) -> Ratios:
    """Levels of one exposure, pixel structure and illumination divided out.

    Parameters
    ----------
    binned : (amp, y, x) binned exposure [adu]
    flat : (amp, y, x) binned reference exposure of the same detector, any unit
    reference_amp : its level normalises ``flat`` and the ratios

    Returns
    -------
    Ratios.  NaN where an amp has no good bin.
    """
    level = np.median(_finite(flat[reference_amp]))
    medians = np.array([_median(b / (f / level)) for b, f in zip(binned, flat, strict=True)])
    return Ratios(float(medians[reference_amp]), medians / medians[reference_amp])


def amp_scaling(flat: FloatArray, reference_amp: int) -> FloatArray:
    """Level of each amp (amp,) of the reference exposure relative to its reference amp."""
    levels = np.array([_median(f) for f in flat])
    return np.asarray(levels / levels[reference_amp])


def _finite(values: FloatArray) -> FloatArray:
    return values[np.isfinite(values)]


def _median(values: FloatArray) -> float:
    good = _finite(values)
    return float(np.median(good)) if good.size else np.nan


def fit_relative(
    reference: FloatArray,
    ratio: FloatArray,
    scaling: float,
    used: BoolArray,
    turnoffs: tuple[float, float],
    sizes: NodeSizes,
    terms: SplineTerms,
    absolute: SplineFit | None = None,
) -> SplineFit:
    """Spline of one amp against the reference amp.

    The absolute spline acts on the result, at this amp's level and not at that of the reference amp.  If it is given,
    the aim is the signal that it turns into ``scaling`` times the linear signal of the reference amp; otherwise (as
    upstream) ``scaling`` times its level, which leaves about |scaling - 1| times the absolute correction.

    Parameters
    ----------
    reference : (exposure,) level of the reference amp [adu]
    ratio : (exposure,) amp / reference
    scaling : of the amp in the reference exposure
    used : (exposure,)
    turnoffs : (PTC, linear) turnoff of the amp [adu]
    """
    x = reference * scaling
    y = x * ratio
    if absolute is not None:
        x = _before(absolute, scaling * (reference - akima_spline(absolute.nodes, absolute.values, reference)))
    finite = np.isfinite(y)
    good = used & finite & (y > 0) & (y <= turnoffs[1])
    zero = np.zeros(len(y))
    ramp = Ramp(x, np.where(finite, y, 0.0), np.zeros(len(y), np.int64), zero, zero)
    return fit_spline(ramp, good, place_nodes(*turnoffs, sizes), turnoffs[0], terms)


def _before(absolute: SplineFit, linear: FloatArray) -> FloatArray:
    """Signals that the absolute spline turns into these; it is far smaller than they, so iteration converges."""
    signal = linear
    for _ in range(_INVERSIONS):
        signal = linear + akima_spline(absolute.nodes, absolute.values, signal)
    return signal


def coefficients(relative: Sequence[SplineFit | None], absolute: SplineFit) -> FloatArray:
    """Rows n1, n2, nodes1, values1, nodes2, values2 of all amps, 0-padded (amp, m): reference/ptc_linearity.md 10."""
    n_relative = [0 if fit is None else len(fit.nodes) for fit in relative]
    n = len(absolute.nodes)
    out = np.zeros((len(relative), 2 + 2 * n + 2 * max(n_relative)))
    for row, fit, m in zip(out, relative, n_relative, strict=True):
        own = [] if fit is None else [fit.nodes, fit.values]
        row[: 2 + 2 * (m + n)] = np.concatenate([[m, n], *own, absolute.nodes, absolute.values])
    return out


def reference_exposure(level: FloatArray, used: BoolArray, wanted: float = 10000.0) -> int:
    """Position of the exposure whose reference amp is nearest to ``wanted`` [adu] among the used ones.

    Raises
    ------
    DataError
        If none is used.
    """
    usable = used & np.isfinite(level)
    if not usable.any():
        raise DataError("double spline: the reference amp has no used exposure")
    return int(np.argmin(np.where(usable, np.abs(level - wanted), np.inf)))
