"""Which camera wrote a header, and how its headers are read (reference/raw_format.md 1.4, 1.6).

What differs between cameras is a row of ``CAMERAS``; the rules themselves are in ``fields``,
``pointing`` and ``repairs``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from camcal_dask.errors import DataError
from camcal_dask.raw_fits import repairs
from camcal_dask.raw_fits.cards import Cards
from camcal_dask.raw_fits.times import iso_to_nsec

_RUBIN_TELESCOPES = ("Simonyi Survey Telescope", "LSST")


@dataclass(frozen=True)
class Camera:
    """How the headers of one camera are read.

    ``tables`` names the folder of tables (simulations use those of the real camera).  Exposures
    begun after ``mountain`` [TAI ns since 1970] are on the mountain (None: all); days begin at noon
    from ``noon`` (year, month) on (None: always), at midnight of the laboratory's clock before.
    """

    name: str
    tables: str
    repair: Callable[[Cards], None]
    mountain: int | None = None
    noon: tuple[int, int] | None = None
    latiss: bool = False
    simulator: bool = False


CAMERAS = {
    camera.name: camera
    for camera in (
        # The two large cameras' dates are UTC: 37 s earlier in TAI.
        Camera("LSSTCam", "LSSTCam", repairs.repair_lsstcam, iso_to_nsec("2025-03-01T00:00:37"), (2024, 5)),
        Camera("LSSTComCam", "LSSTComCam", repairs.repair_comcam, iso_to_nsec("2024-08-24T00:00:37"), (2020, 3)),
        Camera("LATISS", "LATISS", repairs.repair_latiss, iso_to_nsec("2020-01-01"), latiss=True),
        Camera("LSSTCamSim", "LSSTCam", repairs.repair_none, simulator=True),
        Camera("LSSTComCamSim", "LSSTComCam", repairs.repair_comcamsim, simulator=True),
        Camera("TinyCam", "TinyCam", repairs.repair_none),
    )
}


def choose(cards: Cards) -> Camera:
    """Return the camera that accepts a header.

    Raises
    ------
    DataError
        If none does.
    """
    name = cards.text("INSTRUME") or ""
    lower, rubin = name.lower(), cards.text("TELESCOP") in _RUBIN_TELESCOPES
    if name in ("LATISS", "LSST_ATISS") or cards.text("DETNAME") == "RXX_S00":
        return CAMERAS["LATISS"]
    if lower == "lsstcam":
        return CAMERAS["LSSTCam"]
    if lower == "tinycam":
        return CAMERAS["TinyCam"]
    if (lower == "comcam" and rubin) or (lower == "lsst_camera" and cards.text("TELCODE") == "CC"):
        return CAMERAS["LSSTComCam"]
    if lower in ("lsstcamsim", "comcamsim") and rubin:
        return CAMERAS["LSSTCamSim" if lower == "lsstcamsim" else "LSSTComCamSim"]
    raise DataError(
        f"{cards.file}: INSTRUME {name!r} at TELESCOP {cards.text('TELESCOP')!r} is no camera known here; "
        f"known: {', '.join(CAMERAS)}"
    )
