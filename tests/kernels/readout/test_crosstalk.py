"""Crosstalk against loops and assembled images written here."""

from __future__ import annotations

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.kernels.pixels.masks import BAD, CROSSTALK
from camcal_dask.kernels.readout import crosstalk

N = 16


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def matrices(rng: np.random.Generator, size: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    c, q = rng.normal(0, size, (N, N)), rng.normal(0, size * 1e-5, (N, N))
    np.fill_diagonal(c, 0)
    np.fill_diagonal(q, 0)
    return c, q


def loop(image: np.ndarray, c: np.ndarray, q: np.ndarray) -> np.ndarray:
    b = image.astype(float)
    total = np.zeros_like(b)
    for source in range(len(c)):
        for target in range(len(c)):
            total[target] += c[source, target] * b[source] + q[source, target] * b[source] ** 2
    return total


@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("shape", [(5, 56), (1, 1), (3, 577)])
def test_matches_the_double_loop(rng, squares, shape):
    image = rng.uniform(0, 1e5, (N, *shape)).astype("f4")
    c, q = matrices(rng)
    couplings = crosstalk.make_couplings(c, q if squares else None)
    expected = loop(image, c, q if squares else 0 * q)
    np.testing.assert_allclose(crosstalk.subtrahend(image, couplings), expected, rtol=0, atol=3e-5)
    np.testing.assert_allclose(crosstalk.subtract(image, couplings), image - expected, rtol=2e-7, atol=3e-5)


def test_rows_are_sources_and_columns_targets():
    image = np.zeros((N, 4, 8), "f4")
    image[2, 1, 3] = 1e5
    c = np.zeros((N, N))
    c[2, 9] = 1e-3
    out = crosstalk.subtract(image, crosstalk.make_couplings(c))
    changed = np.argwhere(out != image)
    assert changed.tolist() == [[9, 1, 3]]
    assert out[9, 1, 3] == pytest.approx(-100.0)


def to_ccd(amp: Amp, plane: np.ndarray) -> np.ndarray:
    """Readout to CCD orientation."""
    return plane[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]


@pytest.mark.parametrize("detector", [0, 2], ids=["E2V", "ITL"])
@pytest.mark.parametrize(("source", "target"), [("C03", "C14"), ("C14", "C03"), ("C00", "C05"), ("C11", "C16")])
def test_bright_pixel_reaches_one_amp_at_its_readout_position(detector, source, target):
    """reference/isr.md 7.3, against the rule of the assembled image: flip the source into the target's corner."""
    amps = {a.name: a for a in get_instrument("TinyCam").detector(detector).amps}
    s, t = amps[source], amps[target]
    image = np.zeros((N, s.raw_height, s.raw_width), "f4")
    image[s.index, 5, 20] = 5e4
    c = np.zeros((N, N))
    c[s.index, t.index] = 1e-3
    out = crosstalk.subtract(image, crosstalk.make_couplings(c))
    seen = to_ccd(s, image[s.index])
    if s.flip_x != t.flip_x:
        seen = seen[:, ::-1]
    if s.flip_y != t.flip_y:
        seen = seen[::-1]
    np.testing.assert_allclose(to_ccd(t, out[t.index]), -1e-3 * seen, atol=1e-5)
    others = [a.index for a in amps.values() if a is not t]
    np.testing.assert_array_equal(out[others], image[others])
    assert np.argwhere(out[t.index]).tolist() == [[5, 20]]


@pytest.mark.parametrize(
    "change",
    [
        {"linear": np.nan},
        {"linear": 0.0},
        {"valid": False},
        {"bad_source": True},
        {"bad_target": True},
    ],
    ids=str,
)
def test_coupling_not_in_force_takes_its_quadratic_term_with_it(change):
    c, q, valid, bad = np.zeros((N, N)), np.zeros((N, N)), np.ones((N, N), bool), np.zeros(N, bool)
    c[1, 4], q[1, 4] = change.get("linear", 1e-4), 1e-9
    valid[1, 4] = change.get("valid", True)
    bad[1], bad[4] = change.get("bad_source", False), change.get("bad_target", False)
    couplings = crosstalk.make_couplings(c, q, valid=valid, bad_amps=bad)
    assert not couplings.linear.any()
    assert not couplings.quadratic.any()
    assert not couplings.count.any()


def test_coupling_to_itself_and_nan_quadratic_are_ignored():
    couplings = crosstalk.make_couplings(np.full((N, N), 1e-4), np.full((N, N), np.nan))
    assert not np.diag(couplings.linear).any()
    assert not couplings.quadratic.any()
    assert (couplings.count == N - 1).all()


def test_nan_of_a_bad_amp_stays_there(rng):
    image = rng.uniform(0, 1e4, (N, 3, 40)).astype("f4")
    image[5] = np.nan
    c, _ = matrices(rng)
    bad = np.arange(N) == 5
    out = crosstalk.subtract(image, crosstalk.make_couplings(c, bad_amps=bad))
    assert np.isnan(out[5]).all()
    assert np.isfinite(out[~bad]).all()


@pytest.mark.parametrize("calibration_in", ["electron", "adu"])
def test_units_convert_like_scaling_the_image_and_back(rng, calibration_in):
    gain = rng.uniform(1.3, 1.8, N)
    scale = gain if calibration_in == "electron" else 1 / gain
    image = rng.uniform(0, 1e5, (N, 4, 30)).astype("f4")
    c, q = matrices(rng)
    scaled = image * scale[:, None, None]
    expected = (scaled - loop(scaled, c, q)) / scale[:, None, None]
    out = crosstalk.subtract(image, crosstalk.make_couplings(c, q, scale=scale))
    np.testing.assert_allclose(out, expected, rtol=2e-7, atol=1e-4)


def test_usable_gains():
    np.testing.assert_array_equal(crosstalk.usable_gains([1.0, np.nan, 0.0, 3.0, -1]), [1, 2, 2, 3, 2])
    with pytest.raises(DataError, match="no usable gain"):
        crosstalk.usable_gains([np.nan, 0.0])


def test_second_pass_removes_the_second_order(rng):
    """Truth T, image T + C^T T: one pass leaves C^2 T, two leave C^3 T."""
    truth = rng.uniform(0, 1e5, (N, 6, 50))
    c, _ = matrices(rng, 2e-3)
    image = (truth + loop(truth, c, 0 * c)).astype("f4")
    couplings = crosstalk.make_couplings(c)
    assert couplings.iterations == 2
    assert crosstalk.make_couplings(c / 100).iterations == 1
    once, twice = (crosstalk.subtract(image, couplings, iterations=k) - truth for k in (1, 2))
    second = loop(loop(truth, c, 0 * c), c, 0 * c)
    np.testing.assert_allclose(once, -second, atol=0.05)
    assert np.abs(once).max() > 1.0
    np.testing.assert_allclose(twice, loop(second, c, 0 * c), atol=0.03)


@pytest.mark.parametrize("iterations", [1, 2])
def test_any_slab_gives_the_same_bits(rng, iterations):
    image = rng.uniform(0, 1e5, (N, 37, 56)).astype("f4")
    couplings = crosstalk.make_couplings(*matrices(rng))
    whole = crosstalk.subtract(image, couplings, iterations=iterations)
    for height in (1, 7, 16):
        parts = [
            crosstalk.subtract(image[:, y : y + height], couplings, iterations=iterations) for y in range(0, 37, height)
        ]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_in_place_new_and_strided_output_agree(rng):
    image = rng.uniform(0, 1e5, (N, 8, 56)).astype("f4")
    image.flags.writeable = False
    couplings = crosstalk.make_couplings(*matrices(rng))
    new = crosstalk.subtract(image, couplings)
    work = image.copy()
    assert crosstalk.subtract(work, couplings, out=work) is work
    big = np.zeros((N, 20, 56), "f4")
    crosstalk.subtract(image, couplings, out=big[:, 4:12])
    np.testing.assert_array_equal(work, new)
    np.testing.assert_array_equal(big[:, 4:12], new)
    assert not big[:, :4].any()
    assert not big[:, 12:].any()


def make_flag(image: np.ndarray, couplings: crosstalk.Couplings, box: tuple[slice, slice]) -> crosstalk.CrosstalkFlag:
    mask = np.full(image.shape, BAD, np.int32)
    return crosstalk.CrosstalkFlag(mask, crosstalk.pedestal(image, couplings, box), np.full(N, 1.0), box)


def test_mask_plane_follows_pedestal_in_data_and_zero_outside(rng):
    image = rng.uniform(3e4, 4e4, (N, 12, 40)).astype("f4")
    c, q = matrices(rng, 3e-5)
    couplings = crosstalk.make_couplings(c, q)
    box = (slice(0, 10), slice(4, 36))
    flag = make_flag(image, couplings, box)
    crosstalk.subtract(image, couplings, flag=flag)
    received = crosstalk.subtrahend(image, couplings)
    for amp in range(N):
        level = np.median(received[amp, :10, 4:36])
        assert flag.pedestal[amp] == pytest.approx(level, rel=1e-6)
        for y in range(12):
            for x in range(40):
                p = level if y < 10 and 4 <= x < 36 else 0.0
                if abs(abs(received[amp, y, x] - p) - 1) > 1e-4:
                    expected = BAD | (CROSSTALK if abs(received[amp, y, x] - p) >= 1 else 0)
                    assert flag.mask[amp, y, x] == expected
    assert 0 < (flag.mask & CROSSTALK > 0).mean() < 1


def test_pedestal_from_some_rows_and_with_nan(rng):
    image = rng.normal(3e4, 170, (N, 64, 56)).astype("f4")
    c, _ = matrices(rng)
    couplings = crosstalk.make_couplings(c)
    box = (slice(0, 60), slice(3, 40))
    exact = crosstalk.pedestal(image, couplings, box)
    np.testing.assert_allclose(crosstalk.pedestal(image, couplings, box, row_step=4), exact, atol=0.05)
    image[:, 3, 10] = np.nan
    np.testing.assert_allclose(crosstalk.pedestal(image, couplings, box), exact, atol=0.01)


def test_faults_name_both_shapes(rng):
    c, q = matrices(rng)
    with pytest.raises(DataError, match=r"quadratic has shape \(4, 4\), 16 amps need \(16, 16\)"):
        crosstalk.make_couplings(c, q[:4, :4])
    couplings = crosstalk.make_couplings(c)
    with pytest.raises(DataError, match=r"\(8, 2, 2\), matrix of 16 amps"):
        crosstalk.subtract(np.zeros((8, 2, 2), "f4"), couplings)
    with pytest.raises(DataError, match="iterations = 3"):
        crosstalk.subtract(np.zeros((N, 2, 2), "f4"), couplings, iterations=3)
    short = crosstalk.CrosstalkFlag(np.zeros((N, 1, 2), "i4"), np.zeros(N), np.ones(N), (slice(0, 1), slice(0, 1)))
    with pytest.raises(DataError, match=r"mask of shape \(16, 1, 2\)"):
        crosstalk.subtract(np.zeros((N, 2, 2), "f4"), couplings, flag=short)


@pytest.mark.slow
def test_full_size_detector(rng):
    image = rng.normal(3e4, 170, (N, 2048, 576)).astype("f4")
    c, _ = matrices(rng)
    out = crosstalk.subtract(image, crosstalk.make_couplings(c))
    rows = slice(None, None, 257)
    np.testing.assert_allclose(out[:, rows], image[:, rows] - loop(image[:, rows], c, 0 * c), atol=0.01)
