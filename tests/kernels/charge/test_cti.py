"""Deferred charge against a loop of the equations and a simulated readout, both written here."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.kernels.charge import cti
from camcal_dask.kernels.charge.cti import Trap, correct, make_deferred_charge

PRESCAN, DATA, OVERSCAN = 4, 40, 24
WIDTH = PRESCAN + DATA + OVERSCAN
BOX = (slice(0, 6), slice(PRESCAN, PRESCAN + DATA))

TRAPS = {
    "none": Trap(),
    "linear": Trap(200.0, 0.6, "linear", (2e-3,)),
    "logistic": Trap(50.0, 1.5, "logistic", (2e4, 1e-4)),
    "spline": Trap(2e4, 0.9, "spline", (0, 100, 1e3, 3e4, np.nan, 0, 5, 20, 60, np.nan)),
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def calibration(trap: Trap, a: float = 3e-4, tau: float = 4.0, b: float = 1e-3, n: int = 1, **kwargs):
    return make_deferred_charge(np.full(n, a), np.full(n, tau), np.full(n, b), [trap] * n, **kwargs)


def capture(trap: Trap, s: float) -> float:
    c = np.array(trap.coefficients)
    if trap.kind == "none":
        return 0.0
    if trap.kind == "linear":
        return min(trap.size, c[0] * s)
    if trap.kind == "logistic":
        return trap.size / (1 + np.exp(-c[1] * (s - c[0])))
    x, y = np.split(c, 2)
    return float(np.interp(s, x[np.isfinite(x)], y[np.isfinite(y)]))


def loop(row: np.ndarray, trap: Trap, a: float, tau: float, b: float) -> np.ndarray:
    """The equations of reference/isr.md 2.7, pixel by pixel in float64."""
    s, n = row.astype(float), len(row)
    if a > 0:
        offset = [max(a * max(0.0, s[i - j]) * np.exp(-j / tau) for j in range(15) if i >= j) for i in range(n)]
        s = s - np.array(offset)
    if trap.kind == "none":
        return s
    r = np.exp(-1 / trap.emission_time)
    f = [capture(trap, max(0.0, v)) for v in s]
    out = s.copy()
    for i in range(n):
        held = max([f[i - 1 - j] * r**j for j in range(6) if i - 1 - j >= 0], default=0.0)
        released = held * (1 - r) if i >= 1 else 0.0
        out[i] -= (1 - b) * (released - max(0.0, f[i] - held * r))
    return out


@pytest.mark.parametrize("kind", TRAPS)
@pytest.mark.parametrize("a", [0.0, 3e-4])
def test_matches_the_equations(rng, kind, a):
    image = rng.exponential(2e4, (1, 6, WIDTH)).astype("f4")
    image[:, :, PRESCAN + DATA :] = rng.normal(0, 6, (1, 6, OVERSCAN))
    image[:, 2, 20:] = 0
    out = correct(image, calibration(TRAPS[kind], a=a), BOX)
    image[:, :, :PRESCAN] = 0
    expected = [loop(row, TRAPS[kind], a, 4.0, 1e-3) for row in image[0]]
    np.testing.assert_allclose(out[0], expected, rtol=1.5e-7, atol=2e-4)


def test_window_forgets_where_a_running_maximum_does_not():
    """Slow decay: 15 pixels on, the windowed offset is gone, the running one would still be 2% off."""
    image = np.zeros((1, 1, WIDTH), "f4")
    image[0, 0, 10] = 1e5
    box = (slice(0, 1), slice(PRESCAN, PRESCAN + DATA))
    out = correct(image, calibration(TRAPS["none"], a=1e-3, tau=50.0), box)[0, 0]
    expected = np.where(
        (np.arange(WIDTH) >= 10) & (np.arange(WIDTH) < 25), 100 * np.exp(-(np.arange(WIDTH) - 10) / 50), 0
    )
    np.testing.assert_allclose(image[0, 0] - out, expected, atol=4e-3)


def simulate(truth: np.ndarray, trap: Trap, a: float, tau: float, b: float) -> np.ndarray:
    """Read a row out of a serial register (reference/construction.md 9.4): trap at column 1, drifting amplifier.

    The charge of register pixel n+1 moves to n at each of the reads; a fraction b stays behind.
    """
    register = np.concatenate([np.zeros(PRESCAN), truth, np.zeros(OVERSCAN)])
    r = np.exp(-1 / trap.emission_time)
    trapped, offset, pixels = 0.0, 0.0, []
    for _ in range(WIDTH):
        caught = min(max(capture(trap, register[1]), trapped), trap.size) - trapped
        trapped, register[1] = trapped + caught, register[1] - caught
        moved, left = (1 - b) * register, b * register
        offset = max(a * moved[0], offset * np.exp(-1 / tau))
        pixels.append(moved[0] + offset)
        register = np.append(moved[1:], 0.0) + left
        freed = trapped * (1 - r)
        trapped, register[1] = trapped - freed, register[1] + freed
    return np.array(pixels)


def residual(
    truth: np.ndarray, trap: Trap, a: float, b: float = 0.0, tau: float = 1.3
) -> tuple[np.ndarray, np.ndarray]:
    """Effect of the readout and what the correction leaves of it [electron], in float64 from float32 images."""
    measured = simulate(truth, trap, a, tau, b)
    none = simulate(truth, Trap(), 0.0, tau, b)
    image = measured.astype("f4")[None, None]
    box = (slice(0, 1), slice(PRESCAN, PRESCAN + DATA))
    return measured - none, correct(image, calibration(trap, a=a, tau=tau, b=b), box)[0, 0] - none


@pytest.mark.parametrize("row", ["step", "column", "decreasing"])
@pytest.mark.parametrize("which", ["offset", "linear", "spline", "both"])
def test_simulated_readout_is_undone_to_second_order(row, which):
    """reference/isr.md 7.5: halving drift scale and trap quarters what is left, and little is left at all."""
    truth = {
        "step": np.where(np.arange(DATA) >= 0, 3e4, 0),
        "column": np.where(np.arange(DATA) == 20, 5e4, 0),
        "decreasing": 4e4 * np.exp(-np.arange(DATA) / 15),
    }[row]

    def case(h: float) -> tuple[float, float]:
        a = 4e-3 * h if which in ("offset", "both") else 0.0
        linear = Trap(1e6, 0.7, "linear", (8e-3 * h,))
        y = tuple(v * h for v in (0.0, 40, 160, 320))
        table = Trap(1e6, 0.7, "spline", (0.0, 5e3, 2e4, 4e4, *y))
        trap = {"offset": Trap(), "linear": linear, "both": linear, "spline": table}[which]
        effect, left = residual(truth, trap, a)
        return np.abs(effect).max(), np.abs(left).max()

    effect, left = case(1.0)
    _, left_half = case(0.5)
    assert effect > 50
    assert left < 0.02 * effect
    assert left_half < 0.3 * left + 0.01  # float32 at 5e4 is good to 0.004


def test_global_cti_scales_the_exchange():
    """The trap acts on what passes it; with b the effect in the image is (1 - b) of it, as corrected."""
    truth = np.full(DATA, 3e4)
    effect, left = residual(truth, Trap(1e6, 0.7, "linear", (1e-3,)), 0.0, b=0.02)
    first = slice(PRESCAN + DATA, PRESCAN + DATA + 3)
    assert np.abs(left[first]).max() < 0.1 * np.abs(effect[first]).max()


def test_prescan_and_parallel_overscan_become_zero(rng):
    image = rng.uniform(1e3, 2e4, (2, 10, WIDTH)).astype("f4")
    out = correct(image, calibration(TRAPS["none"], a=0.0, n=2), BOX)
    columns = slice(PRESCAN, PRESCAN + DATA)
    assert not out[:, :, :PRESCAN].any()
    assert not out[:, 6:, columns].any()
    np.testing.assert_array_equal(out[:, :6, PRESCAN:], image[:, :6, PRESCAN:])
    np.testing.assert_array_equal(out[:, 6:, columns.stop :], image[:, 6:, columns.stop :])


@pytest.mark.parametrize("kind", TRAPS)
def test_adu_image_is_the_electron_image_divided(rng, kind):
    electron = rng.exponential(2e4, (1, 6, WIDTH)).astype("f4")
    expected = correct(electron, calibration(TRAPS[kind]), BOX) / 1.6
    adu = correct(electron / np.float32(1.6), calibration(TRAPS[kind], gain=[1.6]), BOX)
    np.testing.assert_allclose(adu, expected, rtol=3e-7, atol=2e-4)


def test_any_slab_in_place_and_read_only(rng):
    image = rng.exponential(2e4, (3, 20, WIDTH)).astype("f4")
    image.flags.writeable = False
    prepared = calibration(TRAPS["spline"], n=3)
    whole = correct(image, prepared, (slice(0, 16), BOX[1]))
    work = image.copy()
    for y in range(0, 20, 5):
        part = work[:, y : y + 5]
        stop = min(max(16 - y, 0), 5)
        assert correct(part, prepared, (slice(0, stop), BOX[1]), out=part) is part
    np.testing.assert_array_equal(work, whole)


def test_nan_pixel_does_not_spread():
    image = np.full((1, 1, WIDTH), 1e4, "f4")
    image[0, 0, 20] = np.nan
    box = (slice(0, 1), BOX[1])
    for trap in TRAPS.values():
        out = correct(image, calibration(trap), box)
        assert np.isnan(out[0, 0]).nonzero()[0].tolist() == [20]


@pytest.mark.parametrize(
    "change",
    [
        {"drift_scale": np.nan},
        {"global_cti": np.inf},
        {"decay_time": np.nan},
        {"decay_time": 0.0},
        {"gain": np.nan},
        {"gain": 0.0},
        {"trap": dataclasses.replace(TRAPS["linear"], size=np.nan)},
        {"trap": dataclasses.replace(TRAPS["linear"], emission_time=np.nan)},
        {"trap": dataclasses.replace(TRAPS["linear"], coefficients=(np.nan,))},
        {"trap": dataclasses.replace(TRAPS["spline"], coefficients=(np.nan,) * 4)},
    ],
    ids=str,
)
def test_amp_without_finite_numbers_fails_alone_and_by_name(change):
    good = {"drift_scale": 1e-4, "decay_time": 2.0, "global_cti": 1e-6, "gain": 1.0, "trap": TRAPS["linear"]}
    first = {**good, **change}
    both = {key: [first[key], good[key]] for key in good}
    prepared = make_deferred_charge(
        both["drift_scale"], both["decay_time"], both["global_cti"], both["trap"], gain=both["gain"]
    )
    assert prepared.failed.tolist() == [True, False]
    assert list(prepared.problems) == [0]
    out = correct(np.ones((2, 6, WIDTH), "f4"), prepared, BOX)
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()


def test_null_trap_of_e2v_is_no_trap(rng):
    image = rng.exponential(2e4, (1, 6, WIDTH)).astype("f4")
    null = calibration(Trap(2e4, 0.4, "spline", (0, 10, 0, 0)))
    assert null.trap[0, 0] == 0
    np.testing.assert_array_equal(correct(image, null, BOX), correct(image, calibration(Trap()), BOX))


def test_equal_knots_are_averaged():
    trap = Trap(1e4, 0.5, "spline", (0, 100, 100, 200, 0, 4, 6, 10))
    table = calibration(trap).tables[0]
    np.testing.assert_allclose(table.node[:2], [0, 100])
    np.testing.assert_allclose(table.c[:2], [[0, 5], [0.05, 0.05]], rtol=1e-6)


def test_faults_name_both_values():
    with pytest.raises(DataError, match="unknown kind of trap 'splin'; did you mean 'spline'"):
        calibration(Trap(1.0, 1.0, "splin"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"amp 0: knots \[0.0, 9.0, 5.0\] are not in rising order"):
        calibration(Trap(1.0, 1.0, "spline", (0, 9, 5, 1, 2, 3)))
    with pytest.raises(DataError, match=r"2 traps but \(3,\)"):
        make_deferred_charge(np.zeros(3), np.zeros(3), np.zeros(3), [Trap(), Trap()])
    with pytest.raises(DataError, match="calibration of 1 amps"):
        correct(np.zeros((2, 1, WIDTH), "f4"), calibration(Trap()), BOX)
    assert cti.OFFSET_WINDOW == 15
    assert cti.TRAP_WINDOW == 6
