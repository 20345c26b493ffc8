"""What a report is about: a RUN with its product, verification, provenance and sign-off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from camcal_dask.errors import RepoError, nearest
from camcal_dask.instruments import Instrument
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.butler.signoff import (
    Certification,
    SignOff,
    Verification,
    certifications,
    sign_offs,
    verifications,
)
from camcal_dask.repo.cubes import usable
from camcal_dask.repo.storage import files


@dataclass(frozen=True)
class Subject:
    """Everything a report shows, lazily."""

    run: str
    dataset_type: str
    instrument: Instrument
    product: xr.Dataset | None = None
    """The calibration, lazy."""
    verdict: xr.Dataset | None = None
    """Statistics, tests and verdicts."""
    verification: str = ""
    """RUN of ``verdict``."""
    candidates: tuple[str, ...] = ()
    """RUNs of the calibrations that ``verdict`` tested."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Provenance of the RUN."""
    sign_offs: Sequence[SignOff] = ()
    certifications: Sequence[Certification] = ()
    others: Sequence[Verification] = ()
    """All verifications of the product."""
    unusable: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Amps that the calibration is no use for, and why: by detector and amp."""

    @property
    def main(self) -> xr.Dataset:
        """The Dataset that gives instrument, detectors and amps: the verdict, or the product."""
        chosen = self.product if self.verdict is None else self.verdict
        assert chosen is not None
        return chosen

    @property
    def judged(self) -> bool:
        """Whether there are tests and verdicts."""
        return self.verdict is not None and "status" in self.verdict

    @property
    def detectors(self) -> list[int]:
        """Ids of the detectors."""
        return [int(d) for d in self.main["detector"].values]

    @property
    def amps(self) -> list[str]:
        """Names of the amps."""
        return [str(a) for a in self.main["amp"].values]


def load_subject(repo: Repo, run: str, dataset_type: str | None = None, instrument: str | None = None) -> Subject:
    """Gather what the repository knows about a RUN; pixels stay where they are.

    Parameters
    ----------
    repo : Repo
    run : str
        Of a calibration, or of a verification.
    dataset_type : str, optional
        If the RUN holds several.
    instrument : str, optional
        If a chain holds products of several cameras.

    Raises
    ------
    RepoError
        If the RUN holds nothing that can be shown, or not that type.
    """
    held = shown_types(repo, run)
    if not held:
        raise RepoError(f"{run}: holds no calibration and no verification to report on")
    if dataset_type is not None and dataset_type not in held:
        raise RepoError(f"{run}: holds no {dataset_type!r}{nearest(dataset_type, held)}")
    chosen = dataset_type or held[0]
    gather = _of_verification if repo.is_statistics(chosen) else _of_product
    return gather(repo, run, chosen, instrument)


def shown_types(repo: Repo, run: str) -> list[str]:
    """Dataset types of a RUN that have numbers of amps: calibrations first, then statistics."""
    held = repo.types_in(run)
    return [n for n in held if repo.is_calibration(n)] + [n for n in held if repo.is_statistics(n)]


def _of_product(repo: Repo, run: str, dataset_type: str, instrument: str | None) -> Subject:
    product = repo.open(dataset_type, run=run, instrument=instrument)
    found = verifications(repo, run)
    latest = found[-1] if found else None
    return Subject(
        run=run,
        dataset_type=dataset_type,
        instrument=repo.instrument(product.attrs["instrument"]),
        product=product,
        verdict=None if latest is None else repo.open(latest.dataset_type, run=latest.run),
        verification="" if latest is None else latest.run,
        candidates=(run,),
        record=_record(repo, run, dataset_type),
        sign_offs=sign_offs(repo, run),
        certifications=certifications(repo, run),
        others=found,
        unusable=_unusable(repo, [run], dataset_type),
    )


def _of_verification(repo: Repo, run: str, dataset_type: str, instrument: str | None) -> Subject:
    verdict = repo.open(dataset_type, run=run, instrument=instrument)
    runs = _candidates(repo, verdict.attrs)
    return Subject(
        run=run,
        dataset_type=dataset_type,
        instrument=repo.instrument(verdict.attrs["instrument"]),
        product=_candidate(repo, verdict.attrs),
        verdict=verdict,
        verification=run,
        candidates=tuple(runs),
        record=_record(repo, run, dataset_type),
        sign_offs=[act for one in runs for act in sign_offs(repo, one)],
        certifications=[one for name in runs for one in certifications(repo, name)],
        others=[v for name in runs for v in verifications(repo, name)],
        unusable={d: r for t in verdict.attrs.get("candidate", ()) for d, r in _unusable(repo, runs, t).items()},
    )


def product_of(repo: Repo, run: str, dataset_type: str) -> xr.Dataset | None:
    """Open the calibration of a RUN, lazily, or the one that its verification tested; None if that is not one RUN."""
    if not repo.is_statistics(dataset_type):
        return repo.open(dataset_type, run=run)
    return _candidate(repo, repo.stats(dataset_type, run).attrs)


def _candidates(repo: Repo, attrs: Mapping[Any, Any]) -> list[str]:
    return repo.runs_of(attrs.get("candidate_ids", {}).values())


def _candidate(repo: Repo, attrs: Mapping[Any, Any]) -> xr.Dataset | None:
    runs = _candidates(repo, attrs)
    kinds = [name for name in attrs.get("candidate", ()) if runs and name in repo.types_in(runs[0])]
    return repo.open(kinds[0], run=runs[0]) if len(runs) == 1 and kinds else None


def _unusable(repo: Repo, runs: Sequence[str], dataset_type: str) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    parts: dict[str, list[int]] = {}
    for run in runs:
        if dataset_type in repo.types_in(run):
            for ref in repo.datasets(dataset_type, run):
                parts.setdefault(ref.uri, []).extend([] if ref.detector is None else [ref.detector])
    for uri, detectors in parts.items():
        found |= usable.unusable(uri, detectors)
    return found


def _record(repo: Repo, run: str, dataset_type: str) -> Mapping[str, Any]:
    """Provenance of the run: of its attempts for this type the last that ended well, or the last."""
    if "runRecord" not in repo.types_in(run):
        return {}
    found = [files.read_json(ref.uri) or {} for ref in repo.datasets("runRecord", run)]
    attempts: list[Mapping[str, Any]] = [
        attempt for record in found for attempt in record.get("attempts", ()) if attempt
    ]
    of_type = [a for a in attempts if a["recipe"]["product"] == dataset_type] or attempts
    done = [a for a in of_type if a["state"] == "done"]
    return (done or of_type or [{}])[-1]
