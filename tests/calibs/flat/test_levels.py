"""Scales of flats from a table of levels; the vignetted region."""

import numpy as np
import pytest

from camcal_dask.calibs.flat.levels import LevelConfig, VignetteConfig, solve, vignette
from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument
from camcal_dask.kernels.light.flat_scale import Levels
from camcal_dask.kernels.pixels.masks import NO_DATA, PARTLY_VIGNETTED, VIGNETTED


def level(value):
    return Levels(value, 1.0, 100, np.full(2, value), np.ones(2), np.full(2, 50))


@pytest.mark.parametrize("unit", ["detector", "amp"])
def test_levels_split_into_lamp_and_throughput(unit):
    lamp, throughput = np.array([900.0, 1100.0, 1000.0]), {4: 0.9, 7: 1.1}
    levels = {d: [level(e * g) for e in lamp] for d, g in throughput.items()}
    table = solve(levels, [1, 2, 3], ["C00", "C01"], LevelConfig(unit=unit))
    np.testing.assert_allclose(table["exposure_scale"], lamp, rtol=1e-10)
    found = table["throughput"].values.reshape(2, -1)
    np.testing.assert_allclose(found, np.array([[0.9], [1.1]]) + np.zeros_like(found), rtol=1e-10)


def test_an_exposure_without_light_is_named():
    levels = {4: [level(100.0), level(np.nan), level(110.0)]}
    with pytest.raises(DataError, match=r"exposures \[12\] have no level"):
        solve(levels, [11, 12, 13], ["C00", "C01"], LevelConfig())


@pytest.mark.parametrize("value", [0.14, 4.9, -2.0])
def test_an_exposure_whose_level_is_noise_is_refused_by_name(value):
    """Beside 5900 adu, a level of 0.14 adu is no scale, and its pixels scatter by 1 adu."""
    levels = {4: [level(5900.0), level(value), level(5910.0)]}
    with pytest.raises(DataError, match=r"exposures \[12\] have no l"):
        solve(levels, [11, 12, 13], ["C00", "C01"], LevelConfig())
    levels[7] = [level(5900.0), level(6.0), level(5910.0)]
    assert solve(levels, [11, 12, 13], ["C00", "C01"], LevelConfig())["exposure_scale"].shape == (3,)


def test_vignetted_pixels_have_no_value():
    detector = get_instrument("TinyCam").detectors[1]  # on the axis: 2.88 x 1 mm
    shape = (16, 50, 36)
    arrays = {"image": np.ones(shape, np.float32), "mask": np.zeros(shape, np.int32)}
    made = vignette(arrays, detector, VignetteConfig(enabled=True, radius_mm=1.2, partial_radius_mm=0.8))
    outside = made["mask"] & VIGNETTED > 0
    assert 0.1 < outside.mean() < 0.3
    assert (made["mask"][outside] & NO_DATA).all()
    assert (made["image"][outside] == 0).all()
    assert (made["image"][~outside] == 1).all()
    assert (made["mask"][outside] & PARTLY_VIGNETTED).all()
    assert (made["mask"] & PARTLY_VIGNETTED > 0).sum() > outside.sum()
    assert made["image"].dtype == np.float32
