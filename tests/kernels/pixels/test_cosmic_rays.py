"""The cosmic-ray search on tracks put in by hand, across amp borders, and against overflow."""

import numpy as np
import pytest

from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.kernels.pixels.cosmic_rays import find_cosmic_rays
from camcal_dask.kernels.pixels.masks import BAD, INTRP

NOISE = 5.0


def layout(detector=0):
    amps = get_instrument("TinyCam").detectors[detector].amps
    return np.array([[a.data.height, a.data.width, a.ix, a.iy, a.flip_x, a.flip_y] for a in amps], np.int64)


def blank(noise=0.0, detector=0):
    rng = np.random.default_rng(11)
    image = rng.normal(0, noise, (16, 50, 36)).astype("f4") if noise else np.zeros((16, 50, 36), "f4")
    return image, np.full(image.shape, NOISE**2, "f4"), np.zeros(image.shape, np.int32)


def search(image, variance, mask, level=0.0, **options):
    return find_cosmic_rays(image, variance, mask, np.full(16, level), layout(), **options)


def hit_pixels(found, shape=(16, 50, 36)):
    return {tuple(int(i) for i in np.unravel_index(k, shape)) for k in found.pixel}


def test_single_pixel_is_found_and_mended():
    image, variance, mask = blank()
    image += 100.0
    image[4, 20, 10] += 1000.0
    found = search(image, variance, mask, level=100.0)
    assert hit_pixels(found) == {(4, 20, 10)}
    assert found.repaired == pytest.approx([100.0])
    assert list(found.n_hit) == [0] * 4 + [1] + [0] * 11
    assert not found.overflow.any()


@pytest.mark.parametrize(("height", "expected"), [(149.0, 0), (151.0, 1)])
def test_track_must_reach_the_least_sum(height, expected):
    image, variance, mask = blank()
    image[4, 20, 10] = height
    assert search(image, variance, mask).pixel.size == expected


def test_star_shaped_like_the_psf_is_no_cosmic_ray():
    image, variance, mask = blank()
    y, x = np.mgrid[:50, :36]
    image[4] = 1000 * np.exp(-0.5 * ((y - 25) ** 2 + (x - 18) ** 2) / 1.274**2)
    assert search(image, variance, mask).pixel.size == 0


def test_tail_of_a_track_joins_by_growth():
    image, variance, mask = blank()
    image[4, 20, 10:14] = [2000.0, 400.0, 60.0, 17.0]
    assert hit_pixels(search(image, variance, mask)) == {(4, 20, x) for x in range(10, 14)}


def test_a_masked_pixel_does_not_hide_its_neighbour_in_a_track():
    """As simulated: the end of a diagonal track, where the only direction that is dark on both sides is masked."""
    image, variance, mask = blank()
    track = [(10, 12, 234), (10, 13, 848), (11, 11, 428), (11, 12, 1061), (12, 10, 647), (12, 11, 643), (13, 10, 424)]
    for y, x, charge in track:
        image[4, y, x] = charge
    wanted = {(4, y, x) for y, x, _ in track}
    assert hit_pixels(search(image, variance, mask)) == wanted
    mask[4, 11, 13] = BAD
    image[4, 11, 13] = 5000.0
    assert hit_pixels(search(image, variance, mask)) == wanted


def test_track_crosses_amps_in_ccd_order():
    """C10 and C11 (E2V, flipped): column 0 of C10 is the right-hand edge, beside the last column of C11."""
    image, variance, mask = blank()
    image[0, 20, 0] = 100.0
    image[1, 20, 35] = 100.0
    assert hit_pixels(search(image, variance, mask)) == {(0, 20, 0), (1, 20, 35)}
    image[1, 20, 35] = 0.0
    assert search(image, variance, mask).pixel.size == 0  # alone it is below 150


def test_hits_on_the_frame_of_the_ccd_are_found():
    image, variance, mask = blank()
    image[15, 0, 0] = 5000.0  # C00 of E2V: lower left corner
    assert hit_pixels(search(image, variance, mask)) == {(15, 0, 0)}


@pytest.mark.parametrize("plane", [BAD, INTRP])
def test_masked_pixels_are_never_hits(plane):
    image, variance, mask = blank()
    image[4, 20, 10] = 1000.0
    mask[4, 20, 10] = plane
    assert search(image, variance, mask).pixel.size == 0


def test_pixel_beside_an_interpolated_one_is_left_alone():
    image, variance, mask = blank()
    image[4, 20, 10] = 1000.0
    mask[4, 21, 11] = INTRP
    assert search(image, variance, mask).pixel.size == 0


def test_noise_makes_no_hits_and_many_hits_are_all_found():
    image, variance, mask = blank(NOISE)
    assert search(image, variance, mask).pixel.size == 0
    rng = np.random.default_rng(2)
    truth = set()
    for a in range(16):
        for y, x in {(int(y), int(x)) for y, x in zip(rng.integers(50, size=8), rng.integers(36, size=8), strict=True)}:
            image[a, y, x] += 5000
            truth.add((a, y, x))
    found = search(image, variance, mask)
    assert truth <= hit_pixels(found)
    assert abs(found.repaired).max() < 6 * NOISE


def test_too_many_hits_overflow_only_their_amp():
    image, variance, mask = blank(NOISE)
    image[6, ::3, ::3] = 3000.0
    found = search(image, variance, mask)
    assert list(np.flatnonzero(found.overflow)) == [6]


def test_amp_far_above_its_variance_overflows_without_harm():
    image, variance, mask = blank(NOISE)
    image[6] += 1000.0
    found = search(image, variance, mask)
    assert found.overflow[6]


def test_absent_amp_and_unknown_background_are_left_out():
    image, variance, mask = blank()
    image[4, 20, 10] = image[5, 20, 10] = 1000.0
    level = np.zeros(16)
    level[5] = np.nan
    found = find_cosmic_rays(image, variance, mask, level, layout())
    assert hit_pixels(found) == {(4, 20, 10)}
