"""Who accepted a calibration, and on what evidence: small records beside the cubes of a RUN.

Every act (an approval, a certification) is one JSON file that nobody ever changes, so writers need no
lock and nothing is lost.  A calibration that was certified with the stock ``butler`` command has no such record, and
`certifications` says so.
"""

from __future__ import annotations

import getpass
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from camcal_dask.errors import RepoError
from camcal_dask.repo import files
from camcal_dask.repo.lookup import range_text
from camcal_dask.repo.registry import Moment, Repo
from camcal_dask.repo.shards import check_format, read_whole


@dataclass(frozen=True)
class Verification:
    """A verification that tested datasets of a RUN."""

    run: str
    dataset_type: str
    uuid: str
    uri: str
    passed: bool
    """Whether no blocking (required) test failed."""
    criteria_hash: str
    """Of the tests and their limits."""
    detectors: tuple[int, ...]
    """Ids of the detectors of the RUN that it tested."""


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
    """What the act rests on: run, uuid, passed, criteria_hash."""
    dataset_type: str = ""
    collection: str = ""
    begin: str = ""
    end: str = ""
    uuids: tuple[str, ...] = ()


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
    ours = {ref.uuid: ref.detector for ref in _products(repo, run)}
    found = []
    for dataset_type in filter(repo.is_statistics, repo.dataset_types()):
        for ref in repo.datasets(dataset_type, [c.name for c in repo.collections(kind="RUN")]):
            attrs = check_format(ref.uri, "dataset")
            tested = sorted(int(d) for d, name in attrs.get("candidate_ids", {}).items() if name in ours)
            if tested:
                passed = bool(read_whole(files.join(ref.uri, "run_success"), "the verdict"))
                found.append(
                    Verification(
                        ref.run, dataset_type, ref.uuid, ref.uri, passed, attrs["criteria_hash"], tuple(tested)
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
        Reason to accept although blocking tests failed, or without verification.

    Raises
    ------
    RepoError
        If the RUN was not verified or blocking tests failed, and there is no reason.
    """
    if not by.strip():
        raise RepoError(f"approve {run}: say who accepts it: --by NAME")
    found = verifications(repo, run)
    failed = [v.run for v in found if not v.passed]
    if not found and not override:
        raise RepoError(f"{run}: no verification tested it; run one, or accept it with --override REASON")
    if failed and not override:
        raise RepoError(
            f"{run}: blocking tests failed in {', '.join(failed)}; look at camcal report {repo.root} {run}, "
            "then accept it with --override REASON or make it anew"
        )
    return _write(repo, SignOff("approval", run, by.strip(), _now(), note, override, _evidence(found)))


def record_certification(
    repo: Repo, run: str, dataset_type: str, collection: str, span: tuple[Moment, Moment], uuids: Iterable[str], by: str
) -> SignOff:
    """Record who certified what, for when, and which verifications it rests on.

    Parameters
    ----------
    span : (begin, end)
        As given to `Repo.certify`.
    by : str
        Name of the person; ``""`` is the user of this process.
    """
    begin, end = ("" if moment is None else str(moment) for moment in span)
    act = SignOff(
        kind="certification",
        run=run,
        by=by.strip() or _user(),
        at=_now(),
        verifications=_evidence(verifications(repo, run)),
        dataset_type=dataset_type,
        collection=collection,
        begin=begin,
        end=end,
        uuids=tuple(uuids),
    )
    return _write(repo, act)


def sign_offs(repo: Repo, run: str) -> list[SignOff]:
    """All records of a RUN, oldest first."""
    folder = _folder(repo, run)
    found = [files.read_json(files.join(folder, name)) for name in files.names(folder) if name.endswith(".json")]
    return sorted((_read(one) for one in found if one), key=lambda act: act.at)


def _read(values: Mapping[str, Any]) -> SignOff:
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return SignOff(**fields)


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


def _products(repo: Repo, run: str) -> Sequence[Any]:
    return [ref for name in repo.types_in(run) if repo.is_calibration(name) for ref in repo.datasets(name, run)]


def _evidence(found: Iterable[Verification]) -> tuple[dict[str, Any], ...]:
    wanted = ("run", "dataset_type", "uuid", "passed", "criteria_hash")
    return tuple({name: getattr(v, name) for name in wanted} for v in found)


def _write(repo: Repo, act: SignOff) -> SignOff:
    name = f"{act.at.replace(':', '')}-{act.kind}-{uuid.uuid4().hex[:8]}.json"
    files.write_json(files.join(_folder(repo, act.run), name), asdict(act))
    return act


def _folder(repo: Repo, run: str) -> str:
    return files.join(repo.root, "cubes", run, "sign-off")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as in some containers
        return "unknown"
