"""The tables put real spot images together as the observatory does, to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from camcal_dask.instruments import Detector, get_instrument


def assemble(amps: list[np.ndarray], detector: Detector) -> np.ndarray:
    """Trimmed CCD image by the rule of reference/raw_format.md 2.5: cut, flip, place."""
    ccd = np.full((detector.height_pix, detector.width_pix), -1, dtype=np.float32)
    for amp, raw in zip(detector.amps, amps, strict=True):
        cut = raw[amp.data.y, amp.data.x]
        cut = cut[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        height, width = cut.shape
        ccd[amp.iy * height : (amp.iy + 1) * height, amp.ix * width : (amp.ix + 1) * width] = cut
    return ccd


@pytest.mark.slow
@pytest.mark.parametrize(("stem", "detector", "total"), [("e2v", "R22_S11", 1788683), ("itl", "R02_S02", 372899)])
def test_spot_images(shared_data: Path, stem: str, detector: str, total: int) -> None:
    model = get_instrument("LSSTCam").detector(detector)
    folder = shared_data / "raw" / "LSSTCam"
    with fits.open(folder / f"{stem}_spot.fits.gz") as hdus:
        assert [hdu.name.lower() for hdu in hdus[1:17]] == [amp.extname.lower() for amp in model.amps]
        amps = [hdus[amp.hdu].data for amp in model.amps]
    with fits.open(folder / f"{stem}_expected_assembled.fits.gz") as hdus:
        expected = hdus[0].data
    found = assemble(amps, model)
    assert found.shape == expected.shape
    assert int(np.abs(found - expected).sum()) == 0
    assert int(found.sum(dtype=np.float64)) == total


@pytest.mark.parametrize(("stem", "other"), [("e2v", "R01_S00"), ("itl", "R22_S11")])
def test_header_sections_agree_with_the_model_in_x(shared_data: Path, stem: str, other: str) -> None:
    """A reversed first DETSEC range is flip_x; the other vendor's table must not fit (hazard 14)."""
    camera = get_instrument("LSSTCam")
    right = camera.detector("R22_S11" if stem == "e2v" else "R02_S02")

    def agreements(detector: Detector) -> int:
        count = 0
        with fits.open(shared_data / "raw" / "LSSTCam" / f"{stem}_spot.fits.gz") as hdus:
            for amp in detector.amps:
                first, last = (int(x) for x in hdus[amp.hdu].header["DETSEC"].strip("[]").split(",")[0].split(":"))
                count += (first > last) == amp.flip_x
        return count

    assert agreements(right) == 16
    assert agreements(camera.detector(other)) == 8
