"""HTML made of calls: everything is escaped but what these calls made."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


_VOID = frozenset({"img", "meta", "link", "br"})


def tag(name: str, /, *content: Any, **attributes: Any) -> Markup:
    """Make an element.

    Parameters
    ----------
    name : str
    content : str, Markup, numbers, None or iterables of them
        Escaped unless it is `Markup`.
    attributes
        ``class_`` is ``class``, other ``_`` become ``-``; None leaves the attribute out, True gives no value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        parts.append(label if value is True else f'{label}="{html.escape(str(value), quote=True)}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(content)}</{name}>")


def join(content: Iterable[Any]) -> Markup:
    """Concatenate content, escaped unless it is `Markup`."""
    return Markup("".join(_text(item) for item in content))


def _text(item: Any) -> str:
    if item is None:
        return ""
    if isinstance(item, Markup):
        return item
    if isinstance(item, (list, tuple)) or hasattr(item, "__next__"):
        return join(item)
    return html.escape(str(item), quote=True)


def link(text: Any, *path: str, fragment: str = "", **attributes: Any) -> Markup:
    """Link to a file of the report, each part of its path quoted."""
    target = "/".join(part if part == ".." else quote(part, safe="") for part in path)
    return tag("a", text, href=target + (f"#{quote(fragment, safe='')}" if fragment else ""), **attributes)


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], **attributes: Any) -> Markup:
    """Make a table; a cell that is `Markup` of a ``td`` or ``th`` is taken as it is."""
    body = (tag("tr", *(_cell("td", c) for c in row)) for row in rows)
    header = tag("thead", tag("tr", *(_cell("th", h) for h in head)))
    return tag("div", tag("table", header, tag("tbody", *body), **attributes), class_="scroll")


def _cell(kind: str, content: Any) -> Markup:
    return content if isinstance(content, Markup) and content.startswith(f"<{kind}") else tag(kind, content)


def number(value: float) -> str:
    """Four significant digits, all of those before the point; an en dash for an unknown value."""
    if value != value:  # noqa: PLR0124 (NaN)
        return "–"
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
