"""How many nodes the flats of a linearity spline support, and whether its correction behaves between them.

Upstream places nodes by the range of the signal (reference/ptc_linearity.md 12).  That is kept where flats of enough
distinct levels lie between the nodes; elsewhere nodes follow the levels, for a node that no level supports takes any
value: at the flats such a spline is perfect, between them it runs away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray
from camcal_dask.kernels.linearity.fit import mad_sigma

SAME_LEVEL = 0.005
"""Flats of a group whose light differs relatively by less are of one level."""
LEVELS_PER_CELL = 2
"""Distinct levels between two nodes."""
FEWEST_NODES = 3
WILD = 0.006
"""Relative departure from the neighbouring levels below which a level is never called wild."""
LEAST_SLOPE, MOST_WANDER = 0.5, 0.005
"""What a correction must keep between the flats, see `Shape`."""
_PER_CELL = 24


class Shape(NamedTuple):
    """Behaviour of a correction between 0 and the brightest flat.

    ``slope``: least derivative of the corrected signal by the signal; ``wander``: largest departure of the relative
    correction from the straight line between those at neighbouring levels.
    """

    slope: float
    wander: float

    @property
    def tame(self) -> bool:
        """Whether the corrected signal rises with the signal and the correction stays near that at the flats."""
        return self.slope >= LEAST_SLOPE and self.wander <= MOST_WANDER


def find_levels(abscissa: FloatArray, group: IntArray, good: BoolArray) -> IntArray:
    """Label flats of equal light: the exposures of a pair, and repeated pairs, are one level.

    Parameters
    ----------
    abscissa, group, good : (flat,) light [any unit], group of illumination, flats that count

    Returns
    -------
    (flat,) labels 0, 1 .. by group and light; -1 of flats that are not good.
    """
    label = np.full(len(abscissa), -1, np.int64)
    order = np.lexsort((abscissa, group))
    n, start, current = -1, 0.0, None
    for i in order[good[order]]:
        if group[i] != current or abscissa[i] > start * (1 + SAME_LEVEL):
            n, start, current = n + 1, float(abscissa[i]), group[i]
        label[i] = n
    return label


def level_medians(values: FloatArray, label: IntArray) -> FloatArray:
    """Median (level,) of each level in the order of their labels."""
    good = label >= 0
    order = np.lexsort((values[good], label[good]))
    rising, (_, start, n) = values[good][order], np.unique(label[good][order], return_index=True, return_counts=True)
    return np.asarray((rising[start + (n - 1) // 2] + rising[start + n // 2]) / 2)


def level_signals(signal: FloatArray, label: IntArray) -> FloatArray:
    """Median signal (level,) [adu] of each level, rising; levels of several groups at one signal count once."""
    found = np.sort(level_medians(signal, label))
    distinct: list[float] = []
    for value in found.tolist():
        if not distinct or value > distinct[-1] * (1 + SAME_LEVEL):
            distinct.append(value)
    return np.array(distinct)


def wild_levels(ratio: FloatArray, signal: FloatArray, label: IntArray, n_sigma: float) -> IntArray:
    """Levels whose signal over light departs from that of their neighbours, as if there had been other light.

    One after the other, the worst first, at most a sixth of all.  The two faintest and the two brightest stay: which of
    such two is the wild one cannot be told.  A spline with few levels about each node would follow wild ones.

    Parameters
    ----------
    ratio, signal : (flat,) signal over light, in units of its usual value; signal [adu]
    label : (flat,) of `find_levels`, one group; -1 of flats that do not count
    n_sigma : departure in units of its usual scatter, beside `WILD`, that is too much
    """
    names = np.unique(label[label >= 0])
    x, y = np.log(level_medians(signal, label)), level_medians(ratio, label)
    order = np.argsort(x)
    names, x, y = names[order], x[order], y[order]
    wild: list[int] = []
    most = len(names) // 6
    off = _from_neighbours(x, y)
    while off.size and len(wild) < most:
        limit = max(WILD, n_sigma * mad_sigma(off))
        worst = 1 + int(np.argmax(np.abs(np.concatenate([[0.0], off[1:-1], [0.0]]))))
        rest = [np.delete(v, worst) for v in (names, x, y)]
        near = _from_neighbours(rest[1], rest[2])[max(worst - 2, 0) : worst]
        if abs(off[worst - 1]) < limit or (np.abs(near) > limit).any():  # one neighbour of the wild one is its victim
            break
        wild.append(int(names[worst]))
        names, x, y = rest
        off = _from_neighbours(x, y)
    return np.array(wild, np.int64)


def _from_neighbours(x: FloatArray, y: FloatArray) -> FloatArray:
    """Distance (n - 2,) of the inner points from the lines that join their neighbours."""
    slope = (y[2:] - y[:-2]) / (x[2:] - x[:-2])
    return np.asarray(y[1:-1] - y[:-2] - slope * (x[1:-1] - x[:-2]))


def supported_nodes(nodes: FloatArray, levels: FloatArray, per_cell: int = LEVELS_PER_CELL) -> FloatArray:
    """Nodes that the levels support.

    From the top downwards: the next of ``nodes``, or if fewer than ``per_cell`` levels lie above it, a node in the
    middle between the last of these levels and the one below.  Lowest is 0, where the correction is known to vanish:
    the interval above it needs one level only.

    Parameters
    ----------
    nodes : (n,) wanted [adu], rising from 0 to the signal at which the correction ends
    levels : (m,) distinct levels [adu], rising

    Returns
    -------
    (k,) [adu], rising from 0 to the last of ``nodes``; ``nodes`` itself if the levels are dense enough.
    """
    kept = [float(nodes[-1])]
    while (below := levels[levels <= kept[-1]]).size > per_cell:
        middle = (below[-per_cell] + below[-per_cell - 1]) / 2
        wanted = float(nodes[nodes < kept[-1]].max(initial=0.0))
        if min(middle, wanted) < levels[0]:
            break
        kept.append(min(middle, wanted))
    return np.array([0.0, *reversed(kept)])


def still_supported(nodes: FloatArray, signal: FloatArray, label: IntArray) -> BoolArray:
    """Return for each flat (flat,) whether enough levels are left between the nodes about it; ``label`` -1: left out.

    A flat without which its nodes have no support cannot be told from a bend of the spline there, and stays.
    """
    cell = np.clip(np.searchsorted(nodes, signal), 1, len(nodes) - 1)
    left = np.array([len(np.unique(label[(cell == k) & (label >= 0)])) for k in range(len(nodes))])
    needed = np.where(np.arange(len(nodes)) > 1, LEVELS_PER_CELL, 1)
    return np.asarray((left >= needed)[cell])


def coarser_nodes(nodes: FloatArray, levels: FloatArray) -> Iterator[FloatArray]:
    """Nodes with twice as many levels between them each time, down to three."""
    per_cell, before = LEVELS_PER_CELL, len(nodes) + 1
    while len(found := supported_nodes(nodes, levels, per_cell)) >= FEWEST_NODES:
        if len(found) < before:
            yield found
        per_cell, before = 2 * per_cell, len(found)


def measure_shape(correct: Callable[[FloatArray], FloatArray], levels: FloatArray) -> Shape:
    """Examine a correction between the levels, where there is no flat.

    Parameters
    ----------
    correct : signals (m,) to corrected signals (m,) [adu]
    levels : (n,) distinct levels [adu], rising
    """
    edges = np.concatenate([[0.0], levels])
    grid = np.unique(np.concatenate([np.linspace(a, b, _PER_CELL) for a, b in zip(edges, edges[1:], strict=False)]))
    corrected = correct(grid)
    relative = corrected[1:] / grid[1:] - 1
    # Below the faintest level a constant is taken from the correction: it need not vanish towards 0 in proportion.
    bright = grid[1:] >= levels[0]
    wander = np.abs(relative - np.interp(grid[1:], levels, correct(levels) / levels - 1))[bright]
    return Shape(float((np.diff(corrected) / np.diff(grid)).min()), float(wander.max()))
