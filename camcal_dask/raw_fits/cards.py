"""The cards of one raw header, read as the wanted type, or refused by name.

Cards that only describe an exposure never stop it: what cannot be read of them becomes unknown, with a remark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from camcal_dask.errors import DataError


class Cards:
    """A private copy of a header: typed look-up, and repairs that never reach the caller's header.

    A card without value (None) counts as absent everywhere (reference/raw_format.md 1.6).

    Parameters
    ----------
    header : Mapping[str, object]
        Keyword to value, primary header merged with ``REB_COND``.
    file : str
        Name of the file, for messages.

    Attributes
    ----------
    remarks : list of str
        What became unknown, and why.
    """

    __slots__ = ("_values", "file", "remarks")

    def __init__(self, header: Mapping[str, object], file: str = "") -> None:
        self._values = {key: value for key, value in header.items() if value is not None}
        self.file = file or "header"
        self.remarks: list[str] = []

    def __contains__(self, card: str) -> bool:
        return card in self._values

    def items(self) -> Iterator[tuple[str, object]]:
        """Defined cards."""
        return iter(self._values.items())

    def value(self, card: str) -> object | None:
        """Value as it stands, None if absent."""
        return self._values.get(card)

    def update(self, cards: Mapping[str, object]) -> None:
        """Overwrite cards; None makes a card undefined."""
        for name, value in cards.items():
            if value is None:
                self._values.pop(name, None)
            else:
                self._values[name] = value

    def drop(self, *names: str) -> None:
        """Make cards undefined."""
        for name in names:
            self._values.pop(name, None)

    def text(self, *names: str) -> str | None:
        """First of the cards that holds more than blanks, as stripped text."""
        for name in names:
            value = self._values.get(name)
            if value is not None and (stripped := str(value).strip()):
                return stripped
        return None

    def number(self, *names: str) -> float | None:
        """First defined of the cards, as a finite number.

        Raises
        ------
        DataError
            If the value is no finite number.
        """
        for name in names:
            value = self._values.get(name)
            if value is None or (isinstance(value, str) and not value.strip()):
                continue
            if isinstance(value, bool):
                raise self.error(name, "a number")
            try:
                number = float(value)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                raise self.error(name, "a number") from None
            if not math.isfinite(number):
                raise self.error(name, "a finite number")
            return number
        return None

    def described(self, *names: str) -> float | None:
        """First of the cards that holds a finite number; one that holds something else becomes undefined."""
        for name in names:
            try:
                number = self.number(name)
            except DataError:
                self.forget(name, "a finite number")
                continue
            if number is not None:
                return number
        return None

    def limited(self, name: str, length: int) -> str | None:
        """Text of a card that must fit a column of ``length`` characters; a longer one becomes undefined."""
        value = self.text(name)
        if value is not None and len(value) > length:
            self.forget(name, f"at most {length} characters")
            return None
        return value

    def forget(self, name: str, expected: str) -> None:
        """Make a descriptive card undefined, with a remark that says what it held."""
        held = repr(self._values[name])
        self.remarks.append(f"card {name} is {held[:70]}{'...' * (len(held) > 70)}, expected {expected}: unknown")
        self.drop(name)

    def integer(self, *names: str) -> int | None:
        """First defined of the cards, as a whole number.

        Raises
        ------
        DataError
            If the value is not whole.
        """
        for name in names:
            number = self.number(name)
            if number is not None:
                if number != int(number):
                    raise self.error(name, "a whole number")
                return int(number)
        return None

    def error(self, card: str, expected: str) -> DataError:
        """Build the error for a card whose value is wrong or missing."""
        found = repr(self._values[card]) if card in self._values else "missing"
        return DataError(
            f"{self.file}: card {card} is {found}, expected {expected}; "
            "correct the card (header_corrections.csv of the instrument) or leave the file out"
        )
