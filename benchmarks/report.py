"""Questions to the statistics of 1000 exposures x 189 detectors x 16 amps.

``stats_query_s`` is the slowest of the questions of docs/statistics.md, each with the opening of the cubes (the
repository is open): worst amps, one amp against time, noise by vendor, failures of a test, two runs compared.
``report_s_189`` is the writing of a report, ``dashboard_first_paint_s`` the opening of the dashboard (`_pages`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks._pages import first_paint_seconds, report_seconds
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import Repo, create_repo
from camcal_dask.repo.cubes import small
from camcal_dask.repo.storage import files
from camcal_dask.schema import STATISTIC_DIMS
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.judging.query import compare, failed, table, worst
from camcal_dask.verify.measuring.block import STATISTICS
from camcal_dask.verify.measuring.references import expectations
from camcal_dask.verify.measuring.statistics import MeasureConfig

NIGHT = 50
"""Exposures of a run."""


def run(workdir: Path, quick: bool) -> dict[str, float]:
    """Measure; ``quick`` uses the tiny camera and 100 exposures."""
    instrument, n_exposure = ("TinyCam", 100) if quick else ("LSSTCam", 1000)
    with create_repo(str(workdir / "repo"), instrument) as repo:
        begin = time.perf_counter()
        n_bytes = fill(repo, n_exposure, instrument)
        numbers = {"statistics_write_s": time.perf_counter() - begin, "statistics_MB": n_bytes / 1e6}
        numbers |= _query_seconds(repo, instrument)
        numbers |= first_paint_seconds(repo.root)
        numbers |= report_seconds(repo, make_statistics, instrument, workdir / "report")
    return numbers


# ---------------------------------------------------------------------------- statistics


def make_statistics(n_exposures: int, instrument: str, *, day_obs: int = 20260812, seed: int = 0) -> xr.Dataset:
    """Make statistics and verdicts of biases, as the task of a verification would, without any pixels.

    Each amp has its nominal read noise within 2 %; the noise of a known few is 30 % too high in every exposure.

    Parameters
    ----------
    n_exposures : int
        Of one night.
    instrument : str
        All science detectors.
    day_obs, seed : int
        Observing day; another seed, other numbers.
    """
    camera = get_instrument(instrument)
    detectors, amps = list(camera.science_detectors), list(camera.amp_names)
    rng = np.random.default_rng([seed, day_obs])
    shape = (n_exposures, len(detectors), len(amps))
    height, width = camera.trimmed_shape
    nominal = np.array([[a.read_noise for a in camera.detectors[d].amps] for d in detectors])
    noise = nominal * (1 + 0.02 * np.random.default_rng(seed).standard_normal(nominal.shape))
    noise.ravel()[:: max(1, noise.size // 3)] *= 1.3
    values = {name: np.zeros(shape) for name in STATISTICS}
    for name in ("noise", "cr_noise", "stdev", "unmasked_noise", "unmasked_stdev"):
        values[name] = noise * (1 + 0.001 * rng.standard_normal(shape))
    for name in ("mean", "median", "amp_corner"):
        values[name] = 0.02 * rng.standard_normal(shape)
    values |= {"n_pixel": np.full(shape, float(height * width)), "n_good": np.full(shape, float(height * width))}
    values["structure"] = 0.2 * noise * (1 + 0.1 * rng.standard_normal(shape))
    variables = {name: (STATISTIC_DIMS, array) for name, array in values.items()}
    variables["read_noise_adu"] = (STATISTIC_DIMS, np.broadcast_to(nominal, shape) / 1.6)
    coords = _coordinates(n_exposures, day_obs) | {"detector": detectors, "amp": amps}
    statistics = xr.Dataset(variables, coords, {"instrument": instrument, "units": "electron"})
    pixels = statistics.assign(image=(("y", "x"), np.empty((height, width), "f4")))
    return statistics.assign(expectations(pixels, MeasureConfig()))


def _coordinates(n: int, day_obs: int) -> dict[str, Any]:
    seq_num = np.arange(1, n + 1)
    begin = float(np.datetime64(f"{day_obs // 10000}-{day_obs // 100 % 100:02}-{day_obs % 100:02}", "D").astype(int))
    return {
        "exposure": day_obs * 100_000 + seq_num,
        "day_obs": ("exposure", np.full(n, day_obs)),
        "seq_num": ("exposure", seq_num),
        "mjd": ("exposure", 40587.9 + begin + seq_num * 15 / 86400),
        "exposure_time": ("exposure", np.zeros(n)),
        "physical_filter": ("exposure", np.full(n, "r_57")),
    }


def fill(repo: Repo, n_exposures: int, instrument: str, *, night: int = NIGHT) -> int:
    """Write and register statistics of many nights, ``night`` exposures each; return their bytes.

    The RUNs are ``night/<day_obs>``.
    """
    n_bytes = 0
    for i, first in enumerate(range(0, n_exposures, night)):
        day = int(str(np.datetime64("2026-08-12") + i).replace("-", ""))
        statistics = make_statistics(min(night, n_exposures - first), instrument, day_obs=day)
        verdict = statistics.merge(judge(statistics, "bias"), compat="override", join="exact")
        verdict.attrs |= judge(statistics.isel(exposure=[0]), "bias").attrs
        uri = files.join(repo.root, "cubes", f"night/{day}", "verifyBias.zarr")
        small.write_dataset(uri, verdict, overwrite=True)
        repo.register_product(f"night/{day}", "verifyBias", uri, [{"instrument": instrument}])
        n_bytes += sum(path.stat().st_size for path in Path(uri).rglob("*") if path.is_file())
    return n_bytes


# ---------------------------------------------------------------------------- questions


def _query_seconds(repo: Repo, instrument: str) -> dict[str, float]:
    camera = get_instrument(instrument)
    detector = camera.science_detectors[len(camera.science_detectors) // 2]
    runs = sorted(c.name for c in repo.collections("night/*"))
    questions: dict[str, Callable[[], Any]] = {
        "worst_ten": lambda: worst(repo.stats("verifyBias").noise.median("exposure")),
        "one_amp_in_time": lambda: (
            repo.stats("verifyBias").noise.sel(detector=detector, amp=camera.amp_names[3]).to_series()
        ),
        "by_vendor": lambda: table(repo.stats("verifyBias"), ["noise"], by=["vendor"]),
        "failed": lambda: failed(repo.stats("verifyBias"), "bias.noise"),
        "by_day": lambda: table(repo.stats("verifyBias"), ["noise"], by=["day_obs"]),
        "two_runs": lambda: compare(*(repo.stats("verifyBias", run).noise for run in (runs[0], runs[-1]))),
    }
    seconds = {f"stats_{name}_s": min(_seconds(question) for _ in range(3)) for name, question in questions.items()}
    return {"stats_query_s": max(seconds.values()), **seconds}


def _seconds(question: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    question()
    return time.perf_counter() - begin
