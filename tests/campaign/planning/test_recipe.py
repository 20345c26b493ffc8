from pathlib import Path

import pytest

from camcal_dask.calibs.combined.recipe import StackRecipe
from camcal_dask.campaign.planning.recipe import _read, load_recipe
from camcal_dask.campaign.planning.shipped import shipped
from camcal_dask.campaign.verification.recipe import VerifyRecipe
from camcal_dask.errors import ConfigError

OF_EXPOSURES = sorted(p.stem for p in shipped("pipelines", "LATISS").glob("*.yaml") if "defects" not in p.stem)


def test_names_are_found_without_a_path():
    by_name = load_recipe("pipelines/LSSTCam/biasBootstrap.yaml")
    assert by_name == load_recipe("LSSTCam/biasBootstrap.yaml")
    assert isinstance(by_name, StackRecipe)
    assert isinstance(load_recipe("LSSTCam/verifyBias.yaml"), VerifyRecipe)


def test_imports_are_overridden_key_by_key():
    recipe = load_recipe("LSSTCam/bias.yaml")
    assert recipe.isr.gains == "ptc"
    assert recipe.combine.reject_mask == ("DETECTED", "INTRP")


@pytest.mark.parametrize("name", OF_EXPOSURES)
def test_latiss_has_its_own_overscan_and_saturation(name):
    """reference/isr.md 2.21; saturation stays in curves that look for the turnoff (reference/ptc_linearity.md 2)."""
    isr = load_recipe(f"LATISS/{name}.yaml").isr
    assert (isr.parallel_overscan.two_sided, isr.parallel_overscan.smoothing) == (True, 0)
    assert isr.parallel_overscan.max_deviation_adu == 100.0
    assert not isr.deferred_charge
    light = {"flat", "flatBootstrap", "verifyFlat", "eoFlat", "eoPersistence"}
    assert isr.saturation.saturated_adu == ({"*": 120_000.0} if name in light else {})
    other = load_recipe(f"LSSTCam/{name}.yaml").isr
    assert (other.parallel_overscan.two_sided, other.parallel_overscan.smoothing) == (False, 5)
    assert other.saturation.saturated_adu == {}


def test_of_several_imports_the_last_wins(tmp_path):
    for name, text in {"a": "{x: 1, y: {p: 1, q: 1}}", "b": "{y: {q: 2}, z: 2}", "c": "{import: [a, b], z: 3}"}.items():
        (tmp_path / name).write_text(text)
    assert _read(tmp_path / "c") == {"x": 1, "y": {"p": 1, "q": 2}, "z": 3}


def test_overrides_reach_nested_keys():
    recipe = load_recipe("LSSTCam/bias.yaml", ["isr.dither=none", "combine.sigma_clip=4.5"])
    assert recipe.isr.dither == "none"
    assert recipe.combine.sigma_clip == 4.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["isr.dithr=none"], "unknown key 'isr.dithr'; did you mean 'dither'?"),
        (["isr.dither=sometimes"], "isr.dither = 'sometimes'"),
        (["isr.dither"], "expected step.key=value"),
        (["description.text=1"], "'description' is a single value"),
        (["task=stak"], "did you mean 'stack'?"),
        (
            ["isr.gains=none", "isr.crosstalk.terms=none"],
            "product bias is in electron, but isr.gains=none and combine.scale=unity make adu",
        ),
        (["product=bais"], "unknown product 'bais'; did you mean 'bias'?"),
    ],
)
def test_wrong_overrides_are_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        load_recipe("LSSTCam/bias.yaml", overrides)
    assert message in str(error.value)


def test_an_unknown_pipeline_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'LSSTCam/bias.yaml'"):
        load_recipe("LSSTCam/bais.yaml")
    broken = Path(tmp_path, "broken.yaml")
    broken.write_text("task: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        load_recipe(str(broken))


SWITCHES = ("bias", "dark", "flat", "defects", "linearity", "deferred_charge", "interpolate")
OF_STAGES = {  # reference/verification.md 1.2; of a bootstrap in adu: linear crosstalk, no brighter-fatter correction
    "verifyBias": ["bias", "defects", "linearity", "interpolate"],
    "verifyDark": ["bias", "dark", "defects", "linearity"],
    "verifyFlat": ["bias", "dark", "flat", "defects", "linearity", "deferred_charge", "interpolate"],
    "verifyDefects": ["bias", "dark", "flat", "defects", "linearity"],
}


@pytest.mark.parametrize("camera", ["LSSTCam", "LSSTComCam", "LATISS", "TinyCam"])
@pytest.mark.parametrize("name", OF_STAGES)
def test_verifications_correct_as_the_reference_says_for_candidates_of_every_stage(camera, name):
    recipe = load_recipe(f"{camera}/{name}.yaml")
    unused = {"deferred_charge"} if camera == "LATISS" else set()  # reference/isr.md 2.21
    for candidate in recipe.candidates:
        for beside in recipe.alternatives(candidate):
            isr = recipe.chosen(candidate, beside).isr
            assert sorted(s for s in SWITCHES if getattr(isr, s)) == sorted(set(OF_STAGES[name]) - unused)
            bootstrap = "Bootstrap" in str((candidate, beside))
            assert isr.gains == ("none" if bootstrap else "ptc")
            assert isr.crosstalk.terms == ("linear" if bootstrap or camera == "LATISS" else "quadratic")
            corrected = name == "verifyDefects" and not bootstrap and camera != "LATISS"
            assert isr.brighter_fatter == ("astier23" if corrected else "none")


@pytest.mark.parametrize("camera", ["LSSTCam", "LSSTComCam", "LATISS", "TinyCam"])
@pytest.mark.parametrize("name", ["bias", "dark", "flat", "biasBootstrap", "darkBootstrap", "flatBootstrap", "ptc"])
def test_crosstalk_has_quadratic_terms_where_images_are_in_electron(camera, name):
    """reference/isr.md 4: L of a bootstrap and of the ptc, Q of the final bias, dark and flat; L of LATISS (2.21)."""
    wanted = "quadratic" if name in ("bias", "dark", "flat") and camera != "LATISS" else "linear"
    assert load_recipe(f"{camera}/{name}.yaml").isr.crosstalk.terms == wanted


def test_a_verification_applies_what_there_is_and_nominal_gains_without_a_curve():
    recipe = load_recipe("LSSTCam/verifyFlat.yaml")
    chosen = recipe.chosen("flat", {"bias": "bias", "dark": "dark"})
    bare = chosen.resolved(["bias", "dark"])
    assert (bare.isr.gains, bare.isr.linearity, bare.isr.defects, bare.isr.crosstalk.terms) == (
        "nominal", False, False, "none",
    )  # fmt: skip
    full = chosen.resolved(["bias", "dark", "ptc", "linearizer", "defects"])
    assert (full.isr.gains, full.isr.linearity, full.isr.defects, full.isr.deferred_charge) == (
        "ptc", True, True, False,
    )  # fmt: skip
    assert full.calibs == {
        "bias": "bias", "dark": "dark", "ptc": "ptc", "linearizer": "linearizer", "defects": "defects",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("verifyBias", "verify.thresholds={bias.noize: 0.1}", "threshold of unknown test 'bias.noize'.*bias.noise"),
        ("verifyPtc", "verify.thresholds={gain.gain: 0.1}", "threshold of unknown test 'gain.gain'"),
        ("verifyDark", "verify.tests=dork", "no tests for 'dork'.*dark"),
        ("verifyPtc", "verify.tests=ptk", "no tests for 'ptk'"),
    ],
)
def test_thresholds_and_tables_of_tests_that_there_are_not_are_refused_before_anything_runs(name, setting, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(f"TinyCam/{name}.yaml", [setting])
    load_recipe("TinyCam/eoPersistence.yaml", ["verify.thresholds={persistence.level: 8}"])
