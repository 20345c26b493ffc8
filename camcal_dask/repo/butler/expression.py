"""The few parts of a Butler ``where`` expression that are parsed here: its terms and the names in it."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"'[^']*'|[()]|\b\w+\b|\s+|.", re.DOTALL)


def terms(where: str) -> list[str]:
    """Split at the outermost ``AND``s, unless there is an ``OR`` among them.

    Quotes and parentheses are respected; ``(a AND b) AND c`` is three terms.
    """
    parts = _split(where)
    if parts is None:
        return [where.strip()]
    return [term for part in parts for term in _opened(part)]


def _opened(part: str) -> list[str]:
    """Terms inside of a part that is one pair of parentheses around ``AND``s; any other part itself."""
    if part.startswith("(") and part.endswith(")"):
        inner = _split(part[1:-1])
        if inner is not None and len(inner) > 1:
            return [term for piece in inner for term in _opened(piece)]
    return [part]


def _split(where: str) -> list[str] | None:
    """Parts between the outermost ``AND``s; None if an ``OR`` or unbalanced parentheses stand there."""
    found, current, depth = [], "", 0
    for token in _TOKEN.findall(where):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0 or (depth == 0 and token.upper() == "OR"):
            return None
        if token.upper() == "AND" and depth == 0:
            found.append(current.strip())
            current = ""
        else:
            current += token
    return [term for term in [*found, current.strip()] if term]


def mentions(where: str, name: str) -> bool:
    """Whether a dimension is named (``detector``, ``detector.purpose``), outside of quotes."""
    outside = re.sub(r"'[^']*'", "''", where)
    return re.search(rf"(?<![\w.]){re.escape(name)}\b", outside) is not None


def instrument_of(where: str) -> str | None:
    """Return the instrument of a term ``instrument='NAME'``, if there is one."""
    match = re.search(r"(?<![\w.])instrument\s*=\s*'([^']+)'", where)
    return match.group(1) if match else None
