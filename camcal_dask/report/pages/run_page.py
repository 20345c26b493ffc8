"""The frame of every page, and the parts that several pages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from camcal_dask.instruments import Detector
from camcal_dask.repo.cubes import usable
from camcal_dask.report.content.layout import Layout
from camcal_dask.report.content.quantities import Quantity
from camcal_dask.report.content.subject import Subject
from camcal_dask.report.pages.failures import BadPlace, Found, Worst
from camcal_dask.report.pages.markup import Markup, join, link, number, table, tag

GROUPS = {
    "tests": "Tests",
    "product": "The calibration",
    "statistics": "Statistics of the corrected exposures",
    "references": "References the tests compare with",
}
"""Headings of the groups of quantities, in the order of the page; the first two are open."""
_FIRST_ROWS, _MOST_ROWS = 12, 200
"""Failing amps shown at once, and at all."""


@dataclass(frozen=True)
class Report:
    """Everything that the pages are made of."""

    subject: Subject
    detectors: Sequence[Detector]
    layout: Layout
    quantities: Sequence[Quantity]
    found: Found | None
    pictures: dict[str, str] = field(default_factory=dict)
    """Mosaics: caption by file name."""
    detector_pictures: dict[str, dict[str, str]] = field(default_factory=dict)
    """Captions by file name, of every detector."""

    @property
    def rafts(self) -> list[str]:
        """Names of the rafts, sorted."""
        return sorted({d.raft for d in self.detectors})


def frame(
    report: Report, title: str, body: Iterable[Markup | None], *, root: str = "", detectors: Sequence[str] = ()
) -> str:
    """Return a whole page; ``root`` leads to the folder of the report, ``detectors`` are the ones drawn."""
    subject = report.subject
    home = link(tag("strong", subject.run), *([".."] if root else []), "index.html")
    absent = {"matrix"} if not subject.judged else set()
    absent |= set() if report.pictures else {"images"}
    sections = [] if root else [link(t, "", fragment=f) for f, t in _SECTIONS if f not in absent]
    bar = tag("nav", tag("div", home, *sections), class_="bar")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} · {subject.run}"),
        tag("link", rel="stylesheet", href=f"{root}assets/report.css"),
    )
    scripts = [tag("script", src=f"{root}{name}") for name in ("data.js", "assets/report.js")]
    footer = tag("footer", f"camcal_dask · {subject.dataset_type} of {subject.instrument.name} · {subject.run}")
    noscript = tag("noscript", tag("p", "Maps and charts of this page are drawn by JavaScript, which is switched off."))
    shown = " ".join(detectors) or None
    page = tag("body", bar, tag("main", *body, noscript, footer), *scripts, data_detectors=shown)
    return "<!doctype html>\n" + tag("html", head, page, lang="en", data_root=root)


_SECTIONS = (
    ("failures", "Failures"),
    ("map", "Focal plane"),
    ("rafts", "Rafts"),
    ("matrix", "Tests × detectors"),
    ("quantities", "Quantities"),
    ("images", "Images"),
    ("provenance", "Provenance"),
)


def section(identity: str, title: str, *content: object) -> Markup:
    """Return a section with a heading."""
    return tag("section", tag("h2", title), *content, id=identity)


def card(quantity: Quantity, *, trend: bool = True) -> Markup:
    """Return one quantity: map, histogram by vendor and, if measured in several exposures, its course."""
    drawn = [tag("canvas", class_="map", aria_label=f"focal-plane map of {quantity.label}")]
    drawn.append(tag("canvas", class_="hist", aria_label=f"histogram of {quantity.label} by vendor"))
    if trend and quantity.series is not None and len(quantity.series) > 1:
        drawn.append(tag("canvas", class_="trend", aria_label=f"{quantity.label} by exposure"))
    caption = tag("figcaption", tag("b", quantity.label, title=quantity.doc or None), tag("span", quantity.unit))
    return tag("figure", caption, *drawn, tag("p", class_="note"), class_="card", data_q=quantity.key)


def cards(report: Report) -> list[Markup]:
    """Return all quantities, group by group; what is looked at less often is folded away."""
    parts = []
    for group, title in GROUPS.items():
        chosen = [q for q in report.quantities if q.group == group]
        if not chosen:
            continue
        inner = tag("div", *(card(q) for q in chosen), class_="cards")
        if group in ("statistics", "references"):
            parts.append(tag("details", tag("summary", f"{title} ({len(chosen)})"), inner, open=group == "statistics"))
        else:
            parts.append(join([tag("h3", title), inner]))
    return parts


def explorer(report: Report) -> Markup:
    """Return the large map with the choice of a quantity."""
    options = []
    for group, title in GROUPS.items():
        chosen = [q for q in report.quantities if q.group == group]
        if chosen:
            options.append(tag("optgroup", *(tag("option", q.label, value=q.key) for q in chosen), label=title))
    side = tag(
        "aside",
        tag("select", *options, aria_label="quantity"),
        tag("p", class_="about small"),
        tag("canvas", class_="hist"),
        tag("p", class_="note"),
        legend(report),
        tag("p", "Point at an amplifier for its value; click it for the page of its detector.", class_="small"),
    )
    return tag("div", tag("canvas", class_="map", aria_label="focal plane"), side, class_="explorer")


def legend(report: Report) -> Markup:
    """Return the colours of the vendors."""
    vendors = sorted({d.vendor for d in report.detectors})
    marks = [
        tag("span", tag("i", style=f"background:var(--vendor-{k % 3})"), vendor) for k, vendor in enumerate(vendors)
    ]
    return tag("div", *marks, tag("span", tag("i", style="background:var(--none)"), "no value"), class_="legend")


def places_table(places: Sequence[BadPlace], n_good: int, *, root: str = "") -> Markup:
    """Return a table of failing amps; each leads to the page that shows it."""
    parts = [_places(places[:_FIRST_ROWS], n_good, root)]
    if rest := places[_FIRST_ROWS:_MOST_ROWS]:
        parts.append(tag("details", tag("summary", f"{len(rest)} more amps"), _places(rest, n_good, root)))
    if len(places) > _MOST_ROWS:
        words = f"{len(places) - _MOST_ROWS} more are in the table below and on the pages of their detectors."
        parts.append(tag("p", words, class_="small"))
    return join(parts)


def _places(places: Sequence[BadPlace], n_good: int, root: str) -> Markup:
    rows = []
    for place in places:
        count = "all" if place.always else f"{place.n_exposure} of {n_good}"
        rows.append((_target(place, root), count, *worst_cells(place.worst)))
    numbers = (tag("th", text, class_="num") for text in ("worst value", "limit"))
    return table(("amp", "exposures", "test", *numbers, "others that fail"), rows)


def _target(place: BadPlace, root: str) -> Markup | str:
    if not place.detector:
        return "all detectors"
    up = [".."] if root else []
    text = f"{place.detector} {place.amp}".strip()
    return link(text, *up, "detectors", f"{place.detector}.html", fragment=place.amp)


def worst_cells(worst: Sequence[Worst]) -> tuple[Markup, ...]:
    """Return the cells of the worst test and the names of the others."""
    if not worst:
        return (tag("td"),) * 4
    first, *others = worst
    return (
        tag("td", first.name, title=first.test),
        tag("td", number(first.value), class_="num"),
        tag("td", number(first.limit), class_="num"),
        tag("td", ", ".join(w.name for w in others), class_="small"),
    )


def unusable_table(report: Report, detectors: Sequence[Detector], *, root: str = "") -> Markup | None:
    """Return a table of the amps that the calibration is no use for, with the reasons; None without any."""
    rows = [
        (link(f"{d.full_name} {amp}", *([".."] if root else []), "detectors", f"{d.full_name}.html", fragment=amp), why)
        for d in detectors
        for amp, why in report.subject.unusable.get(d.id, {}).items()
    ]
    if not rows:
        return None
    words = f"{usable.counted(len(rows))} that the calibration is no use for"
    return join([tag("h3", words), table(("amp", "reason"), rows)])


def shots(pictures: dict[str, str], root: str = "") -> Markup:
    """Return pictures with captions."""
    figures = (
        tag(
            "figure",
            tag("a", tag("img", src=f"{root}images/{name}", alt=caption, loading="lazy"), href=f"{root}images/{name}"),
            tag("figcaption", caption),
        )
        for name, caption in pictures.items()
    )
    return tag("div", *figures, class_="shots")
