"""The little that is understood of a Butler ``where`` expression: its terms and the names in it."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"'[^']*'|[()]|\b\w+\b|\s+|.", re.DOTALL)


def terms(where: str) -> list[str]:
    """Split at the outermost ``AND``s; quotes and parentheses are respected, ``(a AND b) AND c`` is three."""
    parts = _split(where)
    if len(parts) == 1 and (inner := _unwrapped(parts[0])) is not None:
        return terms(inner)
    return [term for part in parts for term in (terms(part) if _unwrapped(part) is not None else [part])]


def _unwrapped(term: str) -> str | None:
    """Inside of a term that is one pair of parentheses around ``AND``s; None for any other."""
    if not (term.startswith("(") and term.endswith(")")):
        return None
    inner = term[1:-1]
    depth = 0
    for token in _TOKEN.findall(inner):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0:
            return None
    return inner if len(_split(inner)) > 1 else None


def _split(where: str) -> list[str]:
    found, current, depth = [], "", 0
    for token in _TOKEN.findall(where):
        depth += {"(": 1, ")": -1}.get(token, 0)
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
