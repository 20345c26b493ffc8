"""Camera state as headers tell it: exposures that are combined must have been read out in the same way.

reference/raw_format.md 1.12 and reference/construction.md 19.  Upstream only warns; a mixed input is an
error here, because a product of two readout states fits neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Instrument

MIN_BACK_BIAS_V = 5.0
"""Back-side voltage `BSSVBS` [V] below which a sensor is off (reference/raw_format.md 1.12)."""


def common_state(
    headers: Mapping[int, Mapping[str, Any] | None], keywords: Sequence[str], *, what: str, strict: bool = True
) -> dict[str, Any]:
    """Return the state cards that all exposures share.

    Parameters
    ----------
    headers : mapping
        Header of each exposure id; None where there is none.
    keywords : sequence of str
        Cards to compare.  One absent from an exposure is not compared there.
    what : str
        Product and detector, for the message.
    strict : bool
        Refuse exposures that differ; otherwise leave the differing cards out.

    Raises
    ------
    DataError
        If exposures differ in a card, naming the card, its values and the exposures of each.
    """
    state: dict[str, Any] = {}
    for keyword in keywords:
        values: dict[Any, list[int]] = {}
        for exposure, header in headers.items():
            value = (header or {}).get(keyword)
            if value is not None:
                values.setdefault(value, []).append(exposure)
        if len(values) == 1:
            state[keyword] = next(iter(values))
        elif values and strict:
            raise DataError(f"{what}: {_account(keyword, values)}")
    return state


def check_powered(headers: Mapping[int, Mapping[str, Any] | None], instrument: Instrument, *, what: str) -> None:
    """Refuse exposures of a sensor without back-side bias (reference/isr.md 1 step 0b); missing cards say nothing.

    Raises
    ------
    DataError
        Naming the exposures and what their headers say.
    """
    off = {
        exposure: remark for exposure, header in headers.items() for remark in switched_off(header or {}, instrument)
    }
    if off:
        exposure, remark = next(iter(off.items()))
        raise DataError(
            f"{what}: in {len(off)} of {len(headers)} exposures (first {exposure}) the {remark}; "
            "leave them out with -d, or the detector, or combine them all the same with -c check_powered=false"
        )


def switched_off(header: Mapping[str, object], instrument: Instrument) -> list[str]:
    """Remark on a sensor that was switched off: its file looks valid (reference/raw_format.md 6.21); else nothing."""
    if not instrument.settings.back_biased:
        return []
    state, volts = header.get("HVBIAS"), header.get("BSSVBS")
    off = isinstance(state, str) and state.strip().upper() == "OFF"
    low = isinstance(volts, int | float) and volts < MIN_BACK_BIAS_V
    if not (off or low):
        return []
    return [f"sensor was switched off: HVBIAS is {state!r}, BSSVBS is {volts!r} V (at least {MIN_BACK_BIAS_V:g} V)"]


def _account(keyword: str, values: Mapping[Any, Sequence[int]]) -> str:
    parts = [f"{value!r} in {len(ids)} (first {min(ids)})" for value, ids in values.items()]
    return (
        f"the exposures were read out in different camera states: {keyword} is {', '.join(parts)}. "
        "Select one state with -d, or combine them all the same with -c mixed_state=true"
    )
