"""Automatic verdicts on a whole set of exposures (reference/verification.md 4.2; reference/operations.md 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.verify.judging.levels import FAIL, NOT_EVALUATED, PREFIX

RUBIN_AMPS_PER_DETECTOR = 8


@dataclass(frozen=True)
class Policy:
    """An automatic verdict: accepted or not, the exposures that count as bad and how many reject."""

    accepted: bool
    bad_exposures: tuple[int, ...]
    limit: int


def rubin_rule(
    counts: npt.NDArray[np.int64], n_detector: int, n_key: int, amps: int = RUBIN_AMPS_PER_DETECTOR
) -> Policy:
    """Apply the rejection rule of the daily calibration script, bit for bit (reference/operations.md 3).

    Parameters
    ----------
    counts : (exposure, test) int
        Failures of each test in each exposure, over all detectors and amps.
    n_detector : int
    n_key : int
        Entries of upstream's statistics dictionary: the exposures, SUCCESS, and any run-level block.
    amps : int
        Failing amps allowed per detector.

    Returns
    -------
    Policy
        ``bad_exposures`` are positions in ``counts``.
    """
    counts = np.asarray(counts).reshape(len(counts), -1)
    bad = np.flatnonzero((counts >= amps * (n_detector // 2 + 1)).any(axis=1))
    limit = n_key // 2 + 1
    return Policy(bool(bad.size < limit), tuple(int(i) for i in bad), limit)


def rubin(verdict: xr.Dataset) -> Policy:
    """Automatic verdict as upstream gives it: its tests and limits, all amps, advisory tests counted in failed amps.

    Neither thresholds of the user nor the list of known-bad amps exist for it.
    """
    counts = []
    for level in ("amp", "detector", "exposure"):
        prefix = PREFIX[level]  # type: ignore[index]
        if f"{prefix}status" not in verdict:
            continue
        test = f"{prefix}test"
        status = verdict.get(f"{prefix}upstream_status", verdict[f"{prefix}status"])
        upstream = np.flatnonzero(verdict[f"{test}_source"].values == "cp_verify")
        failed = (status == FAIL).isel({test: upstream})
        if level == "amp":
            failed = failed & failed.where(verdict["test_upstream"].isel(test=upstream), False).any("test")
        rest = [d for d in failed.dims if d not in ("exposure", test)]
        counts.append(failed.sum(rest).transpose("exposure", test).values)
    n_exposure = verdict.sizes["exposure"]
    found = rubin_rule(np.concatenate(counts, axis=1), verdict.sizes["detector"], n_exposure + 1)
    return _named(found, verdict)


def majority(verdict: xr.Dataset) -> Policy:
    """Stricter rule: a required test fails in over half the amps of over half the detectors and decisive exposures."""
    verdict = verdict.isel(exposure=np.flatnonzero(verdict["decisive"]))
    judged = ~verdict["known_bad"] & (verdict["status"] != NOT_EVALUATED)
    failed = (verdict["status"] == FAIL) & judged & verdict["test_required"]
    detectors = failed.sum("amp") > 0.5 * judged.sum("amp")
    exposures = detectors.sum("detector") > 0.5 * verdict.sizes["detector"]
    rejected = exposures.sum("exposure") > 0.5 * verdict.sizes["exposure"]
    bad = np.flatnonzero(exposures.any("test").values)
    limit = verdict.sizes["exposure"] // 2 + 1
    return _named(Policy(not bool(rejected.any()), tuple(int(i) for i in bad), limit), verdict)


def _named(policy: Policy, verdict: xr.Dataset) -> Policy:
    exposures = verdict["exposure"].values
    return Policy(policy.accepted, tuple(int(exposures[i]) for i in policy.bad_exposures), policy.limit)
