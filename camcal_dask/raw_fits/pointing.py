"""Where the telescope pointed: tracked position, altitude and azimuth, sky angle (reference/raw_format.md 1.8)."""

from __future__ import annotations

import functools
import math

from camcal_dask.raw_fits.cards import Cards

_NOT_TRACKED = ("bias", "flat")
_NOT_ON_SKY = ("bias", "dark", "flat")
_PLACEHOLDER_ELEVATION = 45.0
_ZENITH_OVERSHOOT = 1.0
_GEOCENTRIC = ("OBSGEO-X", "OBSGEO-Y", "OBSGEO-Z")
_OBSERVATORY = (-70.749417, -30.244639, 2663.0)
"""Cerro Pachon: east longitude [deg], latitude [deg], height [m]; used when the header has no position."""


def tracking(cards: Cards, kind: str, begin: int | None, *, tracked_systems: tuple[str, ...]) -> tuple[float, float]:
    """Tracked position at the begin of an exposure on the mountain.

    Parameters
    ----------
    cards : Cards
        Repaired header.
    kind : str
        Observation type; bias and flat have no position.
    begin : int or None
        TAI ns since 1970, for headers in which only azimuth and elevation are true.
    tracked_systems : tuple of str
        Values of ``TRACKSYS`` that mean that a position was tracked.

    Returns
    -------
    (float, float)
        ICRS right ascension and declination [deg]; NaN where there is none.
    """
    system = cards.value("TRACKSYS")
    if kind in _NOT_TRACKED or (system is not None and str(system).strip().upper() not in tracked_systems):
        return math.nan, math.nan
    date = cards.text("DATE-OBS")
    if date is not None and date == cards.text("DATE"):
        # The begin was replaced by the write time, so RA and DEC (derived from it on site) are wrong.
        azimuth, elevation = azel(cards)
        return _from_azel(azimuth, elevation, _site(cards), begin)
    frame = (cards.text("RADESYS") or "ICRS").lower()
    for names in (("RASTART", "DECSTART"), ("RA", "DEC")):
        ra, dec = (cards.described(name) for name in names)
        if ra is not None and dec is not None:
            if not -90.0 <= dec <= 90.0:
                cards.forget(names[1], "a declination in degrees")
                return math.nan, math.nan
            return (ra, dec) if frame == "icrs" else _to_icrs(cards, ra, dec, frame)
    return math.nan, math.nan


def azel(cards: Cards) -> tuple[float, float]:
    """Azimuth in [0, 360) and elevation at the begin [deg], NaN if the header does not have them."""
    azimuth, elevation = cards.described("AZSTART"), cards.described("ELSTART")
    if azimuth is None or elevation is None:
        return math.nan, math.nan
    if not -90.0 <= elevation <= 90.0 + _ZENITH_OVERSHOOT:
        cards.forget("ELSTART", "an elevation in degrees")
        return math.nan, math.nan
    return azimuth % 360.0, min(elevation, 90.0)


def azel_of_simulation(cards: Cards, kind: str) -> tuple[float, float]:
    """Azimuth and elevation [deg] of LSSTComCamSim: placeholders where the header has a position only."""
    azimuth, elevation = azel(cards)
    if not math.isnan(azimuth) or "RA" not in cards or "DEC" not in cards:
        return azimuth, elevation
    if kind in _NOT_ON_SKY or (cards.text("TRACKSYS") or "").lower() == "local":
        return 0.0, _PLACEHOLDER_ELEVATION
    airmass = cards.described("AMSTART")
    if airmass is None or airmass < 1.0:
        return math.nan, math.nan
    return 0.0, math.degrees(math.asin(1.0 / airmass))


def sky_angle(cards: Cards, kind: str) -> float | None:
    """Position angle of the rotator on the sky [deg], for exposures on the sky only."""
    if kind in _NOT_ON_SKY or (cards.text("ROTCOORD") or "").lower() != "sky":
        return None
    return cards.described("ROTPA", "ROTANGLE")


def _site(cards: Cards) -> tuple[float, float, float] | None:
    """Geocentric position of the telescope [m], None if the header does not say."""
    x, y, z = (cards.described(name) for name in _GEOCENTRIC)
    return None if x is None or y is None or z is None else (x, y, z)


def _to_icrs(cards: Cards, ra: float, dec: float, frame: str) -> tuple[float, float]:
    try:
        return _icrs(ra, dec, frame)
    except ValueError:
        cards.forget("RADESYS", "a celestial frame such as ICRS, FK5 or FK4")
        return math.nan, math.nan


@functools.lru_cache(maxsize=1024)
def _icrs(ra: float, dec: float, frame: str) -> tuple[float, float]:
    """Convert a position in ``frame`` to ICRS [deg]; cached because 189 files share one position."""
    from astropy.coordinates import SkyCoord

    icrs = SkyCoord(ra, dec, unit="deg", frame=frame).icrs
    return float(icrs.ra.deg), float(icrs.dec.deg)


@functools.lru_cache(maxsize=1024)
def _from_azel(
    azimuth: float, elevation: float, site: tuple[float, float, float] | None, begin: int | None
) -> tuple[float, float]:
    """ICRS position of a horizontal one [deg], without refraction; NaN if anything is unknown."""
    if begin is None or math.isnan(azimuth):
        return math.nan, math.nan
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers

    if site is None:
        location = EarthLocation.from_geodetic(*_OBSERVATORY)
    else:
        location = EarthLocation.from_geocentric(*site, unit="m")
    seconds, nanoseconds = divmod(begin, 1_000_000_000)
    time = Time(
        40_587.0 + seconds // 86_400, (seconds % 86_400 + nanoseconds * 1e-9) / 86_400.0, format="mjd", scale="tai"
    )
    # The tables shipped with astropy reach to the present; a worker must not wait for the network.
    with iers.conf.set_temp("auto_download", False):
        frame = AltAz(obstime=time, location=location)
        icrs = SkyCoord(az=azimuth, alt=elevation, unit="deg", frame=frame).icrs
    return float(icrs.ra.deg), float(icrs.dec.deg)
