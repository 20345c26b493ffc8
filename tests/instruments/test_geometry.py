"""Camera tables against facts copied by hand from reference/raw_format.md 2.1, 2.3, 2.5 and 3."""

from __future__ import annotations

import csv
import dataclasses
import pickle
import shutil
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from dask.base import tokenize

from camcal_dask.errors import ConfigError, DataError
from camcal_dask.instruments import Amp, Box, Detector, Instrument, get_instrument, instrument_names
from camcal_dask.instruments.geometry import load_instrument, table_faults

NAMES = ("LATISS", "LSSTCam", "LSSTComCam", "TinyCam")
AMPS = ("C10", "C11", "C12", "C13", "C14", "C15", "C16", "C17", "C07", "C06", "C05", "C04", "C03", "C02", "C01", "C00")
SLOTS = ("S00", "S01", "S02", "S10", "S11", "S12", "S20", "S21", "S22")

E2V_BOXES = (Box(10, 0, 512, 2002), Box(0, 0, 10, 2002), Box(522, 0, 54, 2002), Box(10, 2002, 512, 46))
ITL_BOXES = (Box(3, 0, 509, 2000), Box(0, 0, 3, 2000), Box(512, 0, 64, 2000), Box(3, 2000, 509, 48))
FIRST_IDS = {
    **{"R01": 0, "R02": 9, "R03": 18, "R10": 27, "R11": 36, "R12": 45, "R13": 54, "R14": 63, "R20": 72, "R21": 81},
    **{"R22": 90, "R23": 99, "R24": 108, "R30": 117, "R31": 126, "R32": 135, "R33": 144, "R34": 153},
    **{"R41": 162, "R42": 171, "R43": 180},
}
ITL_RAFTS = ("R01", "R02", "R03", "R10", "R20", "R41", "R42", "R43")
RAFT_SERIALS = {
    **{"R01": "011", "R02": "013", "R03": "017", "R10": "023", "R11": "020", "R12": "009", "R13": "019", "R14": "006"},
    **{"R20": "014", "R21": "025", "R22": "024", "R23": "005", "R24": "008", "R30": "012", "R31": "007", "R32": "015"},
    **{"R33": "010", "R34": "016", "R41": "021", "R42": "018", "R43": "022"},
}


@pytest.fixture(scope="module")
def lsstcam() -> Instrument:
    return get_instrument("LSSTCam")


def boxes(amp: Amp) -> tuple[Box, Box, Box, Box]:
    return amp.data, amp.prescan, amp.serial_overscan, amp.parallel_overscan


def test_cameras() -> None:
    assert instrument_names() == NAMES


@pytest.mark.parametrize(
    ("name", "raw_shape", "trimmed_shape", "n_science", "n_filters"),
    [
        ("LSSTCam", (205, 16, 2048, 576), (2002, 512), 189, 276),
        ("LSSTComCam", (9, 16, 2048, 576), (2000, 509), 9, 15),
        ("LATISS", (1, 16, 2048, 576), (2000, 509), 1, 707),
        ("TinyCam", (4, 16, 64, 56), (50, 36), 4, 6),
    ],
)
def test_shapes_and_counts(
    name: str, raw_shape: tuple[int, ...], trimmed_shape: tuple[int, int], n_science: int, n_filters: int
) -> None:
    camera = get_instrument(name)
    assert camera.raw_shape == raw_shape
    assert camera.trimmed_shape == trimmed_shape
    assert len(camera.science_detectors) == n_science
    assert len(camera.filters) == n_filters
    assert camera.amp_names == AMPS
    assert list(camera.detectors) == list(range(raw_shape[0]))
    assert max(len(f) for f in camera.filters) <= 32


def test_lsstcam_counts_by_purpose_and_type(lsstcam: Instrument) -> None:
    counts = Counter((d.purpose, d.vendor, d.physical_type, len(d.amps)) for d in lsstcam.detectors.values())
    assert counts == {
        ("SCIENCE", "E2V", "E2V", 16): 117,
        ("SCIENCE", "ITL", "ITL", 16): 72,
        ("GUIDER", "ITL", "ITL_G", 16): 8,
        ("WAVEFRONT", "ITL", "ITL_WF", 8): 8,
    }
    assert sum(len(d.amps) for d in lsstcam.detectors.values()) == 3216
    assert lsstcam.science_detectors == tuple(range(189))


def test_ids_of_science_detectors(lsstcam: Instrument) -> None:
    for raft, first in FIRST_IDS.items():
        for offset, slot in enumerate(SLOTS):
            detector = lsstcam.detectors[first + offset]
            assert (detector.full_name, detector.raft, detector.name_in_raft) == (f"{raft}_{slot}", raft, slot)
            assert detector.vendor == ("ITL" if raft in ITL_RAFTS else "E2V")
            assert detector.raft_serial == f"LCA-11021_RTM-{RAFT_SERIALS[raft]}"
    assert lsstcam.detectors[94].full_name == "R22_S11"


def test_corner_detectors(lsstcam: Instrument) -> None:
    corners = {d.id: (d.raft, d.name_in_raft) for d in lsstcam.detectors.values() if d.purpose != "SCIENCE"}
    expected = [(raft, slot) for raft in ("R00", "R04", "R40", "R44") for slot in ("SG0", "SG1", "SW0", "SW1")]
    assert corners == dict(zip(range(189, 205), expected, strict=True))
    crtm = {d.raft: d.raft_serial[-4:] for d in lsstcam.detectors.values() if d.purpose != "SCIENCE"}
    assert crtm == {"R00": "0002", "R40": "0003", "R04": "0004", "R44": "0005"}


def test_positions_of_science_detectors(lsstcam: Instrument) -> None:
    """Raft Rij at ((j-2) 127, (i-2) 127) mm, slot Smn 42.25 mm apart; ITL centres 0.010 mm off (section 3.3)."""
    for number in lsstcam.science_detectors:
        d = lsstcam.detectors[number]
        i, j, m, n = (int(d.full_name[k]) for k in (1, 2, 5, 6))
        x, y = (j - 2) * 127.0 + (n - 1) * 42.25, (i - 2) * 127.0 + (m - 1) * 42.25
        assert (d.fp_x_mm, d.fp_y_mm, d.fp_z_mm, d.yaw_deg) == pytest.approx((x, y, 0.0, 0.0))
        off = 0.010 if d.vendor == "ITL" else 0.0
        assert (d.center_x_mm, d.center_y_mm) == pytest.approx((x - off, y - off))
        assert d.pixel_size_mm == 0.010


@pytest.mark.parametrize(
    ("physical_type", "size", "reference_pixel"),
    [
        ("E2V", (4096, 4004), (2047.5, 2001.5)),
        ("ITL", (4072, 4000), (2036.5, 2000.5)),
        ("ITL_G", (4072, 4000), (2036.5, 2000.5)),
        ("ITL_WF", (4072, 2000), (2036.5, 1000.5)),
    ],
)
def test_sizes(
    lsstcam: Instrument, physical_type: str, size: tuple[int, int], reference_pixel: tuple[float, float]
) -> None:
    for d in lsstcam.detectors.values():
        if d.physical_type == physical_type:
            assert (d.width_pix, d.height_pix) == size
            assert (d.refpos_x_pix, d.refpos_y_pix) == reference_pixel


def test_corner_orientation(lsstcam: Instrument) -> None:
    """Half sensors are 1.5 mm in front of and behind the focus, 180 degrees apart (3.3, hazard 17)."""
    for raft in ("R00", "R04", "R40", "R44"):
        front, behind = (lsstcam.detector(f"{raft}_{slot}") for slot in ("SW0", "SW1"))
        assert (front.fp_z_mm, behind.fp_z_mm) == (-1.5, 1.5)
        assert (front.yaw_deg - behind.yaw_deg) % 360.0 == 180.0
    assert all(d.yaw_deg % 90.0 == 0.0 for d in lsstcam.detectors.values())


def every_real_detector() -> list[Detector]:
    return [d for name in NAMES if name != "TinyCam" for d in get_instrument(name).detectors.values()]


def test_boxes_and_order_of_every_real_amp() -> None:
    for d in every_real_detector():
        assert tuple(amp.name for amp in d.amps) == AMPS[: len(d.amps)]
        for index, amp in enumerate(d.amps):
            assert (amp.raw_width, amp.raw_height) == (576, 2048)
            assert boxes(amp) == (E2V_BOXES if d.vendor == "E2V" else ITL_BOXES)
            assert (amp.index, amp.hdu, amp.extname) == (index, index + 1, f"Segment{amp.name[1:]}")
            assert amp.linearity_max == 142857


@pytest.mark.parametrize("name", NAMES)
def test_flips_cells_and_readout_corners(name: str) -> None:
    """The table of section 2.5."""
    for d in get_instrument(name).detectors.values():
        for amp in d.amps:
            row, column = int(amp.name[1]), int(amp.name[2])
            if d.physical_type == "ITL_WF":
                expected = (7 - column, 0, True, True, "UR")
            elif row == 1:
                expected = (column, 1, True, True, "UR")
            else:
                expected = (column, 0, d.vendor == "ITL", False, "LR" if d.vendor == "ITL" else "LL")
            assert (amp.ix, amp.iy, amp.flip_x, amp.flip_y, amp.readout_corner) == expected, (d.name, amp.name)


def test_nominal_values(lsstcam: Instrument) -> None:
    """Extremes printed in section 3.4."""
    expected = {
        "E2V": (1.335, 1.619, 4.97, 12.98),
        "ITL": (1.253, 1.796, 5.26, 61.8),
        "ITL_G": (0.963, 1.554, 8.15, 100.3),
        "ITL_WF": (1.223, 1.313, 7.58, 9.00),
    }
    for kind, values in expected.items():
        amps = [amp for d in lsstcam.detectors.values() if d.physical_type == kind for amp in d.amps]
        gains, noises = [a.gain for a in amps], [a.read_noise for a in amps]
        assert (min(gains), max(gains), min(noises), max(noises)) == pytest.approx(values, rel=2e-3)


def test_comcam_and_latiss() -> None:
    comcam, latiss = get_instrument("LSSTComCam"), get_instrument("LATISS").detectors[0]
    assert [d.full_name for d in comcam.detectors.values()] == [f"R22_{slot}" for slot in SLOTS]
    assert {d.vendor for d in comcam.detectors.values()} == {"ITL"}
    assert {d.raft_serial for d in comcam.detectors.values()} == {"LCA-11021_RTM-031"}
    assert (latiss.full_name, latiss.raft, latiss.serial) == ("RXX_S00", "RXX", "ITL-3800C-068")
    assert (latiss.fp_x_mm, latiss.fp_y_mm, latiss.vendor) == (-0.515, -0.055, "ITL")


@pytest.mark.parametrize(
    ("camera", "physical_filter", "band"),
    [
        ("LSSTCam", "r_57", "r"), ("LSSTCam", "y_10", "y"), ("LSSTCam", "ph_5", "white"), ("LSSTCam", "ef_43", "white"),
        ("LSSTCam", "none", "white"), ("LSSTCam", "unknown", "unknown"), ("LSSTCam", "950nm", "y"),
        ("LSSTCam", "SDSSi~ND_OD0.5", "i~nd"), ("LSSTCam", "ND_OD0.01", "white~nd"), ("LSSTCam", "spot", "spot"),
        ("LSSTCam", "nm750", "i"), ("LSSTCam", "i_39~HIGH", "i"), ("LSSTComCam", "OG590_2_5mm", "OG590"),
        ("LSSTComCam", "i_06", "i"), ("LATISS", "empty~holo4_003", "white"), ("LATISS", "empty~SDSSr_65mm", "r"),
        ("LATISS", "quadnotch1~empty", "notch"), ("TinyCam", "empty", "white"),
    ],
)  # fmt: skip
def test_filters(camera: str, physical_filter: str, band: str) -> None:
    assert get_instrument(camera).filters[physical_filter] == band


@pytest.mark.parametrize("name", NAMES)
def test_amps_tile_the_detector(name: str) -> None:
    for d in get_instrument(name).detectors.values():
        cells = {(amp.ix, amp.iy) for amp in d.amps}
        rows = len({iy for _, iy in cells})
        assert len(cells) == len(d.amps) == 8 * rows
        assert (8 * d.amps[0].data.width, rows * d.amps[0].data.height) == (d.width_pix, d.height_pix)


@pytest.mark.parametrize(("name", "source"), [("LSSTCam", "lsstcam"), ("LSSTComCam", "comcam"), ("LATISS", "latiss")])
@pytest.mark.parametrize("table", ["amps", "detectors", "filters", "header_corrections"])
def test_tables_equal_the_reference(shared_data: Path, name: str, source: str, table: str) -> None:
    ours = list(
        csv.DictReader(files("camcal_dask.instruments").joinpath(name, f"{table}.csv").read_text().splitlines())
    )
    per_camera = shared_data / f"{source}_{table}.csv"
    path = per_camera if per_camera.is_file() else shared_data / f"{table}.csv"
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.pop("instrument", name) == name]
    assert ours == rows


@pytest.mark.parametrize("name", [94, "94", "R22_S11"])
def test_detector_by_id_or_name(lsstcam: Instrument, name: int | str) -> None:
    assert lsstcam.detector(name).id == 94
    assert lsstcam.detector(name).name == "94 (R22_S11)"


def test_unknown_names_are_explained(lsstcam: Instrument) -> None:
    with pytest.raises(ConfigError, match="no detector 'R22_S13'.*did you mean"):
        lsstcam.detector("R22_S13")
    with pytest.raises(ConfigError, match="'LSSTcam'.*did you mean 'LSSTCam'"):
        get_instrument("LSSTcam")


def test_a_camera_travels_as_its_name(lsstcam: Instrument) -> None:
    assert pickle.loads(pickle.dumps(lsstcam)) is lsstcam
    assert len(pickle.dumps(lsstcam)) < 200
    assert tokenize(lsstcam) == tokenize(get_instrument("LSSTCam")) != tokenize(get_instrument("LATISS"))
    assert hash(lsstcam) == hash(get_instrument("LSSTCam"))


def test_a_changed_camera_travels_whole() -> None:
    tiny = get_instrument("TinyCam")
    changed = dataclasses.replace(tiny, filters={"x": "y"})
    copy = pickle.loads(pickle.dumps(changed))
    assert copy.filters == {"x": "y"}
    assert dict(copy.detectors) == dict(tiny.detectors)
    assert tokenize(changed) != tokenize(tiny)


def itl_amp() -> Amp:
    return get_instrument("LSSTComCam").detectors[0].amps[0]


def test_narrower_image_keeps_starts_and_stretches_overscans_to_the_edge() -> None:
    amp = itl_amp().fitted(544, 2048)
    assert boxes(amp) == (Box(3, 0, 509, 2000), Box(0, 0, 3, 2000), Box(512, 0, 32, 2000), Box(3, 2000, 509, 48))
    amp = itl_amp().fitted(600, 2010)
    assert boxes(amp) == (Box(3, 0, 509, 2000), Box(0, 0, 3, 2000), Box(512, 0, 88, 2000), Box(3, 2000, 509, 10))
    assert itl_amp().fitted(576, 2048) is itl_amp()


@pytest.mark.parametrize("size", [(500, 2048), (576, 1999), (512, 2048), (576, 2000)])
def test_image_without_data_or_overscan_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=f"C10.*{size[0]} x {size[1]}.*576 x 2048"):
        itl_amp().fitted(*size)


def edited_tables(folder: Path, table: str, old: str, new: str) -> Path:
    """A copy of TinyCam's folder with one text replaced."""
    source, target = Path(str(files("camcal_dask.instruments").joinpath("TinyCam"))), folder / "TinyCam"
    shutil.copytree(source, target)
    text = (target / table).read_text()
    assert old in text
    (target / table).write_text(text.replace(old, new, 1))
    return target


@pytest.mark.parametrize(
    ("table", "old", "new", "named"),
    [
        ("amps.csv", "0,C11,1,2", "0,C12,1,2", "detector 0 .R22_S00. does not have the amps C10, C11"),
        ("amps.csv", "0,C11,1,2", "0,C11,1,3", "C11: hdu 3 is not index 1"),
        ("amps.csv", "40:0:16:50", "40:0:17:50", "raw_serial_overscan .*width=17.* leaves the image"),
        ("amps.csv", ",1.46712,", ",0,", "gain 0.0"),
        ("amps.csv", "3,C10,0", "9,C10,0", "detector 9 is not in detectors.csv"),
        ("detectors.csv", "1,R22_S11", "1,R22_S00", "R22_S00 occurs twice"),
        ("filters.csv", "\n", "\n" + "x" * 33 + ",white\n", "longer than 32"),
    ],
)
def test_contradicting_tables_are_named(tmp_path: Path, table: str, old: str, new: str, named: str) -> None:
    with pytest.raises(ConfigError, match=f"tables of TinyCam: .*{named}"):
        load_instrument(edited_tables(tmp_path, table, old, new))


@pytest.mark.parametrize("name", NAMES)
def test_own_tables_have_no_faults(name: str) -> None:
    assert table_faults(get_instrument(name)) == []
