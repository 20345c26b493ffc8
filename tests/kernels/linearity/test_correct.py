"""Linearity against scipy's Akima spline, closed forms and loops written here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.kernels.linearity import correct as linearity
from camcal_dask.kernels.linearity.akima import akima_slopes
from camcal_dask.kernels.linearity.correct import linearize, make_linearity
from camcal_dask.kernels.linearity.pieces import linear_pieces

X1 = np.array([0.0, 700, 1500, 3000, 5000, 5001, 12000, 40000, 90000, 110000])
Y1 = np.array([0.0, 3, 1, -4, 6, 7, 30, 11, -50, -300])
X2 = np.arange(0.0, 120001, 3000)
Y2 = 40 * np.sin(X2 / 9000) + X2 * 1e-3


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def double_row(x1=X1, y1=Y1, x2=X2, y2=Y2, pad=6) -> np.ndarray:
    return np.concatenate([[len(x1), len(x2)], x1, y1, x2, y2, np.zeros(pad)])


def values(rng: np.random.Generator, n: int = 6000) -> np.ndarray:
    """All signals, in an order that mixes them, then smooth stretches: (1, y, x) float32."""
    wild = rng.uniform(-5e3, 1.5e5, n)
    smooth = np.concatenate([rng.normal(level, 200, n // 6) for level in (0, 5e3, 2e4, 4e4, 9e4, 1.1e5)])
    return np.concatenate([wild, smooth]).astype("f4").reshape(1, -1, 500)


def apply(kind: str, row: np.ndarray, image: np.ndarray, **kwargs) -> np.ndarray:
    return linearize(image, make_linearity([kind], row[None], **kwargs))[0]


def test_akima_slopes_are_scipys(rng):
    scipy = pytest.importorskip("scipy.interpolate")
    for n in (3, 4, 5, 12, 40):
        x, y = np.cumsum(rng.uniform(0.1, 3, n)), rng.normal(0, 1, n)
        spline = scipy.Akima1DInterpolator(x, y, method="akima")
        np.testing.assert_allclose(akima_slopes(x, y), spline.derivative()(x), rtol=1e-9, atol=1e-12)


def test_akima_slopes_where_chords_repeat():
    """Two straight lines meeting: the slope at the corner is their mean; a straight line stays straight."""
    x = np.arange(7.0)
    np.testing.assert_allclose(akima_slopes(x, np.abs(x - 3)), [-1, -1, -1, 0, 1, 1, 1])
    np.testing.assert_allclose(akima_slopes(x, 2 * x + 1), np.full(7, 2.0))
    np.testing.assert_allclose(akima_slopes(x[:2], np.array([1.0, 4.0])), [3, 3])


def test_akima_slopes_by_hand():
    """Akima (1970): chords 1, 1, 3, -1 and 2 around the third node of six."""
    x = np.arange(6.0)
    y = np.array([0.0, 1, 2, 5, 4, 6])
    slope = akima_slopes(x, y)[2]
    assert slope == pytest.approx((abs(-1 - 3) * 1 + abs(1 - 1) * 3) / (4 + 0))
    assert akima_slopes(x, y)[3] == pytest.approx((abs(2 + 1) * 3 + abs(3 - 1) * -1) / (3 + 2))


def test_double_spline_is_scipys_one_after_the_other(rng):
    scipy = pytest.importorskip("scipy.interpolate")
    image = values(rng)
    v = image.astype(float)
    v = v - scipy.Akima1DInterpolator(X1, Y1)(np.clip(v, 0, X1[-1] - 0.01))
    v = v - scipy.Akima1DInterpolator(X2, Y2)(np.clip(v, 0, X2[-1] - 0.01))
    out = apply("DoubleSpline", double_row(), image)
    np.testing.assert_allclose(out, v, rtol=1.5e-7, atol=2e-3)


@pytest.mark.parametrize("n1", [0, len(X1)])
@pytest.mark.parametrize("n2", [0, len(X2)])
def test_absent_parts_are_left_out(rng, n1, n2):
    image = values(rng, 3000)
    out = apply("DoubleSpline", double_row(X1[:n1], Y1[:n1], X2[:n2], Y2[:n2]), image)
    expected = image
    for x, y in ((X1[:n1], Y1[:n1]), (X2[:n2], Y2[:n2])):
        if len(x):
            expected = apply("DoubleSpline", double_row(x, y, x[:0], y[:0]), expected)
    np.testing.assert_array_equal(out, expected)


def test_spline_is_anchored_and_clipped(rng):
    """First node 100 with value 5: shifted to 0 and (0, 0) put in front; below 0 nothing, above the end constant."""
    x, y = np.array([100.0, 200, 300, 500, 900]), np.array([5.0, 6, 9, 8, 12])
    image = np.array([[[-50, 0, 100, 200, 300, 500, 899.9, 900, 5000]]], "f4")
    out = apply("Spline", np.concatenate([x, y]), image)
    last = akima_slopes(np.append(0, x), np.append(0, y - 5))[-1]
    end = 7 - 0.1 * last
    np.testing.assert_allclose(image - out, [[[0, 0, 0, 1, 4, 3, end, end, end]]], atol=4e-4)  # float32 at 5000


def test_injected_nonlinearity_is_removed(rng):
    """reference/isr.md 7.4: v = truth + A(v), solved here by fixed point in float64; residual < 1% of the spline."""
    scipy = pytest.importorskip("scipy.interpolate")
    spline = scipy.Akima1DInterpolator(X2, Y2)
    truth = np.linspace(0, 1e5, 20000)
    measured = truth.copy()
    for _ in range(60):
        measured = truth + spline(np.clip(measured, 0, X2[-1] - 0.01))
    image = measured.astype("f4").reshape(1, 40, 500)
    out = apply("DoubleSpline", double_row(X1[:0], Y1[:0]), image).ravel()
    assert np.abs(out - truth).max() < 0.01 * np.abs(Y2).max()
    assert np.abs(out - truth).max() < 0.02


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("DoubleSpline", double_row()),
        ("Spline", np.concatenate([X2, Y2])),
        ("Squared", np.array([-2e-7])),
        ("Polynomial", np.array([-2e-7, 3e-13, -1e-18])),
        ("LookupTable", np.array([1.0, 3.0])),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_electron_image_agrees_with_adu_image(rng, kind, row):
    """Doubling the gain of an image in electron changes nothing in adu; for every type."""
    table = np.vstack([np.zeros(150000), 20 * np.sin(np.arange(150000) / 7000)])
    image = values(rng)
    adu = apply(kind, row, image, table=table)
    assert np.abs(adu - image).max() > 1
    for gain in (1.0, 2.0, 4.0):
        electron = apply(kind, row, image * np.float32(gain), table=table, scale=[gain])
        np.testing.assert_allclose(electron / gain, adu, rtol=2e-7, atol=1e-6)
    odd = apply(kind, row, image * np.float32(1.7), table=table, scale=[1.7]) / 1.7
    np.testing.assert_allclose(odd, adu, rtol=3e-7, atol=6e-3)


def test_polynomial_squared_and_nothing_in_closed_form():
    image = np.array([[[-100.0, 0, 1000, 50000]]], "f4")
    v = image.astype(float)
    np.testing.assert_allclose(apply("Squared", np.array([1e-6, 5.0]), image), v * (1 + 1e-6 * v), rtol=1e-7)
    c = [1e-6, -2e-12, 3e-18]
    expected = v + sum(c[i] * v ** (i + 2) for i in range(3))
    np.testing.assert_allclose(apply("Polynomial", np.array([*c, 0, 0]), image), expected, rtol=1e-7)
    for kind in ("Proportional", "None", "Polynomial", "Squared"):
        np.testing.assert_array_equal(apply(kind, np.zeros(3), image), image)


def test_lookup_table_truncates_towards_zero_clamps_and_counts():
    table = np.array([[0.0] * 5, [10, 11, 12, 13, 14]])
    image = np.array([[[-3.5, -1.5, -0.9, 0.0, 1.99, 2.0, 2.99, 3.0, 9.0, np.nan]]], "f4")
    expected = [v + table[1, min(max(math.trunc(1.0 + v), 0), 4)] for v in image[0, 0, :-1].tolist()]
    out, outside = linearize(image, make_linearity(["LookupTable"], np.array([[1, 1.0]]), table=table))
    np.testing.assert_allclose(out[0, 0, :-1], expected, rtol=1e-7)
    assert np.isnan(out[0, 0, -1])
    assert outside.tolist() == [2]  # int(-2.5) = -2 and int(10) = 10; int(-0.5) = 0


@pytest.mark.parametrize(
    ("kind", "row", "scale"),
    [
        ("DoubleSpline", double_row(y2=np.where(X2 == 3000, np.nan, Y2)), 1.0),
        ("DoubleSpline", double_row(x1=np.where(X1 == 700, np.inf, X1)), 1.0),
        ("DoubleSpline", np.full(20, np.nan), 1.0),
        ("Spline", np.concatenate([X2, np.full(len(X2), np.nan)]), 1.0),
        ("Polynomial", np.array([np.nan, np.nan]), 1.0),
        ("Squared", np.array([np.nan]), 1.0),
        ("LookupTable", np.array([1.0, np.nan]), 1.0),
        ("LookupTable", np.array([1.0, 0.0]), 1.0),
        ("DoubleSpline", double_row(), np.nan),
        ("Squared", np.array([1e-7]), 0.0),
    ],
)
def test_amp_without_finite_numbers_fails_alone_and_by_name(kind, row, scale):
    rows = np.vstack([row, np.zeros_like(row)])
    prepared = make_linearity([kind, "None"], rows, table=np.array([[0.0], [np.nan]]), scale=[scale, 1.0])
    assert prepared.failed.tolist() == [True, False]
    assert list(prepared.problems) == [0]
    out, _ = linearize(np.ones((2, 3, 4), "f4"), prepared)
    assert np.isnan(out[0]).all()
    np.testing.assert_array_equal(out[1], 1)


def test_nan_pixel_stays_alone():
    image = np.full((1, 1, 200), 3e4, "f4")
    image[0, 0, 77] = np.nan
    out = apply("DoubleSpline", double_row(), image)
    assert np.isnan(out[0, 0]).nonzero()[0].tolist() == [77]
    good = np.delete(out[0, 0], 77)
    assert (good == good[0]).all()


def test_neighbours_do_not_matter(rng):
    """Vectorised runs, blended pieces and the search per pixel give the same values."""
    image = values(rng)
    prepared = make_linearity(["DoubleSpline"], double_row()[None])
    whole, _ = linearize(image, prepared)
    alone = np.array([linearize(np.full((1, 1, 1), v, "f4"), prepared)[0][0, 0, 0] for v in image.ravel()[::37]])
    np.testing.assert_array_equal(whole.ravel()[::37], alone)
    order = np.argsort(image, axis=None)
    ordered, _ = linearize(image.ravel()[order].reshape(1, 24, -1), prepared)
    np.testing.assert_array_equal(ordered.ravel(), whole.ravel()[order])


def test_any_slab_in_place_and_read_only(rng):
    image = np.repeat(values(rng), 3, axis=0)
    image.flags.writeable = False
    prepared = make_linearity(["DoubleSpline"] * 3, np.tile(double_row(), (3, 1)))
    whole, _ = linearize(image, prepared)
    work = image.copy()
    for y in range(0, image.shape[1], 5):
        part = work[:, y : y + 5]
        assert linearize(part, prepared, out=part)[0] is part
    np.testing.assert_array_equal(work, whole)


@pytest.mark.parametrize("spread", ["even", "crowded", "pair", "one"])
def test_linear_pieces_are_numpys_interp(rng, spread):
    x = {
        "even": np.linspace(0, 1e5, 30),
        "crowded": np.sort(np.concatenate([np.linspace(0, 500, 11), np.exp(rng.uniform(6.3, 11.6, 150))])),
        "pair": np.array([0.0, 5.0, 5.001, 1e5]),
        "one": np.array([7.0]),
    }[spread]
    y = np.sort(rng.uniform(0, 30, len(x)))
    image = values(rng)
    amp = linearity.AmpLinearity("pieces", (linear_pieces(x, y),))
    out, _ = linearize(image, linearity.Linearity((amp,), {}))
    np.testing.assert_allclose(out, image - np.interp(image, x, y), rtol=1e-7, atol=2e-3 if spread == "pair" else 1e-4)


def test_faults_name_amp_and_values():
    with pytest.raises(DataError, match="amp 0 has unknown type 'DoubleSplin'; did you mean 'DoubleSpline'"):
        make_linearity(["DoubleSplin"], np.zeros((1, 4)))
    with pytest.raises(DataError, match="DoubleSpline of 9 and 0 nodes in 5 coefficients"):
        make_linearity(["DoubleSpline"], np.array([[9.0, 0, 0, 0, 0]]))
    with pytest.raises(DataError, match="are not in rising order"):
        make_linearity(["Spline"], np.array([[0.0, 5, 5, 0, 1, 2]]))
    with pytest.raises(DataError, match="row 3 of a lookup table of shape"):
        make_linearity(["LookupTable"], np.array([[3.0, 0]]), table=np.zeros((2, 9)))
    with pytest.raises(DataError, match="one row per amp"):
        make_linearity(["None"] * 2, np.zeros((1, 4)))
    with pytest.raises(DataError, match="calibration of 1 amps"):
        linearize(np.zeros((2, 1, 1), "f4"), make_linearity(["None"], np.zeros((1, 1))))
