"""Files: layout, keywords, determinism, truth."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from camcal_dask.errors import ConfigError, DataError
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.raw_fits.header import translate
from camcal_dask.simulation import (
    ExposureSpec,
    SimulationConfig,
    bias_set,
    dark_set,
    flat_set,
    load_truth,
    ptc_set,
    schedule,
    simulate,
    simulate_exposure,
)
from camcal_dask.simulation import config as c
from camcal_dask.simulation.headers import amp_cards, file_name, primary_header, reb_cards
from camcal_dask.simulation.photodiode import lamp_brightness, photodiode_charge

DAY = 20260812
SPECS = [
    *bias_set(2, DAY, contaminated_first=True),
    *dark_set(1, 30.0, DAY, 3),
    *flat_set(1, 4.0, DAY, 4, physical_filter="g_6"),
]


def contents(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated")
    summary = simulate(out, "TinyCam", SPECS)
    assert len(summary.files) == 16
    assert summary.n_bytes == sum(Path(f).stat().st_size for f in summary.files)
    return out


def plain(header):
    return {k: None if isinstance(v, fits.card.Undefined) else v for k, v in header.items()}


def test_files_hold_the_simulated_pixels_in_hdu_order(folder):
    config = SimulationConfig()
    path = folder / "TC_O_20260812_000004" / "TC_O_20260812_000004_R01_S11.fits"
    with fits.open(path, checksum=True) as hdus:
        names = [h.name for h in hdus]
        pixels = np.stack([h.data for h in hdus[1:17]])
        for hdu in hdus:
            hdu.verify("exception")
    order = [f"Segment1{i}" for i in range(8)] + [f"Segment0{i}" for i in range(7, -1, -1)]
    assert names == ["PRIMARY", *order, "REB_COND", "CONFIG_COND"]
    np.testing.assert_array_equal(pixels, simulate_exposure("TinyCam", 3, SPECS[3], config))


def test_compression_is_that_of_the_camera(folder):
    path = next(folder.rglob("*R22_S00.fits"))
    with fits.open(path, disable_image_compression=True) as hdus:
        header = hdus[1].header
    assert (header["ZCMPTYPE"], header["ZTILE1"], header["ZTILE2"]) == ("RICE_1", 56, 1)
    assert (header["ZNAME1"], header["ZVAL1"], header["ZNAME2"], header["ZVAL2"]) == ("BLOCKSIZE", 32, "BYTEPIX", 4)
    assert header["ZBITPIX"] == 32


@pytest.mark.parametrize(
    ("detector", "amp", "datasec", "detsec", "detsize", "dtv"),
    [
        (98, "C10", "[11:522,1:2002]", "[512:1,1:2002]", "[1:4096,1:4004]", (523, 0, -1, 1)),
        (98, "C07", "[11:522,1:2002]", "[3585:4096,4004:2003]", "[1:4096,1:4004]", (3574, 4005, 1, -1)),
        (0, "C10", "[4:512,1:2000]", "[509:1,1:2000]", "[1:4072,1:4000]", (513, 0, -1, 1)),
        (0, "C07", "[4:512,1:2000]", "[4072:3564,4000:2001]", "[1:4072,1:4000]", (4076, 4001, -1, -1)),
    ],
)
def test_amp_keywords_are_those_of_real_files(detector, amp, datasec, detsec, detsize, dtv):
    """Values of reference/raw_format.md 2.4, taken from real LSSTCam files."""
    camera = get_instrument("LSSTCam").detector(detector)
    chosen = next(a for a in camera.amps if a.name == amp)
    cards = {key: value for key, value, _ in amp_cards(camera, chosen)}
    assert (cards["DATASEC"], cards["DETSEC"], cards["DETSIZE"]) == (datasec, detsec, detsize)
    assert (cards["DTV1"], cards["DTV2"], cards["DTM1_1"], cards["DTM2_2"]) == dtv
    assert (cards["CHANNEL"], cards["EXTNAME"]) == (chosen.hdu, f"Segment{amp[1:]}")


@pytest.mark.parametrize("instrument", ["LSSTCam", "LSSTComCam", "LATISS", "TinyCam"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.type}-{s.seq_num}")
def test_headers_translate_to_what_was_asked(instrument, spec):
    camera = get_instrument(instrument)
    config = SimulationConfig()
    spec = spec.model_copy(update={"physical_filter": None, "reason": "daily"})
    detector = list(camera.detectors.values())[-1]
    header = plain(primary_header(camera, detector, spec, config))
    header |= {key: value for key, value, _ in reb_cards(detector, spec, config)}
    identity = translate(header, file=file_name(camera, detector, spec, config))
    record = identity.record
    assert (identity.detector, identity.detector_serial) == (detector.id, detector.serial)
    assert (record.instrument, record.exposure) == (instrument, DAY * 100000 + spec.seq_num)
    assert (record.day_obs, record.seq_num) == (DAY, spec.seq_num)
    assert (record.observation_type, record.observation_reason) == (spec.type, "daily")
    assert (record.exposure_time_s, record.dark_time_s) == (spec.exposure_time_s, spec.dark_time_s)
    assert record.physical_filter in camera.filters
    assert camera.filters[record.physical_filter] == "r"
    assert record.has_simulated is True
    assert record.end_tai_nsec > record.begin_tai_nsec
    assert record.science_program == "BLOCK-T60"


def test_electronics_tables(folder):
    with fits.open(next(folder.rglob("*R22_S11.fits"))) as hdus:
        reb = hdus["REB_COND"].header
        primary = hdus[0].header
    assert reb["HVBIAS"] == "ON"
    assert reb["BSSVBS"] > 5
    assert reb["ODP"] == 23.4
    assert reb["AP0_RC"] == 14
    assert reb["CCDTEMP"] == pytest.approx(-100, abs=1)
    assert {"SEQNAME", "SEQFILE", "SEQCKSUM", "GROUPID", "CURINDEX", "MAXINDEX", "CCD_MANU"} <= set(primary)


def test_vendors_have_their_own_sequencer(folder):
    files = {fits.getheader(p)["CCD_MANU"]: fits.getheader(p)["SEQFILE"] for p in folder.rglob("*000001_*.fits")}
    assert files["E2V"] != files["ITL"]


def test_any_subset_in_any_order_on_any_workers_is_bit_identical(folder, tmp_path):
    def shuffled(function, units):
        order = np.random.default_rng(0).permutation(len(units))
        with ThreadPoolExecutor(3) as pool:
            yield from pool.map(function, [units[i] for i in order])

    simulate(tmp_path / "all", "TinyCam", SPECS, mapper=shuffled)
    whole = contents(folder)
    assert contents(tmp_path / "all") == whole
    simulate(tmp_path / "part", "TinyCam", [SPECS[3]], [2])
    for name, digest in contents(tmp_path / "part").items():
        if name != "truth/truth.yaml":
            assert whole[name] == digest


def test_another_seed_changes_every_amp():
    first = simulate_exposure("TinyCam", 0, SPECS[1], SimulationConfig())
    second = simulate_exposure("TinyCam", 0, SPECS[1], SimulationConfig(seed=2))
    assert (first != second).any(axis=(1, 2)).all()


def test_no_partial_files_are_left(folder, tmp_path, monkeypatch):
    assert not list(folder.rglob("*.part"))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        simulate(tmp_path, "TinyCam", SPECS[:1], [0])
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_truth_round_trip(folder):
    truth = load_truth(folder)
    assert (truth.instrument.name, truth.config, truth.detectors) == ("TinyCam", SimulationConfig(), (0, 1, 2, 3))
    assert list(truth.exposures) == SPECS
    detector = truth.detector(2)
    assert truth.table("gain").shape == (4, 16)
    assert detector.tables["crosstalk"].shape == (16, 16)
    assert detector.tables["a_matrix"][0, 0] == -3e-6
    assert detector.pattern.shape == (16, 49, 35)
    assert set(detector.response) == {"g_6"}
    assert detector.defects.hot.shape[1] == 3


def test_mean_of_biases_shows_the_true_pattern(tmp_path):
    """A crude bias (row medians of the overscan, mean of 30) agrees with truth within its noise."""
    config = SimulationConfig(cosmic_rays=c.CosmicRays(enabled=False))
    frames = np.stack([simulate_exposure("TinyCam", 0, e, config) for e in bias_set(30, DAY)]).astype(float)
    simulate(tmp_path, "TinyCam", bias_set(1, DAY), [0], config)
    truth = load_truth(tmp_path).detector(0)
    box = get_instrument("TinyCam").detector(0).amps[0].data
    frames -= frames[:, :, :, 43:53].mean(axis=3, keepdims=True)
    image = frames.mean(axis=0)
    image = image[:, box.y, box.x] - image[:, 53:61, box.x].mean(axis=1, keepdims=True)
    noise = truth.tables["read_noise"] / truth.tables["gain"]
    expected = noise * np.sqrt((1 + 1 / 10) / 30 * (1 + 1 / 8))
    residual = image - truth.pattern
    np.testing.assert_allclose(residual.std(axis=(1, 2)), expected, rtol=0.12)
    sigma = noise * np.sqrt((1 / 10 + 1 / 36) / (30 * 8) + 1 / (30 * 50 * 10))  # parallel overscan, serial overscan
    assert (abs(residual.mean(axis=(1, 2))) < 4.5 * sigma).all()


def test_more_exposures_join_the_folder_others_are_refused(tmp_path):
    simulate(tmp_path, "TinyCam", SPECS[:1], [0])
    simulate(tmp_path, "TinyCam", SPECS[1:2], [1])
    truth = load_truth(tmp_path)
    assert [e.seq_num for e in truth.exposures] == [1, 2]
    assert truth.detectors == (0, 1)
    with pytest.raises(DataError, match="another camera or configuration"):
        simulate(tmp_path, "TinyCam", SPECS[:1], [0], SimulationConfig(seed=9))
    with pytest.raises(DataError, match="another exposure 2026081200001"):
        simulate(tmp_path, "TinyCam", dark_set(1, 5.0, DAY), [0])
    with pytest.raises(DataError, match="no truth for detector 3"):
        truth.detector(3)


def test_faulty_requests_name_the_fault(tmp_path):
    with pytest.raises(ConfigError, match="no detector 7"):
        simulate(tmp_path, "TinyCam", SPECS, [7])
    with pytest.raises(ConfigError, match="no filter 'g_7'; did you mean 'g_6'"):
        simulate(tmp_path, "TinyCam", flat_set(1, 1.0, DAY, physical_filter="g_7"))
    with pytest.raises(DataError, match="seq_num 1; chain the sets"):
        simulate(tmp_path, "TinyCam", [*bias_set(1, DAY), *dark_set(1, 1.0, DAY)])
    with pytest.raises(DataError, match="no truth/truth.yaml"):
        load_truth(tmp_path / "nowhere")


def test_photodiode_files_integrate_to_the_true_charge(folder):
    time, current = np.loadtxt(folder / "TC_O_20260812_000004" / "Photodiode_Readings_20260812_000004.txt").T
    spec, config = SPECS[3], SimulationConfig()
    baseline = np.median(current[current < current.max() / 5])
    charge = np.trapezoid(current - baseline, time)
    assert charge == pytest.approx(load_truth(folder).photodiode()[spec.key], rel=2e-4)
    assert photodiode_charge(config, spec) == pytest.approx(2e-8 * 4.0 * lamp_brightness(config, spec))
    assert not list((folder / "TC_O_20260812_000001").glob("Photodiode*"))


def test_schedule_numbers_and_spaces_exposures():
    specs = list(schedule([*bias_set(3, DAY), *dark_set(2, 100.0, DAY), *ptc_set([1.0, 2.0], DAY)], DAY, 11))
    assert [s.seq_num for s in specs] == list(range(11, 20))
    assert [s.exposure_time_s for s in specs[-4:]] == [1.0, 1.0, 2.0, 2.0]
    assert {s.reason for s in specs} == {"bias", "dark", "ptc"}
    for first, second in zip(specs, specs[1:], strict=False):
        assert first.end_tai < second.begin_tai


def test_program_and_contamination_of_a_set():
    specs = bias_set(3, DAY, contaminated_first=True)
    assert [s.contaminated for s in specs] == [True, False, False]
    header = primary_header(
        get_instrument("TinyCam"), get_instrument("TinyCam").detector(0), specs[0], SimulationConfig(program="BLOCK-1")
    )
    assert header["PROGRAM"] == "BLOCK-1"


def test_wavefront_sensor_has_eight_amps(tmp_path):
    camera = get_instrument("LSSTCam")
    detector = camera.detector("R44_SW0")
    assert len(detector.amps) == 8
    assert {key: value for key, value, _ in amp_cards(detector, detector.amps[0])}["DETSIZE"] == "[1:4072,1:4000]"


def test_config_is_hashable_and_survives_yaml(tmp_path):
    config = SimulationConfig(faults=c.Faults(dead=((1, "C00"),)), brighter_fatter=c.BrighterFatter(a=((-1e-6,),)))
    simulate(tmp_path, "TinyCam", [ExposureSpec(type="bias", day_obs=DAY, seq_num=5)], [1], config)
    assert load_truth(tmp_path).config == config
    assert hash(config) == hash(load_truth(tmp_path).config)


@pytest.mark.slow
def test_full_size_files_within_the_time_limit(tmp_path):
    """One exposure of one full-size detector, all effects and file: 4 s a core, a bias 2 s (CPU time, best of 3)."""
    import time

    from camcal_dask.simulation.run import run_unit

    limits = {"bias": 2.0, "flat": 4.0}
    specs = {"bias": bias_set(1, DAY)[0], "flat": flat_set(1, 15.0, DAY, 2)[0]}
    work = partial(run_unit, out=str(tmp_path), instrument="LSSTCam", config=SimulationConfig(), filters=())
    for name, spec in specs.items():
        work((spec, 94))
        seconds = []
        for _ in range(3):
            begin = time.process_time()
            work((spec, 94))
            seconds.append(time.process_time() - begin)
        assert min(seconds) < limits[name], f"{name}: {min(seconds):.2f} s"


@pytest.mark.parametrize(
    ("day", "first"), [(99999999, 1), (20260230, 1), (2026, 1), (-1, 1), (20260812, 0), (20260812, 99_999)]
)
def test_days_and_numbers_that_are_none_are_refused(day, first):
    with pytest.raises(ConfigError, match="day_obs|seq_num"):
        bias_set(2, day, first)
    assert len(bias_set(2, 20260812, 99_998)) == 2
