"""Focal-plane positions against the tables' own centres and gaps; masks against geometry done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument, instrument_names
from camcal_dask.instruments.focal_plane import (
    amp_boxes,
    assemble,
    ccd_to_focal_plane,
    invert,
    outside_circle,
    readout_to_ccd,
    readout_to_focal_plane,
    split,
    transform,
    vignette_planes,
)
from camcal_dask.kernels.pixels.masks import NO_DATA, PARTLY_VIGNETTED, VIGNETTED


@pytest.mark.parametrize("name", sorted(set(instrument_names()) - {"TinyCam"}))  # TinyCam: centres not computed
def test_centres_are_those_of_the_tables(name):
    for detector in get_instrument(name).detectors.values():
        middle = (detector.width_pix - 1) / 2, (detector.height_pix - 1) / 2
        x, y = transform(ccd_to_focal_plane(detector), *middle)
        assert (x, y) == pytest.approx((detector.center_x_mm, detector.center_y_mm), abs=6e-5)


@pytest.mark.parametrize(
    ("left", "right", "axis", "gap"),
    [
        ("R02_S00", "R02_S01", 0, 153),  # inside an ITL raft
        ("R02_S00", "R02_S10", 1, 225),
        ("R22_S00", "R22_S01", 0, 129),  # inside an E2V raft
        ("R22_S00", "R22_S10", 1, 221),
        ("R02_S02", "R03_S00", 0, 178),  # between ITL rafts
        ("R22_S02", "R23_S00", 0, 154),  # between E2V rafts
        ("R10_S02", "R11_S00", 0, 167),  # ITL | E2V
        ("R01_S20", "R11_S00", 1, 249),
    ],
)
def test_gaps_between_ccds_in_pixels(left, right, axis, gap):
    """reference/raw_format.md 3.3 lists the gaps between the active areas."""
    camera = get_instrument("LSSTCam")
    a, b = camera.detector(left), camera.detector(right)
    last = transform(ccd_to_focal_plane(a), a.width_pix - 1, a.height_pix - 1)[axis]
    first = transform(ccd_to_focal_plane(b), 0, 0)[axis]
    assert (first - last) / 0.010 - 1 == pytest.approx(gap, abs=0.01)


def test_corner_sensors_are_turned():
    camera = get_instrument("LSSTCam")
    for detector in camera.detectors.values():
        affine = ccd_to_focal_plane(detector)
        angle = np.rad2deg(np.arctan2(affine[1, 0], affine[0, 0])) % 360
        assert angle == pytest.approx(detector.yaw_deg % 360, abs=1e-9)
        assert np.linalg.det(affine[:, :2]) == pytest.approx(1e-4)


@pytest.mark.parametrize(("camera", "detector"), [("LSSTCam", 94), ("LSSTCam", 0), ("LSSTCam", 191), ("TinyCam", 2)])
def test_readout_pixels_find_their_place_in_the_ccd(camera, detector):
    model = get_instrument(camera).detector(detector)
    rng = np.random.default_rng(1)
    labels = np.arange(model.height_pix * model.width_pix).reshape(model.height_pix, model.width_pix)
    n, height, width = len(model.amps), model.amps[0].data.height, model.amps[0].data.width
    amps = split(labels, model, (n + 1, height + 2, width + 3), fill=-1)
    assert (amps[n] == -1).all()
    assert (amps[:n, height:] == -1).all()
    assert (amps[:n, :, width:] == -1).all()
    for image, amp in zip(amps, model.amps, strict=False):
        x, y = rng.integers(0, width, 50), rng.integers(0, height, 50)
        cx, cy = transform(readout_to_ccd(amp), x, y)
        np.testing.assert_array_equal(image[y, x], labels[cy.astype(int), cx.astype(int)])
        np.testing.assert_allclose(
            transform(readout_to_focal_plane(model, amp), x, y),
            transform(ccd_to_focal_plane(model), cx, cy),
            atol=1e-12,
        )
    np.testing.assert_array_equal(assemble(amps, model), labels)


def test_readout_corner_is_the_pixel_read_first():
    camera = get_instrument("LSSTCam")
    for detector in (94, 0):
        boxes = amp_boxes(camera.detector(detector))
        for amp, (x0, y0, width, height) in zip(camera.detector(detector).amps, boxes, strict=True):
            x, y = transform(readout_to_ccd(amp), 0, 0)
            side = ("U" if y == y0 + height - 1 else "L") + ("R" if x == x0 + width - 1 else "L")
            assert side == amp.readout_corner


def test_amp_boxes_tile_the_ccd():
    for name, numbers in {"LSSTCam": (0, 94, 191), "TinyCam": (0, 2)}.items():
        for detector in map(get_instrument(name).detector, numbers):
            count = np.zeros((detector.height_pix, detector.width_pix), np.int8)
            for x0, y0, width, height in amp_boxes(detector):
                count[y0 : y0 + height, x0 : x0 + width] += 1
            assert (count == 1).all()


def test_inverse():
    detector = get_instrument("LSSTCam").detector(203)
    affine = ccd_to_focal_plane(detector)
    x, y = np.array([0.0, 12.5, 4000.0]), np.array([7.0, -3.0, 1999.0])
    np.testing.assert_allclose(transform(invert(affine), *transform(affine, x, y)), (x, y), atol=1e-8)


def inside_polygon(x, y, corners):
    """Left of every edge of the counter-clockwise polygon."""
    inside = np.ones(np.broadcast(x, y).shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
    return inside


def vignette_polygon(radius_mm, vertices):
    """Corners of the polygon (vertices, 2) [mm]."""
    angle = 2 * np.pi * np.arange(vertices) / vertices
    return radius_mm * np.column_stack([np.cos(angle), np.sin(angle)])


@pytest.mark.parametrize("vertices", [3, 4, 7, 100])
def test_polygon_is_the_polygon_of_its_corners(vertices):
    affine = np.array([[0.8013, 0.3071, -31.017], [-0.3071, 0.8013, -15.123]])  # no pixel on an edge
    shape = (71, 83)
    x, y = transform(affine, np.arange(83), np.arange(71)[:, None])
    found = outside_circle(affine, shape, 24.0, vertices=vertices)
    np.testing.assert_array_equal(~found, inside_polygon(x, y, vignette_polygon(24.0, vertices)))
    assert 0 < found.sum() < found.size


def test_polygon_reaches_349_83_at_the_middle_of_its_edges():
    """The shipped polygon: at its corners 350 mm, between them less; pixels of 1 um along both directions."""
    for angle, reach in ((0.0, 350.0), (np.pi / 100, 349.83)):
        c, s = np.cos(angle), np.sin(angle)
        affine = np.array([[1e-3 * c, -1e-3 * s, 349.5 * c], [1e-3 * s, 1e-3 * c, 349.5 * s]])
        outside = outside_circle(affine, (1, 1000), 350.0, vertices=100)[0]
        assert 349.5 + 1e-3 * outside.argmax() == pytest.approx(reach, abs=0.005)


def test_vignetted_area_of_a_corner_sensor():
    """R01_S00 reaches beyond 317 and 350 mm: compare with a count over the whole CCD."""
    camera = get_instrument("LSSTCam")
    detector = camera.detector("R01_S00")
    shape = (16, 2002, 512)
    planes = vignette_planes(detector, shape)
    assert planes.dtype == np.int32
    affine = ccd_to_focal_plane(detector)
    x, y = transform(affine, np.arange(detector.width_pix), np.arange(detector.height_pix)[:, None])
    r = np.hypot(x, y)
    ccd = assemble(planes, detector)
    np.testing.assert_array_equal(ccd & PARTLY_VIGNETTED > 0, r > 317)
    dark = ccd & (NO_DATA | VIGNETTED)
    assert ((dark == 0) | (dark == (NO_DATA | VIGNETTED))).all()
    assert (dark[r > 350] > 0).all()
    assert (dark[r < 349.82] == 0).all()
    assert (planes[:, 2000:] == 0).all()  # padding of ITL amps


def test_inner_sensors_see_the_whole_pupil():
    camera = get_instrument("LSSTCam")
    assert not vignette_planes(camera.detector("R22_S11"), (16, 2002, 512)).any()


def test_number_of_vignetted_science_sensors():
    """Only the outermost sensors of the eight outer rafts beside the corners reach 350 mm."""
    camera = get_instrument("LSSTCam")
    beyond = set()
    for number in camera.science_detectors:
        detector = camera.detector(number)
        x = np.array([0, detector.width_pix - 1, 0, detector.width_pix - 1])
        y = np.array([0, 0, detector.height_pix - 1, detector.height_pix - 1])
        if np.hypot(*transform(ccd_to_focal_plane(detector), x, y)).max() > 350:
            beyond.add(detector.full_name)
    assert beyond == {"R01_S00", "R03_S02", "R10_S00", "R14_S02", "R30_S20", "R34_S22", "R41_S20", "R43_S22"}


def test_wrong_sizes_are_refused():
    detector = get_instrument("TinyCam").detector(0)
    with pytest.raises(DataError, match=r"0 \(R22_S00\).*does not hold its 16 amps of 50 x 36"):
        assemble(np.zeros((16, 50, 30)), detector)
    with pytest.raises(DataError, match="expected"):
        split(np.zeros((99, 288)), detector, (16, 50, 36))
