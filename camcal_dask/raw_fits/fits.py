"""Raw FITS files: container, header, pixels (reference/raw_format.md 1.6 and 2).

A file is read from storage once, as bytes: its hash, header and pixels all come from them.
What is wrong with a file is said by name, as a :class:`~camcal_dask.errors.DataError`.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from camcal_dask.errors import DataError
from camcal_dask.instruments import Amp, Detector, Instrument, get_instrument
from camcal_dask.instruments.state import switched_off
from camcal_dask.kernels.arrays import Int32Array
from camcal_dask.raw_fits import checksums, contradictions, decode
from camcal_dask.raw_fits.cameras import CAMERAS
from camcal_dask.raw_fits.header import RawIdentity, check_sensor, translate
from camcal_dask.regular import check_regular

_GZIP = b"\x1f\x8b"
_NAMELESS = "COMPRESSED_IMAGE"  # what compressing an image without EXTNAME calls it
_NO_ELECTRONICS = "no REB_COND: nothing is known of the electronics, nor whether the sensor was switched on"
_COMMENTARY = ("", "COMMENT", "HISTORY", "CONTINUE", "END")


@dataclass(frozen=True, eq=False)
class RawFile:
    """One raw file: what it is and its pixels.

    ``amps`` is (n_amp, ny, nx) int32 [adu] in HDU order and readout coordinates, of the size on disk;
    ``header`` the merged cards (None: no value); ``content_hash`` the sha256 of the file;
    ``warnings`` what a person should know although the file is usable.
    """

    path: str
    identity: RawIdentity
    header: dict[str, object]
    amps: Int32Array
    content_hash: str
    warnings: tuple[str, ...] = ()


class Container:
    """The bytes of one file, unpacked step by step: hash, header, identity, pixels.

    Parameters
    ----------
    path : str or PathLike
        Plain or gzip-compressed FITS; told apart by content, not by name.
    stored : bytes, optional
        Content of the file, if it was fetched from elsewhere; ``path`` only names it then.
    accept_checksum : bool
        Make wrong checksums remarks instead of errors: for files that are known to carry those of other pixels.

    Raises
    ------
    DataError
        If the file cannot be read.  Every other fault is raised by the property that meets it.
    """

    def __init__(
        self, path: str | os.PathLike[str], stored: bytes | None = None, *, accept_checksum: bool = False
    ) -> None:
        self.path = os.fspath(path)
        self.accept_checksum = accept_checksum
        self._said: dict[str, None] = {}
        try:
            if stored is None:
                check_regular(path)
            self._stored = Path(path).read_bytes() if stored is None else stored
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    @functools.cached_property
    def content_hash(self) -> str:
        """sha256 of the file as stored, hexadecimal."""
        return hashlib.sha256(self._stored).hexdigest()

    @functools.cached_property
    def data(self) -> bytes:
        """The FITS file proper."""
        data = self._stored
        if data[:2] == _GZIP:
            try:
                data = gzip.decompress(data)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DataError(f"{self.path}: gzip container is damaged or truncated ({error})") from error
        if data[:6] != b"SIMPLE":
            what = f"begins with {data[:10]!r}" if data else "is empty"
            raise DataError(f"{self.path}: is not a FITS file: {what}, expected b'SIMPLE  ='")
        return data

    @functools.cached_property
    def hdus(self) -> fits.HDUList:
        """All HDUs, compressed images as the tables they are stored as."""
        with _named(self.path):
            return decode.open_hdus(self.data, tables=True, said=self._said)

    @functools.cached_property
    def images(self) -> fits.HDUList:
        """All HDUs, compressed images as images; for what our decoder does not handle."""
        return decode.open_hdus(self.data, tables=False)

    @functools.cached_property
    def header(self) -> dict[str, object]:
        """Primary header merged with that of ``REB_COND``, later values winning."""
        with _named(self.path):
            cards = _cards(self.hdus[0].header, self._said)
            for hdu in self.hdus[1:]:
                if hdu.name.upper() == "REB_COND":
                    cards |= _cards(hdu.header, self._said)
        return cards

    @functools.cached_property
    def identity(self) -> RawIdentity:
        """Exposure and detector, from the header."""
        return translate(self.header, file=self.path)

    @functools.cached_property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know of the header: unlikely cards, and what astropy said of the file's structure.

        Raises
        ------
        DataError
            If the header, or the file's name, contradicts itself on what the file is.
        """
        found = contradictions.check(self.header, self.identity.record, file=self.path)
        return (*self.identity.remarks, *found, *(f"astropy: {text}" for text in self._said))


def content_hash(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's bytes as stored, hexadecimal; the identity of its content."""
    return Container(path).content_hash


def read_header(path: str | os.PathLike[str]) -> dict[str, object]:
    """Read the header of a raw file: primary merged with ``REB_COND`` (reference/raw_format.md 1.6).

    Parameters
    ----------
    path : str or PathLike
        ``.fits``, ``.fits.fz`` or either gzip-compressed, told apart by content.

    Returns
    -------
    dict
        Keyword to bool, int, float or str; None for a card without (readable) value.

    Raises
    ------
    DataError
        If the file is not FITS, or damaged.
    """
    return dict(Container(path).header)


def read_raw(
    path: str | os.PathLike[str], instrument: Instrument | None = None, *, accept_checksum: bool = False
) -> RawFile:
    """Read a raw file and check it against the camera's tables.

    Parameters
    ----------
    path : str or PathLike
        The file.
    instrument : Instrument, optional
        The camera it must be of; default: whichever the header names.
    accept_checksum : bool
        Read a file although it does not match its checksums.

    Returns
    -------
    RawFile
        Identity, header, pixels (n_amp, ny, nx) int32 [adu].

    Raises
    ------
    DataError
        If the file is damaged, incomplete, of another camera or sensor, of a size that cannot be placed, or
        contradicts itself.
    """
    return unpack(Container(path, accept_checksum=accept_checksum), instrument)


def unpack(container: Container, instrument: Instrument | None = None) -> RawFile:
    """Decode and check the pixels of an opened file; see `read_raw`."""
    identity = container.identity
    found = identity.record.instrument
    if instrument is None:
        instrument = get_instrument(CAMERAS[found].tables)
    elif instrument.name != found:
        raise DataError(f"{container.path}: is a file of {found}, expected {instrument.name}")
    if identity.detector not in instrument.detectors:
        raise DataError(f"{container.path}: {instrument.name} has no detector {identity.detector}")
    detector = instrument.detectors[identity.detector]
    with _named(container.path):
        check_sensor(container.header, detector, file=container.path)
        remarks = [*container.remarks, *unknown_filter(identity, instrument)]
        remarks += _check_names(container, detector) + switched_off(container.header, instrument)
        remarks += _check_sections(container, detector, instrument) + _check_others(container, detector)
        amps, stale = _read_amps(container, detector, instrument.raw_shape[2:])
    return RawFile(container.path, identity, container.header, amps, container.content_hash, (*remarks, *stale))


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Say where astropy or the decoder met damage."""
    try:
        yield
    except decode.FAULTS as error:
        raise DataError(f"{where}: damaged: {error}") from error


# ---------------------------------------------------------------------------- header


def _cards(header: fits.Header, said: dict[str, None]) -> dict[str, object]:
    with decode.tolerant(said):
        return {card.keyword: _value(card) for card in header.cards if card.keyword not in _COMMENTARY}


def _value(card: fits.Card) -> object:
    """Value of a card as plain Python; None if it has none or none that can be read."""
    try:
        value = card.value
    except decode.FAULTS:
        return None
    if isinstance(value, fits.card.Undefined):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def unknown_filter(identity: RawIdentity, instrument: Instrument) -> list[str]:
    """Remark on a filter that the camera's table does not have; else nothing."""
    name = identity.record.physical_filter
    return [] if name in instrument.filters else [f"filter {name!r} is not in the tables of {instrument.name}"]


# ---------------------------------------------------------------------------- structure


def _check_names(container: Container, detector: Detector) -> list[str]:
    """Amps go by HDU position; their names must not contradict it.  Returns remarks."""
    names = [hdu.name.replace(_NAMELESS, "") for hdu in container.hdus[1 : len(detector.amps) + 1]]
    expected = [amp.extname for amp in detector.amps]
    upper = [name.upper() for name in names]
    wrong = [i for i, (a, b) in enumerate(zip(upper, expected, strict=False)) if a and a != b.upper()]
    where = f"{container.path}: detector {detector.name}"
    # No real wavefront file was at hand when the tables were made: their names only cause a remark.
    tolerated = detector.purpose == "WAVEFRONT" and len(names) == len(expected)
    if (wrong and not tolerated) or len(names) < len(expected):
        missing = [name for name in expected if name.upper() not in upper] if any(upper) else expected[len(names) :]
        if missing:
            raise DataError(
                f"{where}: {', '.join(missing)} missing: {len(expected) - len(missing)} of {len(expected)} amps "
                "are there; the file is truncated, or the detector was not read out completely"
            )
        at = wrong[0]
        raise DataError(f"{where}: HDU {at + 1} is {names[at]!r}, expected {expected[at]!r}: amps are out of order")
    behind = enumerate(container.hdus[len(expected) + 1 :], len(expected) + 1)
    if again := next((f"HDU {i} is {hdu.name!r} again" for i, hdu in behind if hdu.name.upper() in upper), None):
        raise DataError(f"{where}: {again}: it is not known which of them is the amp")
    remarks = [f"HDU {i + 1} is named {names[i]!r}, expected {expected[i]!r}" for i in wrong]
    if not all(names):
        remarks.append(f"{names.count('')} amp HDUs have no name; identified by their position")
    return remarks


def _check_sections(container: Container, detector: Detector, instrument: Instrument) -> list[str]:
    """Compare the sections of every amp with the tables.  Returns remarks."""
    found: dict[str, None] = {}
    for amp, hdu in zip(detector.amps, container.hdus[1:], strict=False):
        where = f"{container.path}: amp {amp.name} (HDU {amp.index + 1})"
        found |= dict.fromkeys(check_sensor(hdu.header, detector, file=where))
    known = {**container.hdus[1].header, **container.header}
    if not any(known.get(card) for card in ("CCD_MANU", "DATASEC", "DETSIZE")):
        found["no CCD_MANU, DATASEC or DETSIZE card says what sensor it is"] = None
    named = {hdu.name.upper() for hdu in container.hdus}
    real = container.identity.record.instrument == instrument.name  # not a simulation of the camera
    if real and instrument.settings.back_biased and "REB_COND" not in named:
        found[_NO_ELECTRONICS] = None
    return list(found)


def _check_others(container: Container, detector: Detector) -> list[str]:
    """Compare the HDUs that hold no amp with their checksums.  Returns remarks.

    A header that was edited without a new checksum is a remark, as is one that is accepted; a flipped bit is not.
    """
    remarks = []
    for index, hdu in enumerate(container.hdus):
        if 1 <= index <= len(detector.amps):
            continue
        faults = checksums.check_hdu(container.data, hdu)
        text = f"HDU {index} ({hdu.name or 'no name'})"
        if not container.accept_checksum and (faults.data or faults.flipped):
            what = faults.data or f"one bit of {faults.header}"
            raise DataError(f"{container.path}: {text}: {what}{_REMEDY}")
        remarks += [f"{text}: {fault}" for fault in (faults.data, faults.header) if fault]
    lacking = [str(index) for index, hdu in enumerate(container.hdus) if "CHECKSUM" not in hdu.header]
    if 0 < len(lacking) < len(container.hdus) / 2:
        remarks.append(f"no CHECKSUM in HDU {', '.join(lacking)}, although the others have one: damaged header?")
    end = container.hdus[-1].fileinfo()["datLoc"] + container.hdus[-1].fileinfo()["datSpan"]
    if end < len(container.data):
        remarks.append(
            f"{len(container.data) - end} bytes behind HDU {index} are not FITS, or the header of that HDU is damaged"
        )
    return remarks


# ---------------------------------------------------------------------------- pixels


def _read_amps(container: Container, detector: Detector, room: tuple[int, ...]) -> tuple[Int32Array, list[str]]:
    """Decode all amps of a detector: (n_amp, ny, nx) int32 [adu], and remarks."""
    shape = _amp_shape(container, detector, room)
    out = np.empty((len(detector.amps), *shape), dtype=np.int32)
    stale: dict[str, list[str]] = {}
    for plane, amp, hdu in zip(out, detector.amps, container.hdus[1:], strict=False):
        where = _place(container, detector, amp)
        end = hdu.fileinfo()["datLoc"] + hdu.size
        if end > len(container.data):
            raise DataError(f"{where}: file is truncated: needs {end} bytes, has {len(container.data)}")
        with _named(where):
            for card in _read_amp(container, amp, hdu, plane, where):
                stale.setdefault(card, []).append(amp.name)
    n_amps = len(detector.amps)
    why = "accepted" if container.accept_checksum else "but ZDATASUM vouches for the pixels"
    return out, [
        f"{card} does not match, {why}: {'all amps' if len(names) == n_amps else ', '.join(names)}"
        for card, names in stale.items()
    ]


def _read_amp(container: Container, amp: Amp, hdu: Any, out: Int32Array, where: str) -> list[str]:
    """Decode one amp into ``out``; returns the cards that it does not match although they are accepted.

    The header of an amp says how its pixels are stored, so it counts as they do, unless ``ZDATASUM`` vouches for them.
    """
    faults = checksums.check_hdu(container.data, hdu)
    copied = checksums.is_copy(hdu.header)
    _refuse(container, where, None if copied else faults.data)
    decode.check_descriptors(container.data, hdu)
    if not decode.decode_tiles(container.data, hdu, out):
        images = container.images
        with decode.tolerant():
            decode.decode_any(images[amp.index + 1], out)
    confirmed = checksums.pixels_match(out, hdu.header)
    _refuse(container, where, "its pixels do not have the sum ZDATASUM" if confirmed is False else None)
    _refuse(container, where, None if confirmed else faults.header)
    wrong = {
        "DATASUM": faults.data and not (copied and confirmed),
        "ZDATASUM": confirmed is False,
        "CHECKSUM": faults.header,
    }
    return [card for card, fault in wrong.items() if fault]


_REMEDY = "; damaged, get a good copy (if its checksums are known to be of other content: --accept-checksum)"


def _refuse(container: Container, where: str, fault: str | None) -> None:
    if fault and not container.accept_checksum:
        raise DataError(f"{where}: {fault}{_REMEDY}")


def _amp_shape(container: Container, detector: Detector, room: tuple[int, ...]) -> tuple[int, int]:
    """(ny, nx) that all amps share; data and prescan boxes stay as in the tables, overscans reach to the edges.

    An image that lacks the data box, or is larger than the cube, cannot be placed (reference/raw_format.md 2.3).
    """
    hdus = container.hdus[1 : len(detector.amps) + 1]
    shapes = [decode.image_shape(hdu) for hdu in hdus]
    first, kind = shapes[0], decode.pixel_type(hdus[0])
    for amp, hdu, shape in zip(detector.amps, hdus, shapes, strict=True):
        where = _place(container, detector, amp)
        if shape is None or first is None:
            raise DataError(f"{where}: holds no two-dimensional image")
        if shape != first:
            raise DataError(f"{where}: is {_size(shape)} pixels, {detector.amps[0].extname} is {_size(first)}")
        if decode.pixel_type(hdu) != kind:
            names = "BITPIX, BZERO, BSCALE"
            first_name = detector.amps[0].extname
            raise DataError(f"{where}: {names} are {decode.pixel_type(hdu)}, those of {first_name} are {kind}; damaged")
        try:
            amp.fitted(shape[1], shape[0])
        except DataError as error:
            raise DataError(f"{container.path}: detector {detector.name}, {error}") from None
        if shape[0] > room[0] or shape[1] > room[1]:
            raise DataError(f"{where}: is {_size(shape)} pixels, larger than the camera's {_size(room)}")
    assert first is not None
    return first


def _place(container: Container, detector: Detector, amp: Amp) -> str:
    return f"{container.path}: detector {detector.name}, amp {amp.name} (HDU {amp.index + 1})"


def _size(shape: Any) -> str:
    """Width x height, as people say it."""
    return f"{shape[1]} x {shape[0]}"
