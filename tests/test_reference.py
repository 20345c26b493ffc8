"""Citations of the reference resolve: the page is shipped, and the section stands there under its number.

A citation reads ``reference/<page>.md 2.2, 2.5-2.7 and 3 step 1``.  What a number may be:

- a heading (``2.2``, ``Appendix A``), the first cell of a table row (``3.16``, ``Q28``), a bold mark (``**Q29**``);
- an item of the numbered list of a section without subsections (``7.3``: section 7, item 3);
- ``2.2 step 1``: an item of a list, or a row of a table, inside section 2.2.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs" / "reference").glob("*.md"))}
SOURCES = sorted(
    path
    for folder in ("camcal_dask", "tests", "benchmarks", "pipelines", "cluster", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".yaml", ".md"} and path != Path(__file__)
)
CODE = [path for path in SOURCES if path.suffix != ".md"]
BRACKETS = {"isr_decisions.md": "isr", "ptc.md": "ptc_linearity", "linearity.md": "ptc_linearity"}
"""Pages of the documentation whose numbers in brackets, as [2.1], are sections of one page of the reference."""

SECTION = r"(?:\d+(?:\.\d+)*|Appendix [A-Z]|Q\d+)(?: step \w+)?"
LIST = rf"{SECTION}(?:(?:, | and | to |-){SECTION})*"
NAME = r"[a-z]\w*"


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Yield (page, section) of every citation in a text; a range yields its ends and what lies between."""
    text = re.sub(r"\s*\n\s*#?\s*", " ", text)  # a citation may be wrapped
    for page, sections in re.findall(rf"reference/({NAME})\.md`?(?:,? sections? |,? )?({LIST})?", text):
        yield page, ""
        for part in re.split(r", | and ", sections) if sections else ():
            ends = re.split(r"-| to ", part)
            yield from ((page, section) for section in (between(*ends) if len(ends) == 2 else ends))


def between(first: str, last: str) -> list[str]:
    """All sections from 2.3 to 2.6, or from 6 to 8; of any other range its ends."""
    (head, _, start), (other, _, end) = first.rpartition("."), last.rpartition(".")
    if head != other or not (start.isdigit() and end.isdigit()):
        return [first, last]
    return [f"{head}.{n}".lstrip(".") for n in range(int(start), int(end) + 1)]


@functools.cache
def headings(text: str) -> dict[str, str]:
    """Return the text under each numbered heading, up to the next heading that is no part of it."""
    starts = list(
        re.finditer(
            r"^(#+) (?:(\d+(?:\.\d+)*)\.?(?= )|(Appendix [A-Z]))?",
            re.sub(r"`{3}.*?`{3}", blank, text, flags=re.S),
            re.M,
        )
    )
    found = {}
    for i, start in enumerate(starts):
        number = start[2] or start[3]
        later = (s.start() for s in starts[i + 1 :] if len(s[1]) <= len(start[1]))
        if number:
            found[number] = text[start.end() : next(later, len(text))]
    return found


def blank(match: re.Match[str]) -> str:
    """Hide a block of code, whose comments look like headings, and keep the length."""
    return "." * len(match[0])


@functools.cache
def items(text: str) -> set[str]:
    """Numbers of list items and first cells of tables."""
    return set(re.findall(r"^\s*(\d+)\. ", text, re.M)) | set(re.findall(r"^\s*\| (\w[\w.]*) \|", text, re.M))


@functools.cache
def resolves(section: str, text: str) -> bool:
    """Whether a page has the section."""
    under = headings(text)
    number, _, step = section.partition(" step ")
    if step:
        return number in under and step in items(under[number])
    if number in under or re.search(rf"^\s*\| {re.escape(number)} \||\*\*{re.escape(number)}\*\*", text, re.M):
        return True
    head, _, item = number.rpartition(".")
    flat = head in under and not any(other.startswith(f"{head}.") for other in under)
    return flat and item in items(under[head])


def missing(text: str, pages: dict[str, str]) -> list[str]:
    """Citations of a text that lead nowhere."""
    return [
        f"reference/{page}.md {section}".strip()
        for page, section in citations(text)
        if page not in pages or (section and not resolves(section, pages[page]))
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_citations_resolve(path):
    """Every section that is cited exists."""
    assert not missing(path.read_text(), PAGES)


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_citations_have_one_form(path):
    """``reference/isr.md 2.2``: no bare page, no "section", so that a search finds all of them."""
    text = re.sub(r"docs/\w+\.md|\w+\.md\"|reference/\w+\.md(?! sections? )", "", path.read_text())
    assert not [name for name in re.findall(rf"({NAME})\.md", text) if name in PAGES and name != "README"]


@pytest.mark.parametrize(("name", "page"), BRACKETS.items())
def test_numbers_in_brackets_resolve(name, page):
    """Of pages that follow one page of the reference."""
    text = re.sub(r"`{3}.*?`{3}|`[^`]*`", "", (ROOT / "docs" / name).read_text(), flags=re.S)
    numbers = re.findall(r"\[(\d[\d., ]*)\](?!\()", text)
    cited = {number for group in numbers for number in re.split(r", ", group)}
    assert cited
    assert not [number for number in sorted(cited) if not resolves(number, PAGES[page])]


@pytest.mark.parametrize("name", PAGES)
def test_pages_cite_each_other_correctly(name):
    """``page.md §5, 6`` and ``page.md 5.3`` inside the reference."""
    own = re.findall(rf"`?({NAME})\.md`? §?({LIST})", PAGES[name])
    assert not missing("\n\n".join(f"reference/{page}.md {sections}." for page, sections in own), PAGES)


@pytest.mark.parametrize("path", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_of_the_documentation_resolve(path):
    """Those to files of the repository."""
    text = re.sub(r"`{3}.*?`{3}|`[^`]*`", "", path.read_text(), flags=re.S)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert not [link for link in links if re.search(r"\.\w+$|/$", link) and not (path.parent / link).exists()]


PAGE = """# Made up
## 1. Order
| # | step |
|---|---|
| 0b | check |
### 1.1 Region
1. cut
2. mask
## 2. Checks
1. first
2. second
```
# 9 no heading
```
| 3.16 | row |
| Q7 | quirk |
## Appendix A. Numbers
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(reference/a.md 1.1)", ["1.1"]),
        ("reference/a.md sections 6 to 8.", ["6", "7", "8"]),
        ("reference/a.md 3-5; more 9", ["3", "4", "5"]),
        ("reference/a.md 2.13-2.15, 3 and 4).", ["2.13", "2.14", "2.15", "3", "4"]),
        ("reference/a.md section 10, 12", ["10", "12"]),
        ("`docs/reference/a.md`, section 5 step 2", ["5 step 2"]),
        ("reference/a.md 5 and Appendix A;", ["5", "Appendix A"]),
        ("reference/a.md 1 step 0b); else", ["1 step 0b"]),
        ("reference/a.md 12 and Q28.  The", ["12", "Q28"]),
        ("reference/a.md 1.12 and\n    # reference/a.md 19.", ["1.12", "19"]),
        ("reference/a.md\n# 4.2", ["4.2"]),
        ("reference/a.md is a page", []),
    ],
)
def test_parser_reads_every_form(text, expected):
    """Lists, ranges, steps, appendices, wrapped lines."""
    assert [section for page, section in citations(text) if section] == expected
    assert {page for page, _ in citations(text)} == {"a"}


@pytest.mark.parametrize("section", ["1", "1.1", "1-2", "2.2", "1 step 0b", "1.1 step 2", "3.16", "Q7", "Appendix A"])
def test_a_section_that_exists_is_found(section):
    """Headings, items, rows."""
    assert missing(f"reference/a.md {section}", {"a": PAGE}) == []


@pytest.mark.parametrize("section", ["3", "1.2", "2.3", "1 step 0c", "1.1 step 3", "3.17", "Q8", "Appendix B", "9"])
def test_a_missing_section_is_named(section):
    """So that the test above can fail."""
    assert missing(f"see reference/a.md {section}.", {"a": PAGE}) == [f"reference/a.md {section}"]


def test_a_missing_section_inside_a_range_and_a_missing_page_are_named():
    """Only what is missing."""
    assert missing("reference/a.md 1-3, reference/b.md 1", {"a": PAGE}) == [
        "reference/a.md 3",
        "reference/b.md",
        "reference/b.md 1",
    ]
