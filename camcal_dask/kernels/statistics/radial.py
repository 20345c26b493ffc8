"""Radial illumination: an Akima spline in the distance from the optical axis, fitted in the L1 norm.

See reference/construction.md 3.4 and 5.1 step 1; H. Akima, J. ACM 17, 589 (1970).
Upstream minimises the cost with a general quasi-Newton method and numerical gradients.  A spline is linear in
its node values and slopes, and the slopes are functions of a few node values only, so here Gauss-Newton steps
with the weights 1/|residual| lead to the same minimum in a few milliseconds.
"""

from __future__ import annotations

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.linearity.akima import akima_slopes, slopes_jacobian, spline_basis

_FLOOR = 1e-9  # |residual| below which the L1 weight stops growing, in units of the median absolute value
_STEPS = 60


def fit_radial_l1(r: FloatArray, values: FloatArray, nodes: FloatArray) -> FloatArray:
    """Return the node values of the Akima spline that minimises sum |values - S(r)|.

    Parameters
    ----------
    r, values : (m,) float64, finite
    nodes : (n,) float64, increasing

    Returns
    -------
    (n,) float64.  Starts at the medians within half a node spacing.  Up to nearly half of the values around
    each node may be wrong by any amount.
    """
    basis = spline_basis(nodes, r)
    p = _start(r, values, nodes)
    residual = values - basis @ np.concatenate([p, akima_slopes(nodes, p)])
    cost = np.abs(residual).sum()
    floor = _FLOOR * max(float(np.median(np.abs(values))), 1e-300)
    # The weights are sharpened in steps: at once, they would stick at the first points a trial curve happens to meet.
    smooth = max(float(np.median(np.abs(residual))), floor)
    for _ in range(_STEPS):
        jacobian = basis @ slopes_jacobian(nodes, p)
        weight = 1 / np.maximum(np.abs(residual), smooth)
        normal = jacobian.T @ (weight[:, None] * jacobian)
        step = np.linalg.lstsq(normal, jacobian.T @ (weight * residual), rcond=1e-12)[0]
        p, residual, gain = _descend(basis, nodes, values, p, step, cost)
        cost -= gain
        if gain <= 1e-5 * cost:
            if smooth <= 0.01 * cost / len(r) or smooth <= floor:
                break
            smooth *= 0.1
    return p


def remove_radial(
    image: Pixels, affine: FloatArray, *, bin_size: int, border: int, n_nodes: int, floor: float = 0.05
) -> Pixels:
    """Divide the image of an amp by its radial illumination.

    Means of bins inside a border, normalised by their 95th percentile, are fitted by :func:`fit_radial_l1` with equally
    spaced nodes from the least to the largest distance of the amp's pixels.  An amp too small for the bins gets
    a smaller border and smaller bins.

    Parameters
    ----------
    image : (y, x) float32; NaN = no data
    affine : (2, 3) float64, pixels to mm from the optical axis
    bin_size, border : [pixel]
    n_nodes : nodes of the spline
    floor : where the illumination is below this fraction of the normalisation the result is NaN

    Returns
    -------
    (y, x) float32 in the unit of the image; a copy of it if too few bins are finite.
    """
    height, width = image.shape
    border = min(border, min(height, width) // 10)
    bin_size = max(1, min(bin_size, (min(height, width) - 2 * border) // 4))
    binned, x, y = _bins(image, bin_size, border)
    good = np.isfinite(binned)
    if good.sum() < 4 * n_nodes:
        return image.copy()
    level = float(np.percentile(binned[good], 95))
    if not level > 0:
        return image.copy()
    nodes = np.linspace(*_range_of_radius(affine, height, width), n_nodes)
    values = fit_radial_l1(_radius(affine, x, y)[good], binned[good] / level, nodes)
    out = np.empty_like(image)
    step = nodes[1] - nodes[0]
    polynomials = _polynomials(values, step * akima_slopes(nodes, values))
    _divide(np.ascontiguousarray(image), affine, nodes[0], step, polynomials, floor, out)
    return out


def _start(r: FloatArray, values: FloatArray, nodes: FloatArray) -> FloatArray:
    """Medians of the values nearer to a node than to its neighbours; of all values if there are none."""
    nearest = np.searchsorted((nodes[1:] + nodes[:-1]) / 2, r)
    everything = float(np.median(values))
    parts = (values[nearest == k] for k in range(len(nodes)))
    return np.array([np.median(part) if part.size else everything for part in parts])


def _descend(
    basis: FloatArray, nodes: FloatArray, values: FloatArray, p: FloatArray, step: FloatArray, cost: float
) -> tuple[FloatArray, FloatArray, float]:
    """Take the step, or half of it and so on, if the cost falls; return parameters, residuals and the gain."""
    for _ in range(8):
        trial = p + step
        residual = values - basis @ np.concatenate([trial, akima_slopes(nodes, trial)])
        gain = cost - float(np.abs(residual).sum())
        if gain > 0:
            return trial, residual, gain
        step = step / 2
    return p, values - basis @ np.concatenate([p, akima_slopes(nodes, p)]), 0.0


def _bins(image: Pixels, size: int, border: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means of whole bins inside the border, and the coordinates of their centres [pixel], all (n,) float64."""
    height, width = image.shape
    ny, nx = (height - 2 * border) // size, (width - 2 * border) // size
    mean = np.empty((ny, nx))
    _mean_of_bins(image[border:, border:], size, mean)
    centre_x = border + size * np.arange(nx) + (size - 1) / 2
    centre_y = border + size * np.arange(ny) + (size - 1) / 2
    x, y = np.meshgrid(centre_x, centre_y)
    return mean.ravel(), x.ravel(), y.ravel()


def _radius(affine: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    (a, b, c), (d, e, f) = affine
    return np.asarray(np.hypot(a * x + b * y + c, d * x + e * y + f))


def _polynomials(values: FloatArray, slopes: FloatArray) -> FloatArray:
    """Cubics between neighbouring nodes of unit spacing, (n - 1, 4) coefficients, constant first."""
    change, left, right = np.diff(values), slopes[:-1], slopes[1:]
    return np.column_stack([values[:-1], left, 3 * change - 2 * left - right, left + right - 2 * change])


def _range_of_radius(affine: FloatArray, height: int, width: int) -> tuple[float, float]:
    """Least and largest distance of the pixels from the axis [mm]: least on the rim or inside, largest at a corner."""
    x, y = np.array([0, width - 1, 0, width - 1.0]), np.array([0, 0, height - 1, height - 1.0])
    axis = np.linalg.solve(affine[:, :2], -affine[:, 2])
    near_x, near_y = np.clip(axis[:1], 0, width - 1), np.clip(axis[1:], 0, height - 1)
    return float(_radius(affine, near_x, near_y)[0]), float(_radius(affine, x, y).max())


@compiled(error_model="numpy")
def _mean_of_bins(image: Pixels, size: int, out: FloatArray) -> None:
    """Mean of the pixels of each bin within 10 % of the plain mean of its finite ones; NaN without any.

    The second mean leaves out the very defects that the division is to reveal.
    """
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            centre, half = 0.0, np.inf
            for _ in range(2):
                total, n = 0.0, 0
                for y in range(j * size, (j + 1) * size):
                    for x in range(i * size, (i + 1) * size):
                        if abs(image[y, x] - centre) < half:
                            total += image[y, x]
                            n += 1
                centre = total / n
                half = 0.1 * abs(centre)
            out[j, i] = centre


@compiled(error_model="numpy")
def _divide(
    image: Pixels, affine: FloatArray, first: float, step: float, coefficients: FloatArray, floor: float, out: Pixels
) -> None:
    """Divide by the cubics in (r - node) / step of equally spaced nodes; NaN where they are below the floor."""
    last = coefficients.shape[0] - 1
    dx, dy = affine[0, 0] / step, affine[1, 0] / step
    origin = first / step
    for y in range(image.shape[0]):
        x0, y0 = (affine[0, 1] * y + affine[0, 2]) / step, (affine[1, 1] * y + affine[1, 2]) / step
        for x in range(image.shape[1]):
            fx, fy = dx * x + x0, dy * x + y0
            u = max(np.sqrt(fx * fx + fy * fy) - origin, 0.0)
            k = min(int(u), last)
            t = min(u - k, 1.0)
            c = coefficients[k]
            value = c[0] + t * (c[1] + t * (c[2] + t * c[3]))
            out[y, x] = image[y, x] / value if value >= floor else np.nan
