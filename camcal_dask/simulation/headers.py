"""Headers of a simulated raw as the summit's camera writes them (reference/raw_format.md 1, 2).

Everything follows from (camera, detector, exposure, configuration), the file's date included: the same
exposure simulated twice gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from astropy.io import fits

from camcal_dask.errors import ConfigError, nearest
from camcal_dask.instruments.geometry import Amp, Detector, Instrument
from camcal_dask.simulation.config import SimulationConfig
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.streams import stream

Card = tuple[str, object, str]

_INSTRUME = {"LSSTCam": "lsstCam", "LSSTComCam": "ComCam"}
_DEFAULT_FILTERS = ("r_57", "r_03", "SDSSr_65mm~empty")
_MJD_EPOCH = datetime(1858, 11, 17)  # noqa: DTZ001  TAI, no zone

_SEQUENCER = {
    "E2V": ("FP_E2V_2s_l3cp_v30.seq", "3192434567"),
    "ITL": ("FP_ITL_2s_l3cp_v30.seq", "1781310301"),
}

_REB_VOLTAGES: dict[str, tuple[Card, ...]] = {
    "E2V": (
        ("GDP", 26.0, "REB config bias GD (requested)"),
        ("RDP", 11.6, "REB config bias RD (requested)"),
        ("OGP", -3.4, "REB config bias OG (requested)"),
        ("ODP", 23.4, "REB config bias OD (requested)"),
        ("CSGATEP", 1.0, "REB config bias CS gate (requested)"),
        ("PCK_LOWP", -6.0, "REB DAC PCLK Low (requested)"),
        ("PCK_HIP", 3.3, "REB DAC PCLK High (requested)"),
        ("BSSVBS", 50.0, "REB PS HV Bias Voltage before Switch"),
    ),
    "ITL": (
        ("GDP", 20.0, "REB config bias GD (requested)"),
        ("RDP", 13.0, "REB config bias RD (requested)"),
        ("OGP", -2.0, "REB config bias OG (requested)"),
        ("ODP", 26.9, "REB config bias OD (requested)"),
        ("CSGATEP", 1.0, "REB config bias CS gate (requested)"),
        ("PCK_LOWP", -8.0, "REB DAC PCLK Low (requested)"),
        ("PCK_HIP", 2.0, "REB DAC PCLK High (requested)"),
        ("BSSVBS", 50.0, "REB PS HV Bias Voltage before Switch"),
    ),
}


def obs_id(instrument: Instrument, exposure: ExposureSpec, config: SimulationConfig) -> str:
    """``MC_O_20260812_000001``."""
    return f"{instrument.settings.prefix}_{config.controller}_{exposure.day_obs}_{exposure.seq_num:06d}"


def bay_and_slot(detector: Detector) -> tuple[str, str]:
    """Raft bay and CCD slot as files name them (LATISS: R00, S00)."""
    raft, slot = detector.full_name.split("_")
    return raft.replace("RXX", "R00"), slot


def file_name(instrument: Instrument, detector: Detector, exposure: ExposureSpec, config: SimulationConfig) -> str:
    """``MC_O_20260812_000001_R22_S11.fits``."""
    return "_".join([obs_id(instrument, exposure, config), *bay_and_slot(detector)]) + ".fits"


def physical_filter(instrument: Instrument, exposure: ExposureSpec) -> str:
    """Filter of an exposure; the camera's r band if the exposure names none.

    Raises
    ------
    ConfigError
        If the camera has no such filter.
    """
    name = exposure.physical_filter
    if name is None:
        return next((f for f in _DEFAULT_FILTERS if f in instrument.filters), "unknown")
    if name not in instrument.filters:
        raise ConfigError(f"{instrument.name} has no filter {name!r}{nearest(name, instrument.filters)}")
    return name


def primary_header(
    instrument: Instrument, detector: Detector, exposure: ExposureSpec, config: SimulationConfig
) -> fits.Header:
    """Header of the primary HDU (no data)."""
    header = fits.Header()
    header["SIMPLE"] = (True, "conforms to FITS standard")
    header["BITPIX"] = (8, "bits per data value")
    header["NAXIS"] = (0, "number of axes")
    header["EXTEND"] = (True, "Extensions are permitted")
    groups = (
        _time_cards(exposure),
        _identity_cards(instrument, exposure, config),
        _pointing_cards(instrument),
        _sensor_cards(instrument, detector),
        _exposure_cards(instrument, exposure),
    )
    for group in groups:
        _extend(header, group)
    header["FILENAME"] = (file_name(instrument, detector, exposure, config), "Original file name")
    header["HIERARCH SIMULATE CAMERA"] = (1, "Pixels are simulated")
    for name in ("ROWS", "DELAY", "NSHIFTS"):
        header[f"HIERARCH STUTTER {name}"] = 0
    return header


def amp_cards(detector: Detector, amp: Amp) -> list[Card]:
    """Per-amp keywords (reference/raw_format.md 2.4); DETSEC and DTV are mirrored in y, as in camera files."""
    box, n = amp.data, int(amp.name[-1])
    top = amp.name.startswith("C1")
    x = (n * box.width + 1, (n + 1) * box.width)
    y = (1, box.height) if top else (2 * box.height, box.height + 1)
    x0, x1 = x[::-1] if amp.flip_x else x
    dtv1 = (n + 1) * box.width + box.x0 + 1 if amp.flip_x else n * box.width - box.x0
    return [
        ("CHANNEL", amp.hdu, ""),
        ("EXTNAME", amp.extname, ""),
        ("CCDSUM", "1 1", ""),
        ("DATASEC", f"[{box.x0 + 1}:{box.x0 + box.width},{box.y0 + 1}:{box.y0 + box.height}]", ""),
        ("DETSEC", f"[{x0}:{x1},{y[0]}:{y[1]}]", ""),
        ("DETSIZE", _detsize(detector), ""),
        ("DTV1", dtv1, "detector transformation vector"),
        ("DTV2", 0 if top else 2 * box.height + 1, "detector transformation vector"),
        ("DTM1_1", -1.0 if amp.flip_x else 1.0, "detector transformation matrix"),
        ("DTM2_2", 1.0 if top else -1.0, "detector transformation matrix"),
        ("DTM1_2", 0.0, "detector transformation matrix"),
        ("DTM2_1", 0.0, "detector transformation matrix"),
        ("BSCALE", 1.0, ""),
        ("BZERO", 0.0, ""),
        ("BUNIT", "adu", ""),
        ("INHERIT", True, ""),
    ]


def reb_cards(detector: Detector, exposure: ExposureSpec, config: SimulationConfig) -> list[Card]:
    """State of the electronics, header of the empty table ``REB_COND``."""
    rng = stream(config.seed, "reb", exposure.key, detector.id)
    temperature = [
        (f"TEMP{i}", round(float(rng.normal(5.0, 0.1)), 4), f"REB Board temperature {i}") for i in range(1, 11)
    ]
    return [
        ("EXTNAME", "REB_COND", "Name of the extension"),
        *temperature,
        ("ATEMPU", -11.5, "ASPIC 0 upper temperature"),
        ("ATEMPL", -8.9, "ASPIC 0 lower temperature"),
        ("CCDTEMP", round(float(rng.normal(-100.0, 0.05)), 4), "CCD temperature"),
        ("RTDTEMP", round(float(rng.normal(-105.8, 0.05)), 4), "RTD temperature"),
        *_REB_VOLTAGES[_vendor(detector)],
        ("AP0_RC", 14, "CCD ASPIC 0 RC"),
        ("AP1_RC", 14, "CCD ASPIC 1 RC"),
        ("AP0_GAIN", 0, "CCD ASPIC 0 gain"),
        ("AP1_GAIN", 0, "CCD ASPIC 1 gain"),
        ("AP0_AF1", 0, "CCD ASPIC 0 af1"),
        ("AP0_TM", 0, "CCD ASPIC 0 Transparent Mode"),
        ("HVBIAS", "ON", "REB HVBias Switch state"),
        ("IDLEFLSH", 0, "IDLE FLUSH setting"),
        ("POWER", 17.76, "Total REB PS power"),
    ]


def config_cards() -> list[Card]:
    """Configuration checksums, header of the empty table ``CONFIG_COND``."""
    sums = {"FPDAQCS": "2338216281", "FPHIDCS": "2186941357", "FPRCS": "406077237", "FPSEQCS": "3050900511"}
    return [
        ("EXTNAME", "CONFIG_COND", "Name of the extension"),
        *((key, value, "Checksum of a configuration category") for key, value in sums.items()),
    ]


def _extend(header: fits.Header, cards: Iterable[Card]) -> None:
    for key, value, comment in cards:
        header[key] = (fits.card.UNDEFINED if value is None else value, comment)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _mjd(moment: datetime) -> float:
    since = moment - _MJD_EPOCH
    return since.days + (since.seconds + since.microseconds / 1e6) / 86400


def _time_cards(exposure: ExposureSpec) -> list[Card]:
    begin, end = exposure.begin_tai, exposure.end_tai
    moments = (
        ("", end + timedelta(seconds=2.4), "file creation"),
        ("-OBS", begin, "observation (image acquisition)"),
        ("-TRG", end, "image trigger (readout)"),
        ("-BEG", begin, "begin of integration"),
        ("-END", end, "end of integration"),
    )
    cards: list[Card] = []
    for suffix, moment, what in moments:
        cards += [(f"DATE{suffix}", _iso(moment), f"Date of {what}"), (f"MJD{suffix}", _mjd(moment), f"MJD of {what}")]
    return [*cards, ("TIMESYS", "TAI", "The time scale used"), ("BUNIT", "adu", "Brightness units for pixel array")]


def _identity_cards(instrument: Instrument, exposure: ExposureSpec, config: SimulationConfig) -> list[Card]:
    name = obs_id(instrument, exposure, config)
    image_tag = stream(config.seed, "image_tag", exposure.key).bytes(8).hex()
    latiss = instrument.name == "LATISS"
    return [
        ("IMGTYPE", exposure.type.upper(), "BIAS, DARK, FLAT, OBJECT ..."),
        ("TESTTYPE", exposure.type.upper(), "BIAS, DARK, FLAT, OBJECT ..."),
        ("REASON", exposure.reason or None, "Reason for observation"),
        ("PROGRAM", exposure.program or config.program, "Name of the program"),
        ("GROUPID", _iso(exposure.begin_tai - timedelta(seconds=1.5)), "Group of the exposure"),
        ("OBSID", name, "ImageName from Camera StartIntergration"),
        ("CAMCODE", instrument.settings.prefix, "The code of the camera"),
        ("CONTRLLR", config.controller, "The controller (e.g. O for OCS, C for CCS)"),
        ("DAYOBS", str(exposure.day_obs), "The observation day as defined by image name"),
        ("SEQNUM", exposure.seq_num, "The sequence number from the image name"),
        ("CURINDEX", exposure.index, "Index number for exposure within the sequence"),
        ("MAXINDEX", exposure.max_index, "Number of requested images in sequence"),
        ("IMAGETAG", image_tag, "DAQ Image id"),
        ("OBSANNOT", "", "DAQ annotation"),
        ("INSTRUME", _INSTRUME.get(instrument.name, instrument.name), "Instrument"),
        ("TELESCOP", "LSST AuxTelescope" if latiss else "Simonyi Survey Telescope", "Telescope"),
        ("FACILITY", "Vera C. Rubin Observatory", "Facility name"),
        ("TSTAND", "TMAMCv1_SUM", "Camera test stand"),
    ]


def _pointing_cards(instrument: Instrument) -> list[Card]:
    """Telescope parked in front of the screen; no sky coordinates."""
    unknown = ("RA", "DEC", "RASTART", "DECSTART", "RAEND", "DECEND", "ROTPA", "HASTART", "HAEND", "RADESYS")
    return [
        ("OBS-LONG", -70.749417, "[deg] Observatory east longitude"),
        ("OBS-LAT", -30.244639, "[deg] Observatory latitude"),
        ("OBS-ELEV", 2663.0, "[m] Observatory elevation"),
        ("OBSGEO-X", 1818938.94, "[m] X-axis Geocentric coordinate"),
        ("OBSGEO-Y", -5208470.95, "[m] Y-axis Geocentric coordinate"),
        ("OBSGEO-Z", -3195172.08, "[m] Z-axis Geocentric coordinate"),
        *((key, None, "") for key in unknown),
        ("ROTCOORD", "sky", "Telescope Rotation Coordinates"),
        ("ELSTART", 80.0, "[deg] Elevation at start of exposure"),
        ("AZSTART", 0.0, "[deg] Azimuth at start of exposure"),
        ("ELEND", 80.0, "[deg] Elevation at end of exposure"),
        ("AZEND", 0.0, "[deg] Azimuth at end of exposure"),
        ("TRACKSYS", "LOCAL" if instrument.name == "LATISS" else "AZEL", "Tracking system"),
        ("OBJECT", "Park position", "Name of the observed object"),
        ("VIGNETTE", "FULLY", "Instrument blocked"),
        ("VIGN_MIN", "FULLY", "Least vignetting during the exposure"),
        ("AIRTEMP", 11.0, "[C] outside air temperature"),
        ("PRESSURE", 74390.0, "[Pa] outside air pressure"),
        ("HUMIDITY", 33.4, "[%] outside relative humidity"),
    ]


def _sensor_cards(instrument: Instrument, detector: Detector) -> list[Card]:
    bay, slot = bay_and_slot(detector)
    sequencer, checksum = _SEQUENCER[_vendor(detector)]
    latiss: list[Card] = [
        ("CCDTEMP", -101.024, "Measured temperature (deg C)"),
        ("TEMP_SET", -104.15, "Temperature set point (deg C)"),
    ]
    return [
        ("CCD_MANU", detector.vendor, "CCD Manufacturer"),
        ("CCD_TYPE", detector.serial.split("-")[1], "CCD Model Number"),
        ("CCDSLOT", slot, "The CCD Slot"),
        ("RAFTBAY", bay, "The RAFT Bay"),
        ("FIRMWARE", "3139500e", "DAQ firmware version (Hex)"),
        ("PLATFORM", instrument.name.lower(), "DAQ platform version"),
        ("CONTNUM", f"18{detector.id:06x}", "REB serial # (Hex)"),
        ("DAQVERS", "R5-V13.4 2025-03-20T16:46:35Z (811f588b)", "DAQ version"),
        ("DAQPART", "camera", "DAQ partition"),
        ("DAQFOLD", "raw", "DAQ folder the image was initially created in"),
        ("SEQFILE", sequencer, "Sequencer file name"),
        ("SEQNAME", sequencer, "Sequencer file name"),
        ("SEQCKSUM", checksum, "Checksum of Sequencer"),
        ("LSST_NUM", detector.serial, "LSST Assigned CCD Number"),
        ("CCD_SERN", f"{23000 + detector.id}", "Manufacturers CCD Serial Number"),
        ("REBNAME", "LCA-13574-055", "Name of the REB"),
        ("RAFTNAME", detector.raft_serial, "LSST Assigned Raft name"),
        ("FPVERS", "1.2.13", "The focal-plane version number"),
        ("IHVERS", "1.1.8", "The image-handling version number"),
        ("DETSIZE", _detsize(detector), "Size of the detector"),
        ("BINX", 1, "[pixels] binning along X axis"),
        ("BINY", 1, "[pixels] binning along Y axis"),
        ("CCDGAIN", 1.0, "Rough guess at overall system gain (e-/DNB)"),
        ("CCDNOISE", 10.0, "Rough guess at system noise (e- rms)"),
        ("HEADVER", 102, "Version number of header"),
        *(latiss if instrument.name == "LATISS" else []),
    ]


def _exposure_cards(instrument: Instrument, exposure: ExposureSpec) -> list[Card]:
    name = physical_filter(instrument, exposure)
    glass, _, grating = name.partition("~")
    spectrograph: list[Card] = [("GRATING", grating, "Name of grating"), ("GRATSLOT", 0, "Slot of grating")]
    latiss = instrument.name == "LATISS"
    return [
        ("FILTBAND", instrument.filters[name], "Name of the filter band"),
        ("FILTER", glass if latiss else name, "Name of the physical filter"),
        *(spectrograph if latiss else []),
        ("EXPTIME", exposure.exposure_time_s, "Exposure Time in Seconds"),
        ("DARKTIME", exposure.dark_time_s, "Dark Time in Seconds (see TSEIA-91)"),
        ("SHUTTIME", exposure.exposure_time_s if exposure.type == "flat" else 0.0, "Shutter Exposure Time in Seconds"),
    ]


def _detsize(detector: Detector) -> str:
    """Size of a 16-amp CCD; half-height wavefront sensors carry that of a whole one too, as in real files."""
    height = 2 * detector.amps[0].data.height
    return f"[1:{detector.width_pix},1:{height}]"


def _vendor(detector: Detector) -> str:
    return "E2V" if detector.vendor == "E2V" else "ITL"
