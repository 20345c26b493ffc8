"""The first page: verdict, failures, maps, matrices, images, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from camcal_dask.report.content.subject import Subject
from camcal_dask.report.pages.failures import BadExposure, Found
from camcal_dask.report.pages.markup import Markup, join, link, number, table, tag
from camcal_dask.report.pages.run_page import (
    Report,
    cards,
    explorer,
    frame,
    legend,
    places_table,
    section,
    shots,
    unusable_table,
)


def index_page(report: Report) -> str:
    """Return the page."""
    subject = report.subject
    body = [
        _header(report),
        _tiles(report),
        section("failures", "What failed", unusable_table(report, report.detectors), *_failures(report.found, subject)),
        section("map", "Focal plane", explorer(report)),
        section("rafts", "Rafts and detectors", *_rafts(report)),
        _matrix_section(report),
        section("quantities", "Every quantity", legend(report), *cards(report)),
        section("images", "Images", shots(report.pictures)) if report.pictures else None,
        section("provenance", "Sign-off and provenance", *_sign_off(subject), *_provenance(subject)),
    ]
    return frame(report, subject.dataset_type, body)


def verdict_badge(subject: Subject) -> Markup:
    """Return the verdict in two words."""
    if subject.verdict is None or not subject.judged:
        return tag("span", "Not verified" if subject.verdict is None else "Not judged", class_="verdict open")
    if bool(subject.verdict["run_success"]):
        return tag("span", "✓ Passed", class_="verdict pass")
    return tag("span", "✗ Failed", class_="verdict fail")


def _header(report: Report) -> Markup:
    subject, verdict = report.subject, report.subject.verdict
    line = f"{subject.dataset_type} of {subject.instrument.name} · {_count(len(report.detectors), 'detector')}"
    if verdict is not None:
        exposures = verdict["exposure"].values
        line += f" · {_count(len(exposures), 'exposure')} ({exposures[0]} – {exposures[-1]})"
    words = [tag("p", line, class_="sub")]
    if verdict is not None and subject.verification != subject.run:
        words.append(tag("p", "judged by ", tag("code", subject.verification), class_="sub"))
    elif subject.candidates and subject.candidates != (subject.run,):
        words.append(tag("p", "candidate ", tag("code", ", ".join(subject.candidates)), class_="sub"))
    if verdict is not None and "not_measured" in verdict.attrs:
        words.append(tag("p", f"not measured: {verdict.attrs['not_measured']}", class_="sub"))
    return tag("header", tag("div", tag("h1", subject.run), *words), tag("div", verdict_badge(subject)))


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _tiles(report: Report) -> Markup:
    subject, verdict, found = report.subject, report.subject.verdict, report.found
    tiles = []
    if verdict is not None and found is not None:
        n_amp = verdict.sizes["detector"] * verdict.sizes["amp"]
        tiles += [
            _tile(len(found.exposures), f"bad of {verdict.sizes['exposure']} exposures", hot=bool(found.exposures)),
            _tile(len(found.required), f"amps that fail a required test, of {n_amp}", hot=bool(found.required)),
            _tile(sum(p.always for p in found.required), "of them in every good exposure"),
            _tile(len(found.advisory), "amps that fail an advisory test"),
            _tile(verdict.attrs.get("policy_rubin", "–"), "automatic rule as today"),
            _tile(verdict.attrs.get("policy_majority", "–"), "stricter rule: majority"),
        ]
    tiles.append(_tile(_state(subject), "state"))
    return tag("div", *tiles, class_="tiles")


def _tile(value: Any, text: str, *, hot: bool = False) -> Markup:
    return tag("div", tag("b", value), tag("span", text), class_="tile hot" if hot else "tile")


def _state(subject: Subject) -> str:
    if subject.certifications:
        return "certified" if all(c.sign_off for c in subject.certifications) else "certified, no sign-off"
    if any(act.kind == "approval" for act in subject.sign_offs):
        return "approved"
    return "verified" if subject.verdict is not None else "made"


def _of_exposure(exposure: BadExposure) -> str:
    first = " (first of its set)" if exposure.first_in_set else ""
    return first if exposure.counts else f"{first}: shown, the verdict does not rest on it"


def _failures(found: Found | None, subject: Subject) -> list[Markup]:
    if found is None:
        words = "No verification tested this calibration: run one, and this page shows its verdict."
        return [tag("p", words)]
    parts: list[Markup] = []
    if found.exposures:
        rows = [
            (
                tag("td", tag("code", e.exposure), _of_exposure(e)),
                tag("td", e.n_amp, class_="num"),
                tag("td", "; ".join(f"{w.name} {number(w.value)} (limit {number(w.limit)})" for w in e.worst)),
            )
            for e in found.exposures
        ]
        parts += [
            tag("h3", "Bad exposures: more than half of the amps fail, or first of their set"),
            table(("exposure", "amps", "worst"), rows),
        ]
    if found.required:
        title = "Failed required tests in the other exposures" if found.exposures else "Failed required tests"
        parts += [tag("h3", title), places_table(found.required, found.n_good)]
    if not parts:
        parts.append(tag("p", "No required test failed."))
    if found.known:
        title = f"Known-bad amps that fail as known ({len(found.known)})"
        parts.append(tag("details", tag("summary", title), places_table(found.known, found.n_good)))
    if found.advisory:
        title = f"Failed advisory tests ({len(found.advisory)} amps)"
        parts.append(tag("details", tag("summary", title), places_table(found.advisory, found.n_good)))
    if len(found.table):
        parts.append(tag("p", "Every failure as a table: ", link("failures.csv", "failures.csv"), class_="small"))
    return parts


def _rafts(report: Report) -> list[Markup]:
    """Links to all pages, with what failed there."""
    failing = [p.detector for p in report.found.required] if report.found is not None else []
    rafts = [_chip(raft, "rafts", sum(name.startswith(f"{raft}_") for name in failing)) for raft in report.rafts]
    detectors = [_chip(d.full_name, "detectors", failing.count(d.full_name)) for d in report.detectors]
    folded = tag("details", tag("summary", _count(len(detectors), "detector")), tag("div", *detectors, class_="chips"))
    return [tag("div", *rafts, class_="chips"), folded]


def _chip(name: str, folder: str, n: int) -> Markup:
    badge = tag("span", n, class_="badge fail", title="amps that fail a required test") if n else ""
    return link(join([name, " ", badge]), folder, f"{name}.html")


def _matrix_section(report: Report) -> Markup | None:
    if not report.subject.judged:
        return None
    explained = (
        "Green: passed everywhere; red: share of amp images that failed; blank: not evaluated. Required tests are "
        "in bold ink. Click a cell for the page of its detector."
    )
    return section(
        "matrix",
        "Tests × detectors",
        tag("p", explained, class_="small"),
        _matrix("tests", "% failed", 100),
        tag("h3", "Exposures × detectors"),
        tag("p", "Amps that fail a required test.", class_="small"),
        _matrix("exposures", "amps", 16),
    )


def _matrix(name: str, unit: str, limit: int) -> Markup:
    return tag("div", tag("canvas", data_matrix=name, data_unit=unit, data_limit=limit), class_="matrix panel")


# ---------------------------------------------------------------------------- sign-off and provenance


def _sign_off(subject: Subject) -> list[Markup]:
    rows = []
    for act in subject.sign_offs:
        note = "; ".join(part for part in (act.note, act.override and f"override: {act.override}") if part)
        basis = ", ".join(f"{v['run']} ({'passed' if v['passed'] else 'failed'})" for v in act.verifications)
        what = act.kind if act.kind == "approval" else f"certified {act.dataset_type} in {act.collection}"
        rows.append((act.at[:19].replace("T", " "), act.by, what, basis or "no verification", note))
    parts = [table(("when (UTC)", "who", "what", "rests on", "note"), rows)] if rows else []
    for one in subject.certifications:
        badge = tag("span", "signed off", class_="badge pass")
        if one.sign_off is None:
            badge = tag("span", "certified without sign-off", class_="badge open")
        words = f"{len(one.uuids)} {one.dataset_type} in {one.collection}, valid {one.validity} "
        parts.append(tag("p", words, badge))
    return parts or [tag("p", "Neither approved nor certified yet.", class_="small")]


def _provenance(subject: Subject) -> list[Markup]:
    record, verdict = subject.record, subject.verdict
    if not record:
        return [tag("p", "No record of the run was found.", class_="small")]
    versions = ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items())
    entries: list[tuple[str, Any]] = [
        ("command", tag("code", " ".join(map(str, record.get("command", ()))))),
        ("overrides", tag("code", " ".join(_overrides(record)) or "none")),
        ("selection", tag("code", record.get("where", ""))),
        ("searched", ", ".join(record.get("inputs", ()))),
        ("exposures", _exposures(record.get("exposures", ()))),
        ("calibrations", _calibs(record.get("calibs", {}))),
        ("quanta", _quanta(record)),
        ("when, where", f"{record.get('started', '')} – {record.get('ended', '')} by {record.get('user', '')} "
                        f"on {record.get('host', '')} ({record.get('cluster', '')})"),
        ("versions", versions),
        ("provenance id", tag("code", record.get("provenance_id", ""))),
    ]  # fmt: skip
    if verdict is not None:
        entries.append(("hash of the tests", tag("code", verdict.attrs.get("criteria_hash", ""))))
    recipe = json.dumps(record.get("recipe", {}), indent=2, sort_keys=True)
    return [
        tag("h3", "Provenance"),
        tag("div", tag("dl", *(join([tag("dt", k), tag("dd", v)]) for k, v in entries)), class_="panel"),
        tag("details", tag("summary", "Complete recipe"), tag("pre", recipe)),
    ]


def _overrides(record: Mapping[str, Any]) -> list[str]:
    """Settings given on the command line."""
    words = [str(w) for w in record.get("command", ())]
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-c", "--config")]


def _exposures(exposures: Any) -> str:
    ids = list(exposures)
    listed = ", ".join(map(str, ids)) if len(ids) <= 8 else f"{ids[0]} … {ids[-1]}"
    return f"{len(ids)}: {listed}" if ids else "none"


def _calibs(calibs: Mapping[str, Mapping[str, str]]) -> Markup | str:
    parts = [
        join([name, " ", tag("code", next(iter(ids.values()))), f" and {len(ids) - 1} more" if len(ids) > 1 else ""])
        for name, ids in calibs.items()
        if ids
    ]
    return join(join([p, "; "]) for p in parts[:-1]) + parts[-1] if parts else "none"


def _quanta(record: Mapping[str, Any]) -> str:
    text = ", ".join(f"{n} {status}" for status, n in record.get("counts", {}).items() if n)
    lost = "; ".join(f"{q['quantum']}: {q['reason']}" for q in record.get("failed", ()))
    return f"{text}{f' ({lost})' if lost else ''}" or "none"
