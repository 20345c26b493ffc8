"""EPER against a register that is shifted charge by charge; read noise against its truth."""

import numpy as np
import pytest

from camcal_dask.kernels.readout import eper


def shifted(signal, n, n_overscan, inefficiency):
    """Pixels read from a register of ``n`` equal charges that leaves a fraction behind at every shift."""
    register = np.concatenate([np.full(n, signal), np.zeros(n_overscan)])
    out = np.empty(n + n_overscan)
    for k in range(n + n_overscan):
        out[k] = register[0]
        moved = (1 - inefficiency) * register
        stayed = inefficiency * register
        register = np.append(moved[1:], 0.0) + stayed
    return out


@pytest.mark.parametrize("inefficiency", [1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("signal", [1e3, 5e4])
def test_injected_inefficiency_is_recovered(inefficiency, signal):
    """To 10 % as the reference asks (its acceptance test f), without noise to 1 %."""
    n_columns, n_overscan, n_rows = 300, 40, 50
    row = shifted(signal, n_columns, n_overscan, inefficiency)
    raw = np.tile(row, (n_rows + 8, 1)) + 25_000 + np.arange(n_rows + 8)[:, None]  # rows have their own level
    found = eper.serial(raw, (0, n_columns), (0, n_rows))
    assert found.cti == pytest.approx(inefficiency, rel=0.01)
    assert found.signal == pytest.approx(row[n_columns - 1], rel=1e-6)
    turned = eper.parallel(raw.T, (0, n_rows), (0, n_columns))
    assert turned.cti == pytest.approx(inefficiency, rel=0.01)


def test_noise_averages_out_and_outliers_do_not_count():
    rng = np.random.default_rng(1)
    n_columns, n_overscan, n_rows, inefficiency, signal = 512, 64, 2000, 1e-5, 50_000.0
    row = shifted(signal, n_columns, n_overscan, inefficiency)
    raw = row + 25_000 + rng.normal(0, 5, (n_rows, row.size))
    raw[100:110, n_columns] += 3_000  # hot pixels that bleed into the overscan
    found = eper.serial(raw, (0, n_columns), (0, n_rows))
    level = 2 * 1.25 / np.sqrt(n_overscan - 2)  # of a row, taken from two columns
    error = 5 * np.sqrt((2 + level**2) / n_rows) / signal / (n_columns + 1)
    expected = inefficiency * n_columns / (n_columns + 1)
    assert abs(found.cti - expected) < 4 * error < 0.1 * inefficiency
    assert found.cti_error == pytest.approx(error, rel=0.1)


def test_prescan_and_dark_frames():
    raw = np.full((20, 30), 1000.0)
    assert np.isnan(eper.serial(raw, (3, 25), (0, 18)).cti)  # no signal
    raw[:, 3:25] += 100.0
    found = eper.serial(raw, (3, 25), (0, 18))
    assert found == (0.0, 0.0, 100.0, 22)
    assert np.isnan(eper.serial(raw, (3, 28), (0, 18)).cti)  # no overscan left for the level


def test_read_noise_of_boxes():
    rng = np.random.default_rng(2)
    drift = np.linspace(0, 30, 2000)[:, None]  # slow: a box sees little of it
    overscan = rng.normal(0, 5.0, (2000, 50)) + drift
    assert eper.read_noise(overscan) == pytest.approx(5.0, rel=0.02)
    assert eper.read_noise(overscan) == eper.read_noise(overscan)
    assert eper.read_noise(overscan[:10, :3] - drift[:10]) == pytest.approx(5.0, rel=0.4)
    assert np.isnan(eper.read_noise(overscan[:1]))
