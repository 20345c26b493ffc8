"""Linearizers from few, repeated, missing and dense levels of light, against responses in closed form.

What counts is the correction at *all* signals from 1000 electrons to the turnoff, not at the flats.
"""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.linearizer.config import DoubleSplineConfig, LinearityConfig, SplineConfig
from camcal_dask.calibs.linearizer.fit import failures, fit
from camcal_dask.calibs.linearizer.table import amp_numbers
from camcal_dask.errors import DataError
from camcal_dask.kernels.linearity.correct import TYPES, linearize, make_linearity

GAIN, TURNOFF = 1.5, 120e3
N_PIXEL = 900_000
BENDS = {
    "quadratic": lambda v: v - 8e-8 * v**2,
    "cubic": lambda v: v * (1 - 2e-7 * v + 1e-12 * v**2),
    "saturates early": lambda v: v * (1 - 0.01 * np.tanh(v / 30000)),
}
LEVELS = {
    "12": np.geomspace(500, 150e3, 12),
    "20": np.geomspace(500, 150e3, 20),
    "20, equal steps": np.linspace(1000, 150e3, 20),
    "12 in 5 repetitions": np.repeat(np.geomspace(900, 150e3, 12), 5),
    "a clump": np.concatenate([np.geomspace(500, 150e3, 14), 20e3 + 50.0 * np.arange(20)]),
    "a gap": np.concatenate([np.geomspace(500, 40e3, 20), np.geomspace(75e3, 150e3, 12)]),
    "a saturated tail": np.concatenate([np.geomspace(500, 140e3, 24), np.linspace(170e3, 400e3, 12)]),
}


def full(v):
    """Electrons that a pixel holds of those collected: blooming from 150 000 on."""
    return np.where(v < 150e3, v, 150e3 + 15e3 * (1 - np.exp(-(v - 150e3) / 15e3)))


def ramp(levels, bend, *, jitter=0.0, in_order=False, drift=0.0, wild=0, n_amp=2, n_pixel=N_PIXEL, seed=1):
    """PTC table and amp ratios; ``jitter`` rms of the light of an exposure, ``wild`` pairs read 3 % too much."""
    rng = np.random.default_rng(seed)
    n = len(levels)
    days = np.arange(n) if in_order else rng.permutation(n)
    light = levels[:, None] * (1 + jitter * rng.normal(size=(n, 2))) * (1 + drift * days[:, None] / n)
    true = light[..., None] * np.linspace(0.97, 1.03, n_amp)
    read = (bend(full(true)) + rng.normal(size=true.shape) * np.sqrt((true + 36) / n_pixel)) / GAIN
    read[rng.choice(n, wild, replace=False)] *= 1.03
    mean, ids = read.mean(1), 100 + np.arange(2 * n).reshape(-1, 2)
    used = mean <= TURNOFF / GAIN
    per_pair = {"exposure_time": levels / 2000, "mjd": 60000 + days * 1e-3}
    per_pair |= {"photo_charge": levels * 1e-12, "photo_charge_delta": np.zeros(n)}
    amp = {"gain": GAIN, "noise": 6.0, "bad": False}
    turnoff = np.where(used, mean, 0).max(0)
    table = xr.Dataset(
        {name: ("pair", v) for name, v in per_pair.items()}
        | {
            "raw_mean": (("detector", "amp", "pair"), mean.T[None]),
            "raw_delta": (("detector", "amp", "pair"), (read[:, 1] - read[:, 0]).T[None]),
            "used": (("detector", "amp", "pair"), used.T[None]),
            "turnoff": (("detector", "amp"), turnoff[None]),
        }
        | {name: (("detector", "amp"), np.full((1, n_amp), v)) for name, v in amp.items()},
        {
            "detector": [94],
            "amp": [f"C{i:02d}" for i in range(n_amp)],
            "exposure_1": ("pair", ids[:, 0]),
            "exposure_2": ("pair", ids[:, 1]),
        },
    )
    level, a = read.reshape(-1, n_amp), int(np.argmax(turnoff))
    scaling = level[np.argmin(np.abs(level[:, a] - 10000))]
    scaling = scaling / scaling[a]
    flat = level / scaling
    ratios = xr.Dataset(
        {
            "reference_level": (("detector", "exposure"), flat[:, a][None]),
            "gain_ratio": (("detector", "amp", "exposure"), (flat / flat[:, [a]]).T[None]),
            "amp_scaling": (("detector", "amp"), scaling[None]),
            "reference_amp": ("detector", [a]),
        },
        {"detector": [94], "exposure": ids.ravel()},
    )
    return table, ratios


def errors(made, bend, low=1000.0):
    """(amp,) largest departure from linearity on a dense grid of true signals up to the turnoff; it must rise."""
    one, found = made.isel(detector=0), []
    for k in range(one.sizes["amp"]):
        top = float(min(one["linearity_turnoff"][k], one["input_turnoff"][k]))
        true = np.geomspace(low, 150e3, 20000)
        read = bend(true) / GAIN
        true, read = true[read <= top], read[read <= top]
        correction = make_linearity([TYPES[int(one["type"][k])]], one["coefficients"].values[k : k + 1])
        linear = linearize(read.astype("f4")[None, None], correction)[0].ravel().astype(float)
        assert (np.diff(linear) > -0.02).all()  # float32
        ratio = linear / true
        found.append(np.abs(ratio / np.median(ratio) - 1).max())
    return np.array(found)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("kind", ["Spline", "DoubleSpline"])
@pytest.mark.parametrize("bend", BENDS)
def test_signals_are_linear_between_the_levels_too(levels, kind, bend):
    table, ratios = ramp(LEVELS[levels], BENDS[bend], jitter=3e-4)
    made = fit(table, LinearityConfig(type=kind), ratios=ratios)
    assert not failures(made)
    assert errors(made, BENDS[bend]).max() < 0.003
    for amp in range(2):
        numbers = amp_numbers(made.isel(detector=0, amp=amp))
        assert numbers["wander"] < 0.005
        assert numbers["least_slope"] > 0.9
        assert numbers["left_out_worst"] < 0.006


def test_no_number_of_nodes_makes_the_correction_run_away():
    """Asked for more nodes than there are flats, with a lamp that flickers by 0.5 %: bounded by what it flickers."""
    for n_node, levels in ((40, "20"), (300, "12 in 5 repetitions"), (100, "a clump"), (60, "a gap")):
        config = LinearityConfig(type="Spline", spline=SplineConfig(n_node=n_node))
        made = fit(ramp(LEVELS[levels], BENDS["quadratic"], jitter=5e-3, n_amp=4)[0], config)
        assert not failures(made)
        assert errors(made, BENDS["quadratic"]).max() < 0.01
        close = LinearityConfig(type="DoubleSpline", double=DoubleSplineConfig(low_node=50, middle_node=200))
        made = fit(*[ramp(LEVELS[levels], BENDS["quadratic"], jitter=5e-3)[0], close], ratios=ramp(
            LEVELS[levels], BENDS["quadratic"], jitter=5e-3)[1])  # fmt: skip
        assert errors(made, BENDS["quadratic"]).max() < 0.01


@pytest.mark.parametrize("levels", [np.linspace(700**0.5, 150e3**0.5, 16) ** 2, np.geomspace(500, 150e3, 12)])
def test_an_offset_does_not_swallow_what_is_not_linear_in_faint_flats(levels):
    """A response 1 % low in faint light, with one and with four levels below 2 % of the turnoff."""

    def bend(v):
        return v * (1 - 0.01 * np.exp(-v / 5000))

    table, ratios = ramp(levels, bend, jitter=3e-4)
    assert errors(fit(table, LinearityConfig(), ratios=ratios), bend).max() < 0.002


def test_levels_left_out_measure_what_the_correction_is_off_by():
    """The response turns within a gap that no fit can see, but cross-validation says how well others are known."""
    table, ratios = ramp(LEVELS["20"], BENDS["cubic"])
    made = fit(table, LinearityConfig(), ratios=ratios)
    known = np.isfinite(made["left_out"].values)
    assert (known <= made["used"].values).all()
    assert known.sum() > 0.75 * made["used"].values.sum()
    # A wild level that is not rejected, as its nodes need it, is far off if the fit does not know it.
    table["raw_mean"][0, :, 9] *= 1.004
    ratios["reference_level"][0, 18:20] *= 1.004
    wild = fit(table, LinearityConfig(), ratios=ratios).isel(detector=0)
    assert amp_numbers(wild.isel(amp=int(wild["reference_amp"])))["left_out_worst"] > 0.003


@pytest.mark.parametrize("kind", ["Spline", "DoubleSpline"])
def test_one_wild_pair_of_few_does_not_spoil_the_rest(kind):
    for seed in range(3):
        table, ratios = ramp(LEVELS["20"], BENDS["quadratic"], wild=1, seed=seed)
        made = fit(table, LinearityConfig(type=kind), ratios=ratios)
        assert errors(made, BENDS["quadratic"]).max() < 0.003


def test_a_ramp_in_rising_order_has_no_drift_to_fit():
    """Fitted with the spline it takes any value: only the spline is applied to images."""
    table, ratios = ramp(LEVELS["20"], BENDS["quadratic"], in_order=True, jitter=1e-3)
    assert errors(fit(table, LinearityConfig(), ratios=ratios), BENDS["quadratic"]).max() < 0.003
    table, ratios = ramp(np.geomspace(500, 150e3, 60), BENDS["quadratic"], drift=0.01)  # shuffled: the drift is solved
    assert errors(fit(table, LinearityConfig(), ratios=ratios), BENDS["quadratic"]).max() < 0.001


def test_too_few_levels_are_named_with_the_amp():
    few = np.repeat([20e3, 40e3], 10)
    table, ratios = ramp(few, BENDS["quadratic"])
    made = fit(table, LinearityConfig(type="Spline"))
    (problems,) = failures(made).values()
    assert set(problems) == {"C00", "C01"}
    assert "20 good flats of 2 distinct levels do not determine a spline" in problems["C00"]
    with pytest.raises(DataError, match="reference amp C01: spline linearity: .* 2 distinct levels"):
        fit(table, LinearityConfig(), ratios=ratios)
