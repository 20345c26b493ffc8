"""A page for every detector and every raft."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camcal_dask.instruments import Detector
from camcal_dask.report.content.quantities import Quantity, usual_range
from camcal_dask.report.pages.failures import BadPlace
from camcal_dask.report.pages.markup import Markup, join, link, number, tag
from camcal_dask.report.pages.run_page import (
    Report,
    card,
    explorer,
    frame,
    places_table,
    section,
    shots,
    unusable_table,
)

_COLUMNS = 10
"""Quantities in the table of amps; all are in the maps."""


def detector_page(report: Report, position: int, charts: Sequence[Markup] = ()) -> str:
    """Return the page of one detector (``position`` in the report); ``charts`` are its curves."""
    detector = report.detectors[position]
    name = detector.full_name
    place = f"raft {detector.raft}, slot {detector.name_in_raft}"
    line = f"detector {detector.id} · {detector.vendor} {detector.serial} · {place}"
    pictures = report.detector_pictures.get(name, {})
    body = [
        tag("header", tag("div", tag("h1", name), tag("p", line, class_="sub")), _neighbours(report, position)),
        section("failures", "What failed here", *_failures_of(report, name)),
        section("amps", "Amplifiers", _amp_table(report, position)),
        section("images", "Images", shots(pictures, "../")) if pictures else None,
        section("curves", "Curves", *charts) if charts else None,
        section("map", "Maps", explorer(report)),
        section(
            "quantities", "Quantities", tag("div", *(card(q, trend=False) for q in report.quantities), class_="cards")
        ),
    ]
    return frame(report, name, body, root="../", detectors=[name])


def raft_page(report: Report, raft: str) -> str:
    """Return the page of one raft."""
    members = [d for d in report.detectors if d.raft == raft]
    names = [d.full_name for d in members]
    failing = []
    if report.found is not None:
        failing = [p for p in report.found.required if p.detector in names]
    body = [
        tag("header", tag("div", tag("h1", f"Raft {raft}"), tag("p", f"{len(members)} detectors", class_="sub"))),
        section("failures", "What failed here", _places(report, failing)),
        section("detectors", "Detectors", _raft_grid(report, members)),
        section("map", "Maps", explorer(report)),
        section(
            "quantities", "Quantities", tag("div", *(card(q, trend=False) for q in report.quantities), class_="cards")
        ),
    ]
    return frame(report, f"Raft {raft}", body, root="../", detectors=names)


def _places(report: Report, places: Sequence[BadPlace]) -> Markup:
    if not places:
        return tag("p", "No required test failed." if report.found is not None else "Not verified.")
    assert report.found is not None
    return places_table(places, report.found.n_good, root="../")


def _failures_of(report: Report, name: str) -> list[Markup]:
    found = report.found
    table = unusable_table(report, [d for d in report.detectors if d.full_name == name], root="../")
    unusable = [] if table is None else [table]
    if found is None:
        return [*unusable, _places(report, ())]
    parts = [*unusable, _places(report, [p for p in found.required if p.detector == name])]
    if found.exposures:
        count = "exposure is" if len(found.exposures) == 1 else "exposures are"
        words = f"{len(found.exposures)} {count} bad as a whole and not listed here: "
        parts.append(tag("p", words, link("first page", "..", "index.html", fragment="failures"), class_="small"))
    for title, places in (("Known-bad amps", found.known), ("Failed advisory tests", found.advisory)):
        chosen = [p for p in places if p.detector == name]
        if chosen:
            inner = places_table(chosen, found.n_good, root="../")
            parts.append(tag("details", tag("summary", f"{title} ({len(chosen)})"), inner))
    return parts


def _amp_table(report: Report, position: int) -> Markup:
    detector = report.detectors[position]
    chosen = _columns(report.quantities)
    same_vendor = [d.vendor == detector.vendor for d in report.detectors]
    limits = [usual_range(q.values[same_vendor]) for q in chosen]
    rows = []
    for amp in detector.amps:
        cells = [tag("td", tag("b", amp.name))]
        for quantity, (low, high) in zip(chosen, limits, strict=True):
            value = float(quantity.values[position, amp.index])
            outside = np.isfinite(value) and not low <= value <= high
            cells.append(tag("td", number(value), class_="num out" if outside else "num"))
        rows.append(tag("tr", *cells, id=amp.name))
    head = [tag("th", "amp")] + [
        tag("th", q.label, f" [{q.unit}]" if q.unit else "", title=q.doc, class_="num") for q in chosen
    ]
    words = f"In red: more than four sigma from the median of all {detector.vendor} amps."
    whole = tag("div", tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows)), class_="scroll")
    return join([whole, tag("p", words, class_="small")])


def _columns(quantities: Sequence[Quantity]) -> list[Quantity]:
    """The share of failures, then what belongs to the calibration, then statistics."""
    first = [q for q in quantities if q.key == "failing"]
    product = [q for q in quantities if q.group == "product"][:_COLUMNS]
    rest = [q for q in quantities if q.group == "statistics"]
    return (first + product[: _COLUMNS // 2 if rest else _COLUMNS] + rest)[:_COLUMNS]


def _raft_grid(report: Report, members: Sequence[Detector]) -> Markup:
    """Detectors as they sit in the raft, S20 S21 S22 on top."""
    cells = []
    for detector in sorted(members, key=lambda d: (-d.fp_y_mm, d.fp_x_mm)):
        name = detector.full_name
        first = next(iter(report.detector_pictures.get(name, {})), None)
        image = tag("img", src=f"../images/{first}", alt=name, loading="lazy") if first else None
        n = 0 if report.found is None else sum(p.detector == name for p in report.found.required)
        badge = tag("span", f"{n} failing", class_="badge fail") if n else ""
        cells.append(tag("a", image, name, " ", badge, href=f"../detectors/{name}.html"))
    return tag("div", *cells, class_="raft")


def _neighbours(report: Report, position: int) -> Markup:
    """Links to the raft and to the detectors before and after."""
    n = len(report.detectors)
    raft = report.detectors[position].raft
    links = [link(f"raft {raft}", "..", "rafts", f"{raft}.html")]
    for step, arrow in ((-1, "← {}"), (1, "{} →")):
        other = position + step
        if 0 <= other < n:
            name = report.detectors[other].full_name
            links.append(link(arrow.format(name), f"{name}.html"))
    return tag("p", *(join([one, " · " if one is not links[-1] else ""]) for one in links), class_="sub")
