"""Levels of flats from a few pixels of each, and the choice of one illumination that rests on them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.calibs.flat.illumination import RAMP_REASONS, Flats, Picked, SelectConfig, pick
from camcal_dask.campaign.planning.recipe import Recipe
from camcal_dask.errors import CamcalError, PlanError
from camcal_dask.instruments.geometry import Amp, Detector, Instrument
from camcal_dask.kernels.linearity.fit import SIGMA_OF_MAD
from camcal_dask.kernels.pixels.masks import FILL
from camcal_dask.repo.cubes import products

if TYPE_CHECKING:  # workers unpickle a plan, and they have no use for the Butler
    from camcal_dask.repo.butler.repository import Repo

N_AMP = 6
"""Amps measured of an exposure: a dead one does not matter."""
N_DETECTOR = 3
_ROWS = 256
"""Rows measured of an amp: one chunk of the raw cube, which has their overscan too (a ms, half a MB)."""
_READERS = 16
Place = tuple[int, Amp, float]
"""Position of a detector, amp, and its turnoff or full well [adu]."""


def choose_flats(repo: Repo, recipe: Recipe, raws: xr.DataArray, inputs: Sequence[str]) -> Picked:
    """Choose the flats of one illumination.

    Levels are the median of 256 rows less that of their serial overscan, of six amps at most: the detectors
    that are nearest to the axis.  The limit of a level is the turnoff of the ``ptc`` in ``inputs``, or the
    saturation of the camera model for amps without one.

    Parameters
    ----------
    repo : Repo
        Where calibrations are looked up.
    recipe : Recipe
        What they are for; its ``select`` has the rules, if it has one (else those of `SelectConfig`).
    raws : DataArray
        Flats of one filter, from ``Repo.raws``.
    inputs : sequence of str
        Collections searched for a ``ptc``.

    Raises
    ------
    PlanError
        If none will do, saying why of each and what to change.
    """
    config: SelectConfig = getattr(recipe, "select", SelectConfig())
    ids = [int(e) for e in raws["exposure"].values]
    if config.illumination == "any":
        return Picked(tuple(ids), (f"all {len(ids)} flats selected, of any illumination (select.illumination=any)",))
    camera = repo.instrument(raws.attrs["instrument"])
    reason = raws["observation_reason"].values.astype(str)
    wanted: NDArray[np.bool_] = np.ones(len(ids), np.bool_)
    if not config.ramps:
        wanted &= ~np.isin(reason, RAMP_REASONS)
    if config.reason:
        wanted &= reason == config.reason
    places, of = _places(repo, camera, raws, inputs)
    numbers = np.full((3, len(ids)), np.nan)
    with ThreadPoolExecutor(_READERS) as pool:
        chosen = np.flatnonzero(wanted)
        measured = pool.map(lambda e: measure_level(raws[int(e)], places), chosen)
        for e, row in zip(chosen, measured, strict=True):
            numbers[:, e] = row
    day, start = (raws[name].values.astype(np.int64) for name in ("day_obs", "seq_start"))
    flats = Flats(np.array(ids), day, start, raws["exposure_time"].values, reason, *numbers)
    picked = pick(flats, config, of)
    if not picked.exposures:
        raise PlanError(
            f"{recipe.product}: none of {len(ids)} flats of {raws['physical_filter'].values[0]} can be used: "
            f"{'; '.join(picked.reasons)}; change select.* with -c, or select.illumination=any to take what -d selects"
        )
    return picked


def measure_level(raw: xr.DataArray, places: Sequence[Place]) -> tuple[float, float, float]:
    """Level of one exposure.

    Parameters
    ----------
    raw : DataArray
        (detector, amp, y, x) int32 [adu], lazy.
    places : sequence of `Place`
        Amps in order of preference; the first six that can be read are measured.

    Returns
    -------
    level, noise of a pixel of the overscan [adu], fraction of the limit: medians over the amps; NaN if none can be read
    """
    found: list[tuple[float, float, float]] = []
    for detector, amp, limit in places:
        height = amp.data.height
        start = height // 2 // _ROWS * _ROWS
        try:
            rows = raw[detector, amp.index, start : min(start + _ROWS, height)].values
        except (CamcalError, OSError):  # lost or damaged: the run itself names the detector
            continue
        if (rows == FILL).all():
            continue
        data, strip = (rows[:, b.x0 : b.x0 + b.width] for b in (amp.data, amp.serial_overscan))
        level = float(np.median(data) - np.median(strip))
        noise = SIGMA_OF_MAD * float(np.median(np.abs(strip - np.median(strip, axis=1, keepdims=True))))
        found.append((level, noise, level / limit))
        if len(found) == N_AMP:
            break
    level, noise, fraction = np.median(found, axis=0).tolist() if found else (np.nan, np.nan, np.nan)
    return level, noise, fraction


def _places(repo: Repo, camera: Instrument, raws: xr.DataArray, inputs: Sequence[str]) -> tuple[list[Place], str]:
    """Amps by which levels are measured, and what their limits are."""
    ids = [int(d) for d in raws["detector"].values]
    known = [camera.detectors[d] for d in ids]
    order = sorted(range(len(ids)), key=lambda i: (_radius(known[i]), ids[i]))
    turnoffs = _turnoffs(repo, raws, [ids[i] for i in order[:N_DETECTOR]], inputs)
    per_detector = -(-N_AMP // min(len(ids), N_DETECTOR))
    places = []
    for i in order:
        amps = known[i].amps
        for amp in amps[:: max(len(amps) // per_detector, 1)][:per_detector]:
            turnoff = turnoffs[ids[i]][amp.index] if ids[i] in turnoffs else np.nan
            places.append((i, amp, float(turnoff) if turnoff > 0 else amp.saturation))
    return places, "turnoff of the ptc" if turnoffs else "full well"


def _radius(detector: Detector) -> float:
    return float(np.hypot(detector.center_x_mm, detector.center_y_mm))


def _turnoffs(
    repo: Repo, raws: xr.DataArray, detectors: Sequence[int], inputs: Sequence[str]
) -> dict[int, NDArray[np.float64]]:
    """Turnoff of every amp [adu] of those detectors that have a ptc in the inputs."""
    if "ptc" not in repo.dataset_types("ptc"):
        return {}
    exposure = int(raws["exposure"].values[-1])
    refs = repo.find_calibs(
        "ptc", [exposure], detectors, list(inputs), instrument=raws.attrs["instrument"], required=False
    )
    return {d: products.open_products([(ref.uri, d)])["turnoff"].values[0] for (_, d), ref in refs.items()}
