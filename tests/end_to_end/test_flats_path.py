"""Flats of one illumination and the final pass with its tables, by the commands that a user types (TinyCam).

A night as the observatory has it: biases, seven flats, two with the lamp off, a ramp of pairs; ptc, linearizer and
crosstalk written by hand, so that what the final pass does with them is known.
"""

import itertools

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from camcal_dask.campaign.past.history import reference_record
from camcal_dask.cli import main
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.linearity.correct import TYPES
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.repo.cubes import products
from camcal_dask.repo.storage import files
from camcal_dask.simulation import SimulationConfig, bias_set, flat_set, ptc_set, schedule, simulate
from camcal_dask.simulation.config import FullWell, Illumination, ReadNoise, Response, ShotNoise

DAY, DETECTOR, RAWS = 20260812, 0, "TinyCam/raw/all"
FLATS, LAMP_OFF, RAMP = list(range(5, 12)), [12, 13], list(range(14, 30))
CAMERA = get_instrument("TinyCam")
AMPS = ("detector", "amp")
GAINS = np.array([[amp.gain for amp in CAMERA.detectors[d].amps] for d in CAMERA.detectors]) * np.linspace(0.9, 1.1, 16)
ALONE = ("-c", "isr.dark=false", "-c", "calibs={bias: bias}", "-d", f"detector = {DETECTOR}", "--cluster", "threads")
THREADS = ("--cluster", "threads")
ONLY_BIAS = ("-c", "flat:isr.dark=false", "-c", "flat:calibs={bias: bias}", "--no-verify", "bias,flat")


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def ids(numbers):
    return [DAY * 100_000 + n for n in numbers]


def write(repo, name, variables, units):
    """Make a table of all detectors a product; what it says of amps is the same for all."""
    uri = files.join(repo.root, "cubes", f"u/{name}", f"{name}.zarr")
    table = xr.Dataset(
        {key: (dims, np.broadcast_to(values, (len(CAMERA.detectors), *np.shape(values)[1:])).copy())
         for key, (dims, values) in variables.items()},
        {"detector": list(CAMERA.detectors), "amp": list(CAMERA.amp_names)},
        {"units": units, "exposures": []},
    )  # fmt: skip
    products.create_product(uri, table)
    for i in range(len(CAMERA.detectors)):
        products.write_product(uri, i, {str(key): v.values[i] for key, v in table.data_vars.items()}, {})
    data_ids = [{"instrument": "TinyCam", "detector": d} for d in CAMERA.detectors]
    repo.register_product(f"u/{name}", name, uri, data_ids)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flats")
    config = SimulationConfig.ideal(
        read_noise=ReadNoise(),
        illumination=Illumination(vignetting=False),
        response=Response(prnu=0.01),
        shot_noise=ShotNoise(),
        full_well=FullWell(),
    )
    light = flat_set(1, 10.0, DAY, reason="sflat")[0]
    sets = [
        bias_set(4, DAY),
        flat_set(7, 10.0, DAY, reason="sflat"),
        [light.model_copy(update={"light": 0.0})] * 2,
        ptc_set(np.geomspace(0.8, 112, 8).round(3).tolist(), DAY),
    ]
    simulate(folder / "raw", "TinyCam", list(schedule(itertools.chain.from_iterable(sets), DAY)), [DETECTOR], config)
    root = folder / "repo"
    camcal("create", root, "--instrument", "TinyCam")
    camcal("ingest", root, folder / "raw", "--cluster", "threads")
    linear = np.zeros((1, 16, 16))
    linear[0, 2, 3] = 0.02
    with open_repo(root, writeable=True) as repo:
        write(repo, "ptc", {"gain": (AMPS, GAINS), "turnoff": (AMPS, np.full((1, 16), 60_000.0))}, "adu")
        squared = np.zeros((1, 16, 2))
        squared[..., 0] = 1e-6
        write(repo, "linearizer", {"type": (AMPS, np.full((1, 16), TYPES.index("Polynomial"), "i1")),
              "coefficients": ((*AMPS, "coefficient"), squared)}, "adu")  # fmt: skip
        write(repo, "crosstalk", {"linear": (("detector", "source", "target"), linear)}, "electron")
    return root


def used(root, run, product):
    """Dataset types of the calibrations that made a product, exposures, settings of its ISR, and its record."""
    with open_repo(root) as repo:
        attrs = repo.open(product, run=run, detector=DETECTOR).attrs
        return set(attrs["calibs"]), attrs["exposures"], attrs["recipe"]["isr"], reference_record(repo.root, run)


@pytest.fixture(scope="module")
def final(root):
    inputs = f"u/ptc,u/linearizer,u/crosstalk,{RAWS}"
    return camcal("chain", root, "-p", "flat,bias", "-o", "f", "-i", inputs, *ONLY_BIAS, *THREADS)


def test_flats_of_one_illumination_are_chosen_and_the_choice_is_told_and_recorded(root, final):
    _, exposures, _, record = used(root, "f/flat/r_57", "flat")
    assert exposures == ids(FLATS[1:])
    told = [
        f"16 left out: a ramp of a photon transfer curve (select.ramps=true takes it), reason ptc ({ids(RAMP)[0]} .. ",
        f"2 left out: no light: level 0 to 0.5 adu, below 5 times the noise ({ids(LAMP_OFF)[0]}, {ids(LAMP_OFF)[1]})",
        "one illumination: 7 flats of reason sflat, 10 s, level ",
        "% of the turnoff of the ptc",
        f"1 left out: the first of their set, kept for the verification ({ids(FLATS)[0]})",
    ]
    for text in told:
        assert text.split(": level 0 ")[0] in final
        assert any(text.split(": level 0 ")[0] in line for line in record["choice"])


def test_the_final_pass_uses_what_the_inputs_hold_and_says_what_they_lack(root, final):
    assert (
        "order: bias (uses ptc, linearizer, crosstalk), flat (needs bias; uses ptc, linearizer, crosstalk, cti)"
        in final
    )
    assert "with ptc of u/ptc, linearizer of u/linearizer, crosstalk of u/crosstalk" in final
    assert "no cti in the inputs" in final
    calibs, _, settings, record = used(root, "f/bias", "bias")
    assert calibs == {"ptc", "linearizer", "crosstalk"}
    assert (settings["gains"], settings["linearity"], settings["crosstalk"]["terms"]) == ("ptc", True, "quadratic")
    assert record["absent"] == []
    calibs, _, settings, record = used(root, "f/flat/r_57", "flat")
    assert calibs == {"bias", "ptc", "linearizer", "crosstalk"}
    assert not settings["deferred_charge"]
    assert record["absent"] == ["cti"]


def test_gains_linearity_and_crosstalk_are_those_of_the_tables(root, final):
    """Levels of the amps of the flat are gain x (adu + 1e-6 adu^2), and a fiftieth of its neighbour off C13."""
    with open_repo(root) as repo:
        flat = repo.open("flat", run="f/flat/r_57", detector=DETECTOR).isel(detector=0).load()
        raw = repo.raws(f"exposure.seq_num IN ({', '.join(map(str, FLATS[1:]))})", detectors=[DETECTOR])
        adu = isr(raw, config=IsrConfig()).dataset()["image"].mean(("exposure", "y", "x")).compute().values[0]
    level = flat["image"].mean(("y", "x")).values
    expected = GAINS[0] * (adu + 1e-6 * adu**2)
    np.testing.assert_allclose((level / level[0])[1:3], (expected / expected[0])[1:3], rtol=2e-3)
    crossed = expected[3] - 0.02 * GAINS[0][2] * adu[2]
    assert level[3] / level[0] == pytest.approx(crossed / expected[0], rel=2e-3)


def test_without_a_ptc_gains_are_nominal_and_the_output_says_so(root):
    text = camcal("chain", root, "-p", "bias", "-o", "n", *THREADS, "--no-verify", "bias")
    assert "no ptc, linearizer, crosstalk in the inputs: gains are the camera model's" in text
    calibs, _, settings, record = used(root, "n/bias", "bias")
    assert calibs == set()
    assert (settings["gains"], settings["linearity"]) == ("nominal", False)
    assert record["absent"] == ["ptc", "linearizer", "crosstalk"]
    assert "ptc: the inputs had none" in camcal("history", root, "n/bias")


def test_the_pipeline_alone_chooses_too_and_takes_others_only_when_asked(root, final):
    def run(*more, code=0):
        inputs = ["-i", f"f/bias,u/ptc,{RAWS}", "-o", "alone", *ALONE]
        return camcal("run", "-b", root, "-p", "TinyCam/flat.yaml", *inputs, *more, code=code)

    text = run("--dry-run")
    assert f"exposures 7: {ids(FLATS)[0]} .. {ids(FLATS)[-1]}" in text
    assert "choice one illumination: 7 flats of reason sflat, 10 s" in text
    text = run("--dry-run", "-c", "select.ramps=true", "-c", "select.reason=ptc")
    assert "flats of reason ptc, " in text
    only = ("-d", f"detector = {DETECTOR} AND exposure.seq_num IN (12, 13)")
    refused = run("--dry-run", *only, code=1)
    assert "none of 2 flats of r_57 can be used: 2 left out: no light" in refused
    one_off = ("-d", f"detector = {DETECTOR} AND exposure.seq_num IN (6, 7, 8, 12)")
    assert f"exposures [{ids(LAMP_OFF)[0]}] have no l" in run("-c", "select.illumination=any", *one_off, code=1)


def test_a_flat_of_a_saturated_ramp_fails_its_verification(root, final):
    """Asked for with any illumination, levels up to the full well: the contrast of its pixels is wrong."""
    every = f"detector = {DETECTOR} AND exposure.observation_reason = 'ptc'"
    options = ["-c", "select.illumination=any", "-c", "isr.dark=false", "-c", "calibs={bias: bias}", "-d", every]
    arguments = ["-i", f"f/bias,u/ptc,{RAWS}", "--cluster", "threads"]
    camcal("run", "-b", root, "-p", "TinyCam/flat.yaml", "-o", "ramp/flat", *arguments, *options)
    verify = ["-p", "TinyCam/verifyFlat.yaml", "-i", f"ramp/flat,f/bias,u/ptc,{RAWS}", "-o", "ramp/verify"]
    candidates = "candidates={flat: {bias: bias}, flatBootstrap: {bias: biasBootstrap}}"
    good = f"detector = {DETECTOR} AND exposure.seq_num IN ({', '.join(map(str, FLATS[1:]))})"
    text = camcal("run", "-b", root, *verify, "--cluster", "threads", "-c", candidates, "-d", good, "--strict", code=1)
    assert "EXPOSURE_RESPONSE" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("isr.gains=nominal", "expected product:step.key=value, such as flat:select.ramps=true"),
        ("bais:isr.gains=nominal", "the chain does not run 'bais'; did you mean 'bias'?"),
        ("bias:isr.gians=nominal", "did you mean 'gains'?"),
        ("verifyBias:verify.tets=bias", "did you mean 'tests'?"),
        ("dark:isr.gains=nominal", "the chain does not run 'dark'"),
    ],
)
def test_wrong_settings_of_a_chain_are_refused_before_anything_runs(root, override, message):
    text = camcal("chain", root, "-p", "bias", "-o", "w", "-c", override, "--cluster", "threads", code=1)
    assert message in text
    assert "bias:" not in text.split("Error")[0]
