"""Camera state: exposures that are combined must have been read out in the same way.

reference/raw_format.md 1.12 and construction.md 19.  Upstream only warns; a mixed input is an
error here, because a product of two readout states fits neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from camcal_dask.errors import DataError
from camcal_dask.exchange.header import values_of_cards
from camcal_dask.ingest.fits import switched_off
from camcal_dask.instruments import Instrument


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
    for keyword, values in values_of_cards(headers, keywords).items():
        if len(values) == 1:
            state[keyword] = next(iter(values))
        elif strict:
            raise DataError(f"{what}: {_account(keyword, values)}")
    return state


def check_powered(headers: Mapping[int, Mapping[str, Any] | None], instrument: Instrument, *, what: str) -> None:
    """Refuse exposures of a sensor without back-side bias (reference/isr.md step 0b); missing cards say nothing.

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


def _account(keyword: str, values: Mapping[Any, Sequence[int]]) -> str:
    parts = [f"{value!r} in {len(ids)} (first {min(ids)})" for value, ids in values.items()]
    return (
        f"the exposures were read out in different camera states: {keyword} is {', '.join(parts)}. "
        "Select one state with -d, or combine them all the same with -c mixed_state=true"
    )
