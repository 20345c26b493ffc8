"""Settings of the simulator: one section an effect, each with its switch and its strengths.

Lengths that belong to the picture (decay of a corner glow, donut size) are fractions of the amp, so
that the tiny camera shows the same structure as a full-size amp.
"""

from __future__ import annotations

from typing import Any, Literal

from camcal_dask.config import Config

AmpRef = tuple[int, str]
"""(detector id, amp name), for example ``(94, "C12")``."""


class Effect(Config):
    """Base of all effects: the switch."""

    enabled: bool = True


class Gain(Config):
    """Electrons per adu: nominal value of the camera's table x (1 + scatter x N(0, 1)) per amp."""

    scatter: float = 0.002


class BiasLevel(Effect):
    """Pedestal of an amp [adu]; ``jitter_adu`` is its change from exposure to exposure (rms)."""

    level_adu: float = 24000.0
    scatter_adu: float = 1500.0
    jitter_adu: float = 0.3


class RowStructure(Effect):
    """Offsets common to a whole row, serial overscan included: what the serial overscan removes.

    ``ramp_adu`` is a fixed exponential over the first rows, ``drift_adu`` the rms of a random walk at
    the last row and ``noise_adu`` a white jitter of rows; the last two differ in every exposure.
    """

    ramp_adu: float = 3.0
    drift_adu: float = 1.0
    noise_adu: float = 0.05


class ColumnStructure(Effect):
    """Fixed offsets common to a column, parallel overscan included: what the parallel overscan removes."""

    ramp_adu: float = 4.0
    comb_adu: float = 0.3


class Pattern(Effect):
    """Fixed 2-D structure of the data area: what the combined bias must show.

    Glow at the readout corner (stronger on E2V), a wave, and a pixel-to-pixel pattern (rms).
    """

    corner_adu: float = 4.0
    wave_adu: float = 1.0
    pixel_adu: float = 0.3


class ReadNoise(Effect):
    """White noise of a pixel, correlated part and digitisation included: nominal x scale x (1 + scatter N(0, 1))."""

    scale: float = 1.0
    scatter: float = 0.002


class CommonMode(Effect):
    """Part of the read noise that all amps of a detector share [electron rms]; amps respond 1 +- spread."""

    rms_e: float = 0.8
    spread: float = 0.2


class Dark(Effect):
    """Dark current and bright defects."""

    rate_e_per_s: float = 0.02
    hot_pixels_per_amp: float = 15.0
    hot_pixel_min_e_per_s: float = 5.0
    hot_pixel_max_e_per_s: float = 500.0
    hot_columns_per_amp: float = 0.2
    hot_column_e_per_s: float = 5.0


class Illumination(Effect):
    """Light of flats: electrons per second on the axis for ``light = 1``, lamp jitter, vignetting.

    Full light out to ``clear_radius_mm`` of the focal plane, none beyond ``dark_radius_mm``; a roll-off of
    ``roll_off`` at ``clear_radius_mm``, quadratic in radius.
    """

    rate_e_per_s: float = 2000.0
    lamp_jitter: float = 0.002
    vignetting: bool = True
    clear_radius_mm: float = 317.0
    dark_radius_mm: float = 366.0
    roll_off: float = 0.04


class Response(Effect):
    """Pixel response: grey part and part of the filter (rms), dust donuts of the filter, cold pixels."""

    prnu: float = 0.003
    prnu_filter: float = 0.002
    donuts_per_detector: float = 12.0
    donut_depth: float = 0.015
    donut_radius: float = 0.08
    cold_pixels_per_amp: float = 10.0
    cold_pixel_response: float = 0.4


class ShotNoise(Effect):
    """Poisson noise of light and dark current."""


class CosmicRays(Effect):
    """Straight tracks; rate per area during dark time and (half of the) readout."""

    rate_per_cm2_s: float = 0.02
    readout_s: float = 2.4
    mean_length_pixel: float = 12.0
    charge_e_per_pixel: float = 700.0


class BrighterFatter(Effect):
    """Area coefficients a_ij [1/electron] of Astier+19, first index serial.

    ``a`` gives them row by row, ``a[i][j]`` for lags i, j >= 0; empty takes ``a00``, ``a10``, ``a01`` and a
    power law beyond, out to ``range_pixel`` lags.  What the plane sum lacks to zero is spread over a ring one
    pixel further out, because pixel boundaries move charge and do not make any.
    """

    a00: float = -3.0e-6
    a10: float = 3.0e-7
    a01: float = 6.0e-7
    power: float = 3.5
    range_pixel: int = 6
    a: tuple[tuple[float, ...], ...] = ()


class FullWell(Effect):
    """Saturation: nominal saturation x gain x scale [electron]; the excess blooms along the column."""

    scale: float = 1.0
    blooming: bool = True


class SerialCti(Effect):
    """Deferred charge of the serial register (reference/isr.md 2.7): global loss, a trap, drift of the output node."""

    global_cti: float = 2.0e-7
    trap_size_e: float = 5.0
    trap_slope: float = 1.0e-4
    trap_emission_pixel: float = 2.0
    drift_scale: float = 1.0e-4
    drift_decay_pixel: float = 2.4
    scatter: float = 0.1


class NonLinearity(Effect):
    """Signal v [electron] is read as v + c2 v^2 + c3 v^3; coefficients scatter per amp."""

    c2_per_e: float = -2.0e-8
    c3_per_e2: float = 1.0e-13
    scatter: float = 0.1


class Crosstalk(Effect):
    """Signal of amp s appears in amp t as c[s, t] B + q[s, t] B^2 (B electron, at equal readout position)."""

    linear: float = 2.0e-4
    reach_amps: float = 2.0
    quadratic_per_e: float = 2.0e-10


class Contamination(Effect):
    """What the first exposure after idle carries in the data area: stripes and charge not flushed."""

    row_stripe_adu: float = 15.0
    column_stripe_adu: float = 10.0
    residual_charge_e: float = 400.0
    decay: float = 0.3


class Faults(Config):
    """Broken amps: ``dead`` ones give a constant level, ``noisy`` ones ``noise_factor`` times the read noise."""

    dead: tuple[AmpRef, ...] = ()
    noisy: tuple[AmpRef, ...] = ()
    noise_factor: float = 6.0
    dead_noise_adu: float = 0.2


class Photodiode(Effect):
    """Photodiode beside the lamp: current trace whose integral is the charge of the exposure."""

    current_a: float = 2.0e-8
    dark_current_a: float = 2.0e-14
    sample_s: float = 0.0167
    noise: float = 0.0005
    lead_s: float = 0.5


class SimulationConfig(Config):
    """Everything that decides a pixel, besides camera, exposure and detector."""

    seed: int = 1
    controller: Literal["O", "C", "S"] = "O"
    program: str = "BLOCK-T60"
    gain: Gain = Gain()
    bias_level: BiasLevel = BiasLevel()
    row_structure: RowStructure = RowStructure()
    column_structure: ColumnStructure = ColumnStructure()
    pattern: Pattern = Pattern()
    read_noise: ReadNoise = ReadNoise()
    common_mode: CommonMode = CommonMode()
    dark: Dark = Dark()
    illumination: Illumination = Illumination()
    response: Response = Response()
    shot_noise: ShotNoise = ShotNoise()
    cosmic_rays: CosmicRays = CosmicRays()
    brighter_fatter: BrighterFatter = BrighterFatter()
    full_well: FullWell = FullWell()
    serial_cti: SerialCti = SerialCti()
    non_linearity: NonLinearity = NonLinearity()
    crosstalk: Crosstalk = Crosstalk()
    contamination: Contamination = Contamination()
    faults: Faults = Faults()
    photodiode: Photodiode = Photodiode()

    @classmethod
    def ideal(cls, **sections: Any) -> SimulationConfig:
        """A perfect camera: every effect off, no scatter of gains, except the sections and values given."""
        off = {
            name: field.annotation(enabled=False)
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, Effect)
        }
        return cls(**{**off, "gain": Gain(scatter=0.0), **sections})
