"""Brighter-fatter corrections against loops over their formulas and a time-stepped forward model."""

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.kernels.charge.brighter_fatter import (
    BoundaryShifts,
    astier23,
    astier_kernels,
    convolved_blocks,
    coulton18,
    coulton18_flux_conserving,
    detector_kernel,
)
from camcal_dask.kernels.pixels.masks import BAD, EDGE, INTRP, SAT

COULTONS = [coulton18, coulton18_flux_conserving]


def coulomb_shifts(n=10, strength=1e-6):
    """Outward shifts by the field of a point charge at the middle of each boundary [pixel / electron]."""
    across, along = np.mgrid[0:n, 0:n]
    outer, inner = along + 0.5, along - 0.5
    north = -outer / (across**2 + outer**2) ** 1.5
    south = inner / (across**2 + inner**2) ** 1.5
    scale = strength / 4
    return BoundaryShifts(scale * north, scale * south, scale * north.T.copy(), scale * south.T.copy())


def random_shifts(n=4):
    return BoundaryShifts(*np.random.default_rng(2).normal(0, 1e-7, (4, n, n)))


def convolve(image, kernel):
    """'Same' convolution, zero outside: a sum of shifted copies."""
    r = len(kernel) // 2
    padded = np.pad(image.astype(float), r)
    ny, nx = image.shape
    out = np.zeros((ny, nx))
    for j in range(-r, r + 1):
        for i in range(-r, r + 1):
            out += kernel[j + r, i + r] * padded[r - j : r - j + ny, r - i : r - i + nx]
    return out


def north_kernel(t, i, j, r):
    """kN of the reference, before the factor 1/4."""
    if j == -r:
        return -north_kernel(t, i, r, r)
    return t.aN[abs(i), j] if j > 0 else t.aS[abs(i), abs(j)]


def east_kernel(t, i, j, r):
    if i == -r:
        return -east_kernel(t, r, j, r)
    return t.aE[i, abs(j)] if i > 0 else t.aW[abs(i), abs(j)]


def full_kernels(t):
    r = len(t.aN) - 1
    span = range(-r, r + 1)
    return tuple(np.array([[f(t, i, j, r) for i in span] for j in span]) for f in (north_kernel, east_kernel))


def delta_by_loops(x, t):
    """The reference's delta, pixel by pixel."""
    d_north, d_east = (convolve(x, k / 4) for k in full_kernels(t))
    ny, nx = x.shape
    out = np.zeros((ny, nx))
    for y in range(ny):
        for u in range(nx):
            if y < ny - 1:
                q = (float(x[y, u]) + x[y + 1, u]) * d_north[y, u]
                out[y, u] += q
                out[y + 1, u] -= q
            if u < nx - 1:
                q = (float(x[y, u]) + x[y, u + 1]) * d_east[y, u]
                out[y, u] += q
                out[y, u + 1] -= q
    return out


def star(size=61, sigma=1.8, peak=1e5, background=1500.0):
    y, x = np.mgrid[:size, :size] - size // 2
    return background + peak * np.exp(-(x**2 + y**2) / (2 * sigma**2))


def width(image, background=1500.0, radius=9):
    y, x = np.mgrid[: len(image), : len(image)] - len(image) // 2
    flux = np.where(x**2 + y**2 <= radius**2, image - background, 0.0)
    return np.sqrt((flux * (x**2 + y**2)).sum() / flux.sum() / 2)


@pytest.mark.parametrize(("shape", "size"), [((50, 60), 19), ((130, 240), 5), ((7, 300), 9), ((150, 40), 35)])
def test_blocked_convolution_is_the_convolution(shape, size):
    rng = np.random.default_rng(size)
    image, kernels = rng.normal(size=shape).astype(np.float32), rng.normal(size=(2, size, size))
    out, seen = np.zeros((2, *shape)), np.zeros(shape)
    for y0, x0, height, width_, planes in convolved_blocks(image, list(kernels), offset=0.5):
        block = slice(y0, y0 + height), slice(x0, x0 + width_)
        seen[block] += 1
        for k in range(2):
            assert planes[k].shape == (height + 2, width_ + 2)
            out[k][block] = planes[k][1:-1, 1:-1]
    assert (seen == 1).all()
    for k in range(2):
        assert out[k] == pytest.approx(convolve(image - np.float64(0.5), kernels[k]), abs=1e-10)


def test_astier_kernels_follow_the_reference():
    shifts = random_shifts()
    for kernel, expected in zip(astier_kernels(shifts), full_kernels(shifts), strict=True):
        assert kernel == pytest.approx(expected / 4, abs=1e-20)


@pytest.mark.parametrize("shape", [(40, 45), (120, 131)])
def test_astier_matches_loops(shape):
    image = np.random.default_rng(1).uniform(2e4, 8e4, shape).astype(np.float32)
    shifts = random_shifts()
    expected = image - delta_by_loops(image, shifts)
    corrected, mask = image.copy(), np.zeros(shape, np.int32)
    astier23(corrected, mask, shifts)
    assert np.abs(expected - image).max() > 1000
    assert np.abs(corrected - expected).max() <= 0.0041  # float32 spacing
    frame = np.zeros(shape, bool)
    frame[4:-4, 4:-4] = True
    assert np.array_equal(mask & EDGE == 0, frame)


def test_astier_conserves_flux():
    """Acceptance check 6: delta telescopes; what is left is rounding to float32."""
    image = np.random.default_rng(4).uniform(0, 1e5, (150, 170)).astype(np.float32)
    corrected = image.copy()
    astier23(corrected, np.zeros(image.shape, np.int32), coulomb_shifts())
    assert np.abs(corrected - image).max() > 100
    rounding = 0.0039 * np.sqrt(image.size / 3)
    assert abs(corrected.sum(dtype=float) - image.sum(dtype=float)) < 4 * rounding


def test_astier_restores_the_width_of_a_star():
    """Acceptance check 6: charge collected in 25 steps with moving boundaries; width back within 0.3 %."""
    truth, shifts, steps = star(), coulomb_shifts(), 25
    k_north, k_east = full_kernels(shifts)
    charge = np.zeros_like(truth)
    for step in range(steps):
        light = truth / steps
        at_middle = charge * (step + 0.5) / max(step, 1)
        across = 0.5 * (light[:-1] + light[1:]) * convolve(at_middle, k_north)[:-1]
        along = 0.5 * (light[:, :-1] + light[:, 1:]) * convolve(at_middle, k_east)[:, :-1]
        charge = charge + light
        charge[:-1] += across
        charge[1:] -= across
        charge[:, :-1] += along
        charge[:, 1:] -= along
    assert width(charge) / width(truth) > 1.01
    corrected = charge.astype(np.float32)
    astier23(corrected, np.zeros(truth.shape, np.int32), shifts)
    assert width(corrected) == pytest.approx(width(truth), rel=0.003)


def test_masked_pixels_keep_their_own_value_and_do_not_act():
    image = np.random.default_rng(6).uniform(2e4, 3e4, (48, 48)).astype(np.float32)
    mask = np.zeros(image.shape, np.int32)
    mask[20, 20], mask[30, 25] = BAD, SAT
    spoiled = image.copy()
    spoiled[20, 20], spoiled[30, 25] = np.nan, 2e5
    other = spoiled.copy()
    other[20, 20], other[30, 25] = -1e6, 1e6
    masks = [mask.copy(), mask.copy()]
    astier23(spoiled, masks[0], coulomb_shifts(4))
    astier23(other, masks[1], coulomb_shifts(4))
    good = mask == 0
    assert np.array_equal(spoiled[good], other[good])
    assert np.isnan(spoiled[20, 20])
    assert spoiled[30, 25] == pytest.approx(2e5, rel=1e-3)
    assert not (masks[0] & INTRP).any()
    assert (masks[0] & BAD != 0).sum() == 13  # diamonds of radius 2
    assert (masks[0] & SAT != 0).sum() == 13


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        (BoundaryShifts(*np.zeros((3, 4, 4)), np.zeros((4, 5))), "one size"),
        (BoundaryShifts(*np.zeros((3, 4, 4)), np.full((4, 4), np.nan)), "non-finite"),
    ],
)
def test_unusable_tables_are_refused(tables, complaint):
    with pytest.raises(DataError, match=complaint):
        astier23(np.zeros((9, 9), np.float32), np.zeros((9, 9), np.int32), tables)


def gaussian_kernel(r=8, depth=3.5e-7, sigma=1.6):
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    return -depth * np.exp(-(x**2 + y**2) / (2 * sigma**2))


def coulton_by_loops(x, kernel, passes):
    """T = X + (grad T . grad P + T lap P) / 2 in the window r + 1 .. N - r - 2."""
    edge, t = len(kernel) // 2 + 1, x.astype(float)
    for _ in range(passes):
        p, new = convolve(t, kernel), x.astype(float)
        for y in range(edge, len(x) - edge):
            for u in range(edge, x.shape[1] - edge):
                slopes = (t[y + 1, u] - t[y - 1, u]) * (p[y + 1, u] - p[y - 1, u])
                slopes += (t[y, u + 1] - t[y, u - 1]) * (p[y, u + 1] - p[y, u - 1])
                laplacian = p[y + 1, u] + p[y - 1, u] + p[y, u + 1] + p[y, u - 1] - 4 * p[y, u]
                new[y, u] += 0.5 * (slopes / 4 + t[y, u] * laplacian)
        t = new
    return t


def transfer_by_loops(x, kernel, passes):
    """Move -T_donor (P[i+1] - P[i]) / 2 from i to i + 1; donor i where P rises."""
    mean, t = x.mean(dtype=float), x.astype(float)
    for _ in range(passes):
        p, new = convolve(t - mean, kernel), x.astype(float)
        for axis in (0, 1):
            a, b, out = (np.moveaxis(v, axis, 0) for v in (t, p, new))
            for i in range(len(a) - 1):
                rise = b[i + 1] - b[i]
                moved = -0.5 * np.where(rise > 0, a[i], a[i + 1]) * rise
                out[i] -= moved
                out[i + 1] += moved
        t = new
    return t


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize(("correct", "loops"), zip(COULTONS, (coulton_by_loops, transfer_by_loops), strict=True))
def test_coulton_matches_loops(correct, loops, passes):
    rng = np.random.default_rng(8)
    image = rng.uniform(2e4, 6e4, (34, 40)).astype(np.float32)
    kernel = rng.normal(0, 1e-7, (7, 7))
    corrected, mask = image.copy(), np.zeros(image.shape, np.int32)
    end = correct(corrected, mask, kernel, max_iterations=passes, threshold=0.0)
    assert (end.iterations, end.converged) == (passes, False)
    assert np.abs(corrected - image).max() > 100
    assert np.abs(corrected - loops(image, kernel, passes)).max() <= 0.0041
    assert (mask[4:-4, 4:-4] == 0).all()
    assert (mask & EDGE != 0).sum() == image.size - 26 * 32


def forward_coulton(truth, kernel, donor, steps=25):
    """Charge collected while P = K * Q displaces it: dQ = F - div(F grad P), fluxes at the boundaries.

    The light at a boundary is that of the pixel which loses (donor), or the mean of its two pixels.
    """
    charge = np.zeros_like(truth)
    for step in range(steps):
        light = truth / steps
        potential = convolve(charge * (step + 0.5) / max(step, 1), kernel)
        charge = charge + light
        for axis in (0, 1):
            f, p, q = (np.moveaxis(v, axis, 0) for v in (light, potential, charge))
            rise = p[1:] - p[:-1]
            moved = (np.where(rise > 0, f[:-1], f[1:]) if donor else 0.5 * (f[:-1] + f[1:])) * rise
            q[:-1] -= moved
            q[1:] += moved
    return charge


@pytest.mark.parametrize("correct", COULTONS)
def test_coulton_restores_the_width_of_a_star(correct):
    truth, kernel = star(), gaussian_kernel()
    observed = forward_coulton(truth, kernel, correct is coulton18_flux_conserving)
    assert width(observed) / width(truth) > 1.01
    corrected = observed.astype(np.float32)
    end = correct(corrected, np.zeros(truth.shape, np.int32), kernel, threshold=1.0)
    assert end.converged
    assert end.change < 1
    assert 2 <= end.iterations < 10
    assert width(corrected) == pytest.approx(width(truth), rel=0.003)


def test_flux_conserving_form_conserves_flux():
    image = np.random.default_rng(9).uniform(0, 1e5, (64, 70)).astype(np.float32)
    corrected = image.copy()
    coulton18_flux_conserving(corrected, np.zeros(image.shape, np.int32), gaussian_kernel(4))
    assert np.abs(corrected - image).max() > 100
    assert abs(corrected.sum(dtype=float) - image.sum(dtype=float)) < 4 * 0.0039 * np.sqrt(image.size / 3)


def test_convergence_is_reported():
    image = star().astype(np.float32)
    mask = np.zeros(image.shape, np.int32)
    assert not coulton18(image.copy(), mask, gaussian_kernel(), max_iterations=1, threshold=1e-3).converged
    flat = np.full((40, 40), 1e4, np.float32)
    end = coulton18(flat, np.zeros((40, 40), np.int32), gaussian_kernel(4))
    assert (end.iterations, end.converged) == (1, True)
    assert flat == pytest.approx(1e4)


@pytest.mark.parametrize("kernel", [np.zeros((4, 4)), np.zeros((3, 5)), np.full((3, 3), np.nan)])
def test_unusable_kernels_are_refused(kernel):
    with pytest.raises(DataError, match="kernel"):
        coulton18(np.zeros((9, 9), np.float32), np.zeros((9, 9), np.int32), kernel)


def test_detector_kernel_is_the_clipped_mean_of_valid_amps():
    rng = np.random.default_rng(0)
    kernels = gaussian_kernel(2) + rng.normal(0, 1e-9, (16, 5, 5))
    kernels[3] = 1.0
    valid = np.arange(16) != 3
    kernels[5, 2, 2] = -1e-3  # an outlier to be clipped
    expected = kernels[valid].mean(axis=0)
    expected[2, 2] = np.delete(kernels[:, 2, 2], [3, 5]).mean()
    assert detector_kernel(kernels, valid) == pytest.approx(expected, rel=1e-4, abs=1e-11)
    with pytest.raises(DataError, match="none of the 16"):
        detector_kernel(kernels, np.zeros(16, bool))
