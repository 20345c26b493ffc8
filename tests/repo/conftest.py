"""A small repository: TinyCam, four biases of one day and two of the next, every detector but one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from camcal_dask.instruments import get_instrument
from camcal_dask.raw_fits.header import ExposureRecord
from camcal_dask.repo.butler.repository import Repo, create_repo, open_repo
from camcal_dask.repo.cubes import raw as cubes

CAMERA = "TinyCam"
DAYS = (20260812, 20260813)
EXPOSURES = (2026081200001, 2026081200002, 2026081200003, 2026081200004, 2026081300001, 2026081300002)
LOST = (2026081200002, 3)  # an exposure without this detector
NOON_20260812 = 1786536000 * 10**9  # TAI ns of 2026-08-12T12:00:00 TAI, from the calendar: 20677.5 days


def record(exposure: int, kind: str = "bias", *, instrument: str = CAMERA, **changes: object) -> ExposureRecord:
    """Exposure record, 10 hours after noon plus 30 s a sequence number."""
    day, seq = divmod(exposure, 100_000)
    begin = NOON_20260812 + (day - 20260812) * 86_400 * 10**9 + (36_000 + 30 * seq) * 10**9
    values: dict[str, object] = {
        "instrument": instrument, "exposure": exposure, "obs_id": f"TC_O_{day}_{seq:06d}", "day_obs": day,
        "seq_num": seq, "seq_start": seq, "seq_end": seq, "group": f"{day}#{seq}", "physical_filter": "none",
        "exposure_time_s": 0.0, "dark_time_s": 0.5, "observation_type": kind, "observation_reason": kind,
        "target_name": "UNKNOWN", "science_program": "BLOCK-T1", "tracking_ra_deg": None, "tracking_dec_deg": None,
        "sky_angle_deg": None, "azimuth_deg": None, "zenith_angle_deg": None, "has_simulated": True,
        "can_see_sky": None, "begin_tai_nsec": begin, "end_tai_nsec": begin, "day_offset_s": 43_200,
    }  # fmt: skip
    return ExposureRecord(**(values | changes))  # type: ignore[arg-type]


def pixels(exposure: int, detector: int) -> np.ndarray:
    """Pixels that name their exposure and detector: (16, 64, 56) int32."""
    base = np.arange(16 * 64 * 56, dtype=np.int32).reshape(16, 64, 56)
    return base + np.int32(100_000 * (exposure % 100_000) + 10 * detector)


@dataclass(frozen=True)
class TinyRepo:
    """A repository and what was put into it."""

    root: str
    repo: Repo
    raws: frozenset[tuple[int, int]]


RAWS = frozenset((e, d) for e in EXPOSURES for d in get_instrument(CAMERA).detectors if (e, d) != LOST)


def fill(root: str) -> Repo:
    """Make a TinyCam repository with six registered biases."""
    repo = create_repo(root, CAMERA)
    for exposure, detector in RAWS:
        uri = cubes.raw_cube_uri(repo.root, CAMERA, exposure)
        cubes.ensure_raw_cube(uri, get_instrument(CAMERA))
        cubes.write_raw(uri, cubes.raw_slot(exposure), detector, pixels(exposure, detector))
    repo.register_exposures(record(e) for e in EXPOSURES)
    repo.register_raws(CAMERA, RAWS)
    return repo


def copy(source: str, target: Path) -> str:
    """Copy a repository (making one takes a second): everything in it is relative."""
    shutil.copytree(source, target)
    return str(target)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Repository of the session; not to be written."""
    repo = fill(str(tmp_path_factory.mktemp("tiny") / "repo"))
    repo.close()
    return repo.root


@pytest.fixture(scope="session")
def tiny_reader(tiny_root: str) -> Repo:
    """The session's repository, for reading."""
    return open_repo(tiny_root)


@pytest.fixture
def tiny_repo(tiny_root: str, tmp_path: Path) -> TinyRepo:
    """TinyCam repository with six registered biases, open for writing."""
    repo = open_repo(copy(tiny_root, tmp_path / "repo"), writeable=True)
    return TinyRepo(repo.root, repo, RAWS)


@pytest.fixture(scope="session")
def certified_root(tiny_root: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """b1 valid in [12 Aug, 13 Aug) in a, b2 unbounded in b, two detectors each; calib = chain (a, b)."""
    repo = open_repo(copy(tiny_root, tmp_path_factory.mktemp("certified") / "repo"), writeable=True)
    make_bias(repo, "u/me/b1", 1.0, detectors=(0, 1))
    make_bias(repo, "u/me/b2", 2.0, detectors=(1, 3))
    repo.certify("u/me/b1", "bias", "TinyCam/calib/a", 20260812, "20260813")
    repo.certify("u/me/b2", "bias", "TinyCam/calib/b")
    repo.chain("TinyCam/calib", ["TinyCam/calib/a", "TinyCam/calib/b"])
    repo.close()
    return repo.root


@pytest.fixture(scope="session")
def certified_reader(certified_root: str) -> Repo:
    """The session's certified repository, for reading."""
    return open_repo(certified_root)


@pytest.fixture
def certified(certified_root: str, tmp_path: Path) -> Repo:
    """A copy of it, open for writing."""
    return open_repo(copy(certified_root, tmp_path / "repo"), writeable=True)


def bias_template(detectors: tuple[int, ...] = (0, 1, 2, 3)) -> xr.Dataset:
    """Layout of a TinyCam bias."""
    camera = get_instrument(CAMERA)
    dims, shape = ("detector", "amp", "y", "x"), (len(detectors), 16, *camera.trimmed_shape)
    names = [camera.detectors[d].full_name for d in detectors]
    return xr.Dataset(
        {
            "image": (dims, np.broadcast_to(np.float32(0), shape), {"units": "adu"}),
            "mask": (dims, np.broadcast_to(np.int32(0), shape)),
        },
        coords={"detector": list(detectors), "detector_name": ("detector", names), "amp": list(camera.amp_names)},
        attrs={"units": "adu", "provenance": "0123", "inputs": [1, 2]},
    )


def write_bias(uri: str, value: float, detectors: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    """A bias whose image is ``value`` + detector / 10 everywhere."""
    shape = (16, *get_instrument(CAMERA).trimmed_shape)
    cubes.create_product(uri, bias_template())
    for d in detectors:
        arrays = {"image": np.full(shape, value + d / 10, np.float32), "mask": np.full(shape, d, np.int32)}
        cubes.write_product(uri, d, arrays)


def make_bias(repo: Repo, run: str, value: float, detectors: tuple[int, ...] = (0, 1, 2, 3)) -> list[str]:
    """Write and register a bias."""
    uri = f"{repo.root}/cubes/{run}/bias.zarr"
    write_bias(uri, value, detectors)
    return repo.register_product(run, "bias", uri, [{"instrument": CAMERA, "detector": d} for d in detectors])
