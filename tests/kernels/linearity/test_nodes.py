"""Levels of light, the nodes they support, and the look at a correction between them."""

import numpy as np
import pytest

from camcal_dask.kernels.linearity.akima import akima_spline
from camcal_dask.kernels.linearity.correct import correct_signals, lengthen_spline
from camcal_dask.kernels.linearity.double import NodeSizes, place_nodes
from camcal_dask.kernels.linearity.nodes import (
    coarser_nodes,
    find_levels,
    level_signals,
    measure_shape,
    still_supported,
    supported_nodes,
    wild_levels,
)

DENSE = np.geomspace(60, 101000, 2000)
FEW = np.geomspace(500, 101000, 12)


def test_exposures_of_equal_light_are_one_level_whatever_the_lamp_did():
    light = np.array([2.0, 1.0, 1.004, 2.0, 1.006, 1.0])
    group = np.array([0, 0, 0, 1, 0, -1])
    good = np.array([True, True, True, True, True, False])
    assert find_levels(light, group, good).tolist() == [2, 0, 0, 3, 1, -1]
    signal = np.array([200.0, 100, 104, 200.5, 106, 7])  # the two groups meet at 200
    np.testing.assert_allclose(level_signals(signal, find_levels(light, group, good)), [102, 106, 200])
    assert not level_signals(signal, np.full(6, -1)).size


def test_dense_levels_leave_the_nodes_of_the_reference():
    wanted = place_nodes(70000.0, 101000.0, NodeSizes())
    np.testing.assert_array_equal(supported_nodes(wanted, DENSE), wanted)
    np.testing.assert_array_equal(supported_nodes(np.linspace(0, 101000, 10), DENSE), np.linspace(0, 101000, 10))


@pytest.mark.parametrize("wanted", [place_nodes(70000.0, 101000.0, NodeSizes()), np.linspace(0, 101000, 10)])
@pytest.mark.parametrize(
    "levels", [FEW, np.linspace(5000, 101000, 13), np.append(np.geomspace(300, 20000, 40), [70000.0, 90000, 101000])]
)
def test_two_levels_lie_between_nodes(wanted, levels):
    for per_cell in (2, 3, 4):
        nodes = supported_nodes(wanted, levels, per_cell)
        inside = np.histogram(levels, nodes)[0]
        assert nodes[0] == 0
        assert nodes[-1] == 101000
        assert (np.diff(nodes) > 0).all()
        assert (inside[1:] >= per_cell).all()
        assert inside[0] >= 1
        assert len(nodes) <= len(wanted)
    counts = [len(nodes) for nodes in coarser_nodes(wanted, levels)]
    assert counts[-1] >= 3
    assert (np.diff(counts) < 0).all()


def test_a_flat_that_its_nodes_need_is_not_rejected():
    nodes, signal = np.array([0.0, 10, 20, 30]), np.array([5.0, 12, 18, 22, 25, 28])
    label = np.array([0, 1, -1, 3, 4, -1])  # the third and the sixth are to go
    assert still_supported(nodes, signal, label).tolist() == [True, False, False, True, True, True]


def test_a_level_with_other_light_is_wild_unless_it_is_at_the_end():
    signal = np.repeat(FEW, 2)
    ratio = 1 - 8e-8 * signal + 1e-4 * np.random.default_rng(0).normal(size=24)
    label = np.repeat(np.arange(12), 2)
    assert wild_levels(ratio, signal, label, 5.0).tolist() == []
    for level, found in ((3, [3]), (8, [8]), (10, []), (11, [])):  # of the last two it cannot be told which it is
        assert wild_levels(np.where(label == level, ratio * 1.02, ratio), signal, label, 5.0).tolist() == found
    assert wild_levels(np.where(label % 3 == 0, 0.9, 1.0) * ratio, signal, label, 5.0).size <= 2
    assert wild_levels(ratio[:4], signal[:4], label[:4], 5.0).size == 0


def test_shape_sees_what_lies_between_the_flats():
    levels = np.linspace(1000, 1e5, 12)
    tame = measure_shape(lambda y: y * (1 - 1e-7 * y), levels)
    assert tame.tame
    assert tame.slope == pytest.approx(1 - 2e-2, abs=1e-3)
    assert tame.wander < 1e-6
    step = float(np.diff(levels)[0])
    wild = measure_shape(lambda y: y * (1 + 0.3 * np.sin(np.pi * (y - 1000) / step)), levels)  # perfect at the flats
    assert not wild.tame
    assert wild.wander == pytest.approx(0.3, rel=0.05)
    assert wild.slope < -1


@pytest.mark.parametrize("more", [1, 2, 3, 9])
def test_a_longer_row_corrects_as_the_short_one(more):
    """Also in a reader that splits the row in the middle and knows nothing of padding."""
    x = np.array([0.0, 1e4, 3e4, 7e4, 1e5])
    y = np.array([0.0, -80, 40, 300, -500])
    row = np.concatenate([x, y])
    longer = lengthen_spline(row, len(row) + 2 * more)
    assert len(longer) == len(row) + 2 * more
    grid = np.linspace(-100, 1e5, 5001)
    nodes, values = np.split(longer, 2)
    np.testing.assert_allclose(akima_spline(nodes, values, grid), akima_spline(x, y, grid), atol=1e-9)
    applied = [correct_signals("Spline", r, grid[grid < 99999]) for r in (row, longer)]
    np.testing.assert_allclose(*applied, atol=0.02)
    assert np.abs(longer[len(longer) // 2 + 5 :] + 500).max() < 1  # beyond the last node nothing happens either
    assert not lengthen_spline(np.zeros(4), 10).any()
