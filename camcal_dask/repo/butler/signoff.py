"""Who accepted a calibration, and on what evidence: small records beside the cubes of a RUN.

Every act (an approval, a certification) is one JSON file that nobody ever changes, so writers need no
lock and nothing is lost.  A calibration that was certified with the stock ``butler`` command has no such record, and
`certifications` says so.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.certifying import Moment
from camcal_dask.repo.butler.lookup import CalibRef, range_text
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.storage import files, naming
from camcal_dask.repo.storage.shards import check_format, read_whole
from camcal_dask.repo.user import user_name


@dataclass(frozen=True)
class Verification:
    """A verification that tested datasets of a RUN."""

    run: str
    dataset_type: str
    uuid: str
    uri: str
    passed: bool
    """Whether no required test failed."""
    criteria_hash: str
    """Of the tests and their limits."""
    thresholds: Mapping[str, float]
    """Limits in force, by test."""
    uuids: tuple[str, ...]
    """Datasets of the RUN that it tested, as they are now."""
    detectors: tuple[int, ...]
    """Ids of their detectors."""


@dataclass(frozen=True)
class SignOff:
    """One act of a person.  Times are UTC, ISO; validity is TAI, ``""`` unbounded."""

    kind: Literal["approval", "certification"]
    run: str
    by: str
    at: str
    note: str = ""
    override: str = ""
    """Why failing or missing tests were accepted."""
    verifications: tuple[dict[str, Any], ...] = ()
    """What the act rests on: run, uuid, passed, criteria_hash, thresholds, detectors."""
    dataset_type: str = ""
    collection: str = ""
    begin: str = ""
    end: str = ""
    uuids: tuple[str, ...] = ()
    """Datasets that were accepted or certified."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """How they were made, by UUID: one that is made again in its RUN keeps its id, but not this."""


@dataclass(frozen=True)
class Certification:
    """Datasets of a RUN in a CALIBRATION collection with one validity range [TAI]."""

    collection: str
    dataset_type: str
    validity: str
    uuids: tuple[str, ...]
    sign_off: SignOff | None
    """None: certified without sign-off, by the stock command."""


def verifications(repo: Repo, run: str) -> list[Verification]:
    """Verifications whose candidates are datasets of a RUN, in order of their RUNs.

    Raises
    ------
    RepoError
        If there is no such RUN.
    """
    ours = {ref.uuid: ref for ref in _products(repo, run)}
    found = []
    for dataset_type in filter(repo.is_statistics, repo.dataset_types()):
        for ref in repo.datasets(dataset_type, [c.name for c in repo.collections(kind="RUN")]):
            attrs = check_format(ref.uri, "dataset")
            made, ids = attrs.get("candidate_provenance", {}), attrs.get("candidate_ids", {})
            tested = {d: u for d, u in ids.items() if u in ours and made.get(d) in (None, _provenance(ours[u]))}
            if tested:
                found.append(
                    Verification(
                        run=ref.run,
                        dataset_type=dataset_type,
                        uuid=ref.uuid,
                        uri=ref.uri,
                        passed=bool(read_whole(files.join(ref.uri, "run_success"), "the verdict")),
                        criteria_hash=attrs["criteria_hash"],
                        thresholds={c["id"]: c["threshold"] for c in json.loads(attrs.get("criteria", "[]"))},
                        uuids=tuple(tested.values()),
                        detectors=tuple(sorted(map(int, tested))),
                    )
                )
    return sorted(found, key=lambda v: v.run)


def approve(repo: Repo, run: str, by: str, note: str = "", *, override: str = "") -> SignOff:
    """Record that a person accepts the calibrations of a RUN.

    Parameters
    ----------
    repo : Repo
    run : str
        RUN that holds the calibrations (not the one of their verification).
    by : str
        Name of the person.
    note : str
        What was looked at, a ticket ...
    override : str
        Reason to accept although required tests failed, or detectors were not verified.

    Raises
    ------
    RepoError
        If detectors of the RUN were not verified or required tests failed, and there is no reason; if ``run`` is no
        RUN or holds no calibrations.
    """
    if not by.strip():
        raise RepoError(f"approve {run}: say who approves it: --by NAME")
    _check_run(repo, run)
    accepted, found = _products(repo, run), verifications(repo, run)
    if not accepted:
        raise RepoError(f"{run}: holds no calibrations; name the RUN of the calibration, not that of its verification")
    if (objections := _objections(accepted, found)) and not override.strip():
        raise RepoError(
            f"{run}: {'; '.join(objections)}; look at camcal report {repo.root} {run}, "
            "then verify what has not been verified, make it again, or accept it with --override REASON"
        )
    act = SignOff(
        kind="approval",
        run=run,
        by=by.strip(),
        at=_now(),
        note=note,
        override=override.strip(),
        verifications=_evidence(found),
        uuids=tuple(ref.uuid for ref in accepted),
        provenance={ref.uuid: _provenance(ref) for ref in accepted},
    )
    return _write(repo, act)


def _check_run(repo: Repo, run: str) -> None:
    found = next(iter(repo.collections(naming.check_collection(run))), None)
    if found is not None and found.kind != "RUN":
        inside = f": {', '.join(found.children)}" if found.children else ""
        raise RepoError(f"{run}: is a {found.kind} collection; RUNs are approved, one at a time{inside}")


def _objections(accepted: Sequence[CalibRef], found: Sequence[Verification]) -> list[str]:
    """Why some calibrations should not be accepted."""
    tested = {uuid for v in found for uuid in v.uuids}
    failed = [v.run for v in found if not v.passed]
    if not tested:
        return ["no verification tested it"]
    objections = [f"required tests failed in {', '.join(failed)}"] if failed else []
    untested: dict[str, list[str]] = {}
    for ref in accepted:
        if ref.uuid not in tested:
            untested.setdefault(ref.dataset_type, []).append(str(ref.detector))
    for kind, ids in untested.items():
        listed = ", ".join(ids[:10]) + (", ..." if len(ids) > 10 else "")
        objections.append(f"no verification tested {kind} of {len(ids)} of its detectors ({listed})")
    return objections


# ---------------------------------------------------------------------------- certification


def certify(
    repo: Repo,
    source: str,
    dataset_type: str,
    collection: str,
    begin: Moment = None,
    end: Moment = None,
    *,
    by: str = "",
    override: str = "",
    instrument: str | None = None,
) -> list[SignOff]:
    """Certify calibrations that were approved, and record who did it on which verifications.

    Parameters
    ----------
    repo : Repo
    source, dataset_type, collection, begin, end, instrument
        As of `Repo.certify`.
    by : str
        Name of the person; ``""`` is the user of this process.
    override : str
        Reason to certify what is not approved, or failed since.

    Returns
    -------
    list of SignOff
        One for each RUN of the datasets.

    Raises
    ------
    RepoError
        As `Repo.certify`, or if one of the RUNs is not approved as it is now, and there is no reason.
    """
    chosen: dict[str, list[str]] = {}
    for ref in repo.certifiable(source, dataset_type, instrument):
        chosen.setdefault(ref.run, []).append(str(ref.id))
    if not override.strip():
        for run, ids in chosen.items():
            if doubt := _doubt(repo, run, dataset_type, set(ids)):
                raise RepoError(f"{run}: {doubt}, or certify it with --override REASON")
    certified = set(repo.certify(source, dataset_type, collection, begin, end, instrument=instrument))
    return [
        record_certification(
            repo, run, dataset_type, collection, (begin, end), certified.intersection(ids), by, override=override
        )
        for run, ids in chosen.items()
    ]


def _doubt(repo: Repo, run: str, dataset_type: str, ids: set[str]) -> str | None:
    """Why datasets of a RUN may not be certified: not approved, or not as they are now, or failed since."""
    command = f"camcal approve {repo.root} {run} --by NAME --note TEXT"
    approvals = [act for act in sign_offs(repo, run) if act.kind == "approval"]
    if not approvals:
        return f"has not been approved: {command}"
    now = {ref.uuid: _provenance(ref) for ref in repo.datasets(dataset_type, run) if ref.uuid in ids}
    covering = [act for act in approvals if all(act.provenance.get(uuid) == made for uuid, made in now.items())]
    if not covering:
        return f"was made again, or got other detectors, after {approvals[-1].by} had approved it: {command}"
    known = {(v["uuid"], v["passed"]) for act in covering for v in act.verifications}
    failed = [v.run for v in verifications(repo, run) if not v.passed and (v.uuid, False) not in known]
    return f"required tests failed in {', '.join(failed)} after it was approved: {command}" if failed else None


def record_certification(
    repo: Repo,
    run: str,
    dataset_type: str,
    collection: str,
    span: tuple[Moment, Moment],
    uuids: Iterable[str],
    by: str,
    *,
    override: str = "",
) -> SignOff:
    """Record who certified what, for when, and which verifications it rests on; `certify` does it.

    Parameters
    ----------
    span : (begin, end)
        As given to `Repo.certify`.
    by : str
        Name of the person; ``""`` is the user of this process.
    override : str
        Why it was certified without approval.
    """
    begin, end = ("" if moment is None else str(moment) for moment in span)
    act = SignOff(
        kind="certification",
        run=run,
        by=by.strip() or user_name(),
        at=_now(),
        override=override.strip(),
        verifications=_evidence(verifications(repo, run)),
        dataset_type=dataset_type,
        collection=collection,
        begin=begin,
        end=end,
        uuids=tuple(sorted(uuids)),
    )
    return _write(repo, act)


def sign_offs(repo: Repo, run: str) -> list[SignOff]:
    """All records of a RUN, oldest first."""
    folder = _folder(repo, run)
    found = [files.read_json(files.join(folder, name)) for name in files.names(folder) if name.endswith(".json")]
    return sorted((_read(one) for one in found if one), key=lambda act: act.at)


def _read(values: Mapping[str, Any]) -> SignOff:
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    try:
        return SignOff(**fields)
    except TypeError as error:
        raise RepoError(f"a record of sign-off is damaged or of a later version ({error}): {dict(values)}") from None


def certifications(repo: Repo, run: str) -> list[Certification]:
    """Where datasets of a RUN are certified, with the record of it if there is one."""
    types = {ref.dataset_type for ref in _products(repo, run)}
    places = [c.name for c in repo.collections(kind="CALIBRATION")]
    acts = [act for act in sign_offs(repo, run) if act.kind == "certification"]
    found = []
    for dataset_type in sorted(types) if places else []:
        groups: dict[tuple[str, str], list[str]] = {}
        for one in repo.certified(dataset_type, places):
            if one.run == run:
                groups.setdefault((one.collection, range_text(one.begin, one.end)), []).append(one.uuid)
        for (collection, validity), uuids in sorted(groups.items()):
            act = next((a for a in acts[::-1] if a.collection == collection and set(uuids) <= set(a.uuids)), None)
            found.append(Certification(collection, dataset_type, validity, tuple(sorted(uuids)), act))
    return found


def _provenance(ref: CalibRef) -> str:
    """How a product was made; empty if it does not say."""
    return str(check_format(ref.uri, "product").get("provenance_id", ""))


def _products(repo: Repo, run: str) -> list[CalibRef]:
    return [ref for name in repo.types_in(run) if repo.is_calibration(name) for ref in repo.datasets(name, run)]


def _evidence(found: Iterable[Verification]) -> tuple[dict[str, Any], ...]:
    wanted = ("run", "dataset_type", "uuid", "passed", "criteria_hash", "thresholds")
    return tuple({name: getattr(v, name) for name in wanted} | {"detectors": list(v.detectors)} for v in found)


def _write(repo: Repo, act: SignOff) -> SignOff:
    name = f"{act.at.replace(':', '')}-{act.kind}-{uuid.uuid4().hex[:8]}.json"
    files.write_json(files.join(_folder(repo, act.run), name), asdict(act))
    return act


def _folder(repo: Repo, run: str) -> str:
    return naming.run_folder(repo.root, run, "sign-off")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
