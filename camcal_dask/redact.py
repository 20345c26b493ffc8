"""Remove secrets from what is recorded or printed: passwords in addresses, tokens in options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

SECRET = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|CREDENTIAL|ACCESS_?KEY|API_?KEY|PRIVATE_?KEY|AUTHORIZATION|SIGNATURE|COOKIE",
    re.IGNORECASE,
)
"""Names whose values are nobody's business."""
_HIDDEN = "***"
_NAME = rf"[\w.-]*(?:{SECRET.pattern})[\w.-]*".replace("_?", "[_-]?")
_IN_TEXT = (
    (re.compile(r"(\bbearer\s+)\S+", re.IGNORECASE), rf"\1{_HIDDEN}"),
    (re.compile(r"://[^\s/?#]*:[^\s/?#]*@"), f"://{_HIDDEN}@"),
    (re.compile(r"://[^\s/:@\[]+:(?!\d+(?:/|\s|$))[^\s@]*@"), f"://{_HIDDEN}@"),  # a slash in the password
    (re.compile(r"(https?://)[^\s/?#@]+@", re.IGNORECASE), rf"\1{_HIDDEN}@"),  # a name alone is a token there
    (re.compile(r"([?&]sig=)[^\s&#]+", re.IGNORECASE), rf"\1{_HIDDEN}"),  # signed addresses of Azure
    (re.compile(rf"(--{_NAME}\s+)(?!-)(\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE), rf"\1{_HIDDEN}"),
    (re.compile(rf"({_NAME}[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s&,;]+)", re.IGNORECASE), rf"\1{_HIDDEN}"),
)


def redacted(text: str) -> str:
    """Text with ``***`` for ``user:password`` of addresses and for the values of names such as ``token``.

    It rather hides too much than too little.
    """
    for pattern, put in _IN_TEXT:
        text = pattern.sub(put, text)
    return text


def redacted_command(words: Sequence[str]) -> list[str]:
    """Command line without secrets; also where option and value are two words."""
    shown: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        hide = before.startswith("-") and "=" not in before and SECRET.search(before.replace("-", "_"))
        shown.append(_HIDDEN if hide and not word.startswith("-") else redacted(word))
    return shown


def redacted_values(value: Any, name: str = "") -> Any:
    """Nested settings without secrets: those of secret names, and those inside texts."""
    if isinstance(value, Mapping):
        return {key: redacted_values(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(inner, name) for inner in value]
    if not isinstance(value, str):
        return value
    return _HIDDEN if SECRET.search(name.replace("-", "_")) else redacted(value)
