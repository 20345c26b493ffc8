"""Order of a chain from declared needs, the default choice of inputs, contracts of pipelines."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.campaign.chain import Step, in_order
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.planning.selection import choose
from camcal_dask.errors import ConfigError, PlanError


def products(*names):
    return [step.name for step in in_order([Step(n, load_recipe(f"LSSTCam/{n}.yaml")) for n in names])]


def test_the_order_is_that_of_the_needs():
    assert products("defects", "darkBootstrap", "flatBootstrap", "biasBootstrap")[-1] == "defects"
    assert products("dark", "bias") == ["bias", "dark"]
    assert products("darkBootstrap", "biasBootstrap") == ["biasBootstrap", "darkBootstrap"]
    assert products("dark") == ["dark"]
    with pytest.raises(PlanError, match="made twice"):
        products("dark", "dark")


def raws(seq_start):
    n = len(seq_start)
    values = {"day_obs": np.full(n, 20260812), "seq_num": np.arange(1, n + 1), "seq_start": np.array(seq_start)}
    coords = {"exposure": 100 + np.arange(1, n + 1)} | {k: ("exposure", v) for k, v in values.items()}
    return xr.DataArray(np.zeros(n), coords, ("exposure",))


def test_the_first_of_each_set_is_kept_for_the_verification():
    found = raws([1, 1, 1, 4, 4, 6])
    chosen = choose(found, dict.fromkeys(range(101, 107), ("a",)), ["SEQFILE"], 20)
    assert chosen.exposures == (102, 103, 105, 106)  # 106 is alone: no set
    assert chosen.kept_out == (101, 104)
    assert any("2 left out: the first of their set" in r for r in chosen.reasons)


def test_one_camera_state_and_the_latest_exposures():
    found = raws([1] * 8)
    states = {e: ("b", 1) if e == 104 else ("a", 1) for e in range(101, 109)}
    chosen = choose(found, states, ["SEQFILE", "ODP"], 4)
    assert chosen.exposures == (105, 106, 107, 108)
    assert chosen.kept_out == (101, 102, 103)
    assert any("another camera state, SEQFILE differ (104)" in r for r in chosen.reasons)
    assert any("the latest 4 are taken" in r for r in chosen.reasons)


@pytest.mark.parametrize(
    ("pipeline", "overrides", "message"),
    [
        (
            "dark",
            ["calibs.bias=biasBootstrap"],
            "calibs.bias = biasBootstrap is in adu, but the exposures are corrected",
        ),
        (
            "dark",
            ["isr.gains=none", "isr.crosstalk.terms=none", "calibs.bias=biasBootstrap"],
            "product dark is in electron/s",
        ),
        ("darkBootstrap", ["isr.bias=false"], "calibs.bias is given, but isr.bias is off"),
        ("darkBootstrap", ["calibs={}"], "isr.bias is on: name its dataset type"),
        ("darkBootstrap", ["combine.scale=unity"], "combine.scale=unity make adu"),
        ("dark", ["combine.reject_mask=[SAT]"], "reject_mask lacks CR"),
        ("flat", ["product=flt"], "did you mean 'flat'"),
        ("defects", ["images.dark=flatBootstrap"], "images.dark = flatBootstrap is in 1, needs adu/s"),
    ],
)
def test_contracts_are_checked_when_a_pipeline_is_loaded(pipeline, overrides, message):
    with pytest.raises(ConfigError) as error:
        load_recipe(f"LSSTCam/{pipeline}.yaml", overrides)
    assert message in str(error.value)
