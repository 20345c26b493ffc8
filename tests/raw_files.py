"""A tiny writer of raw files, independent of the simulator: TinyCam headers, random pixels, astropy."""

import numpy as np
from astropy.io import fits

from camcal_dask.instruments import get_instrument

TINY = get_instrument("TinyCam")


def pixels(detector=0, seed=0, shape=None):
    """(n_amp, y, x) int32: a noisy bias with a bright column, a saturated pixel and one negative value."""
    amps = TINY.detectors[detector].amps
    shape = shape or (len(amps), amps[0].raw_height, amps[0].raw_width)
    values = np.random.default_rng(seed).normal(20_000, 6, shape).round().astype(np.int32)
    values[:, :, 7] += 900
    values[3, 5, 20:] = 262_143
    values[4, 0, 0] = -7
    return values


def primary(detector=0, seq_num=1, **changes):
    """Cards of a primary header; a change to None leaves the card undefined, to ... leaves it out."""
    raft, slot = TINY.detectors[detector].full_name.split("_")
    cards = {
        "INSTRUME": "TinyCam",
        "TELESCOP": "Simonyi Survey Telescope",
        "OBSID": f"TC_O_20260812_{seq_num:06d}",
        "CONTRLLR": "O",
        "DAYOBS": "20260812",
        "SEQNUM": seq_num,
        "GROUPID": f"2026-08-12T20:00:{seq_num % 60:02d}.000",
        "IMGTYPE": "BIAS",
        "REASON": "bias",
        "PROGRAM": "BLOCK-T1",
        "FILTER": "g_6",
        "EXPTIME": 0.0,
        "DARKTIME": 0.05,
        "TIMESYS": "TAI",
        "DATE-BEG": "2026-08-12T20:00:00.000",
        "DATE-END": "2026-08-12T20:00:00.050",
        "RAFTBAY": raft,
        "CCDSLOT": slot,
        "LSST_NUM": TINY.detectors[detector].serial,
        "CCD_MANU": TINY.detectors[detector].vendor,
        "RA": None,
    } | changes
    return {key: value for key, value in cards.items() if value is not ...}


def hdu_list(amps, *, detector=0, how="RICE_1", cards=None, reb=None, names=None):
    """All HDUs of a raw file; ``how`` is a compression type, "rice_tiles" (not whole rows) or "plain"."""
    first = fits.PrimaryHDU()
    for key, value in (cards or primary(detector)).items():
        first.header[key] = fits.card.UNDEFINED if value is None else value
    names = names or [amp.extname for amp in TINY.detectors[detector].amps]
    hdus = [first, *(_image(plane, name, how) for plane, name in zip(amps, names, strict=False))]
    table = fits.BinTableHDU(name="REB_COND")
    for key, value in (reb or {"CCDTEMP": -100.5, "HVBIAS": "ON", "BSSVBS": 50.0}).items():
        table.header[key] = value
    return fits.HDUList([*hdus, table])


def write_raw_file(path, amps, **options):
    """Write one raw file with `hdu_list`; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu_list(amps, **options).writeto(path)
    return path


def _image(plane, name, how):
    if how == "plain":
        return fits.ImageHDU(plane, name=name)
    if how == "rice_tiles":
        return fits.CompImageHDU(plane, name=name, compression_type="RICE_1", tile_shape=(5, 16))
    return fits.CompImageHDU(plane, name=name, compression_type=how, tile_shape=(1, plane.shape[1]))
