"""What the demo made, compared with what was simulated."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.table import Table

from camcal_dask.instruments import Amp, Detector
from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.kernels.pixels.defects import COLUMN, DARK, EDGE, FLAT, compare_defects
from camcal_dask.kernels.statistics.moments import clip_statistics, clipped_mean_stack
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.simulation import Truth

SKIPPED = 6
"""Overscan pixels of a line that are not used (3 at each end)."""
HOT_E_PER_S, COLD = 3.0, 0.7
"""What counts as a true defect: dark current above the threshold of the search, response below this."""


def bias_table(repo: Repo, truth: Truth, prefix: str, bad_amps: dict[int, set[str]]) -> Table:
    """Compare bias and read noise with what was simulated."""
    table = Table(
        title="bias: medians over the good amps; pull = left / expected from noise; a 3-sigma clip\n"
        "measures 0.987 of a Gaussian read noise",
        title_justify="left",
        box=None,
    )
    for name in ("detector", "vendor", "pattern", "left in bias", "expected", "pull", "noise/truth"):
        table.add_column(name, justify="right", no_wrap=True)
    for detector in truth.detectors:
        table.add_row(*_bias_row(repo, truth, detector, prefix, bad_amps.get(detector, set())))
    return table


def lines(
    repo: Repo, truth: Truth, prefix: str, physical_filter: str, bad_amps: dict[int, set[str]]
) -> Iterator[tuple[str, str]]:
    """Dark, flat and defects of each detector in a line: what, and how it compares."""
    for number in truth.detectors:
        detector = truth.instrument.detectors[number]
        good = [amp for amp in detector.amps if amp.name not in bad_amps.get(number, set())]
        dark, flat, defects = (
            repo.open(name, run=f"{prefix}/{run}", detector=number).isel(detector=0).load()
            for name, run in (("dark", "dark"), ("flat", f"flat/{physical_filter}"), ("defects", "defects"))
        )
        yield f"dark {detector.name}", _dark_line(dark, truth, detector, good)
        yield f"flat {detector.name}", _flat_line(flat, truth, detector, good, physical_filter)
        yield f"defects {detector.name}", _defects_line(defects, truth, detector, good, physical_filter)


def _bias_row(repo: Repo, truth: Truth, number: int, prefix: str, bad: Collection[str]) -> list[str]:
    bias = repo.open("bias", run=f"{prefix}/bias", detector=number).isel(detector=0)
    statistics = repo.open("verifyBias", run=f"{prefix}/bias.verify").sel(detector=number)
    known, detector = truth.detector(number), truth.instrument.detectors[number]
    n_input = len(bias.attrs["exposures"])
    injected, left, expected, ratio = [], [], [], []
    for amp in detector.amps:
        if amp.name in bad:
            continue
        box = _box(amp)
        pattern = np.asarray(known.pattern[amp.index][box], dtype=np.float32) * np.float32(amp.gain)
        image = bias["image"].sel(amp=amp.name).values[box]
        noise = float(known.tables["read_noise"][amp.index]) * amp.gain / float(known.tables["gain"][amp.index])
        injected.append(_scatter(pattern))
        left.append(_scatter(image - pattern))
        expected.append(
            _expected(noise, n_input, amp.serial_overscan.width - SKIPPED, amp.parallel_overscan.height - SKIPPED)
        )
        good = statistics["read_noise_adu"].sel(
            amp=amp.name, exposure=statistics["exposure"] > statistics["exposure"][0]
        )
        ratio.append(float(np.median(good)) * amp.gain / noise)
    e = "{:.3f} e-".format
    return [
        detector.name,
        detector.vendor,
        e(np.median(injected)),
        e(np.median(left)),
        e(np.median(expected)),
        f"{np.median(np.divide(left, expected)):.3f}",
        f"{np.median(ratio):.4f}",
    ]


def _dark_line(dark: xr.Dataset, truth: Truth, detector: Detector, good: list[Amp]) -> str:
    """Level of the cool pixels, and hot pixels relative to the true ones."""
    rate = truth.dark_rate(detector.id, dark["image"].shape)
    scale = truth.detector(detector.id).tables["gain"]
    cool, hot = [], []
    for amp in good:
        true = rate[amp.index][_box(amp)] * amp.gain / float(scale[amp.index])
        image = dark["image"].values[amp.index][_box(amp)]
        cool.append(float(np.median(image[true < 1])))
        hot.append(image[true > 2 * HOT_E_PER_S] / true[true > 2 * HOT_E_PER_S])
    ratio = float(np.median(np.concatenate(hot)))
    return f"{np.median(cool):.4f} e-/s (true {truth.config.dark.rate_e_per_s:.4f}), hot pixels {ratio:.3f} of the true"


def _flat_line(flat: xr.Dataset, truth: Truth, detector: Detector, good: list[Amp], physical_filter: str) -> str:
    """Scatter of the true response, and of the quotient of flat and true response."""
    response = truth.light_response(detector.id, physical_filter, flat["image"].shape)
    injected, left = [], []
    for amp in good:
        image, true = flat["image"].values[amp.index][_box(amp)], response[amp.index][_box(amp)]
        injected.append(_scatter(true / np.median(true)))
        left.append(_scatter(image / true / np.median(image / true)))
    return f"pixel response of {100 * np.median(injected):.3f} % rms, measured to {100 * np.median(left):.3f} %"


def _defects_line(defects: xr.Dataset, truth: Truth, detector: Detector, good: list[Amp], physical_filter: str) -> str:
    bits = defects["defects"].values
    known = truth.bad_pixels(detector.id, physical_filter, bits.shape, hot=HOT_E_PER_S, cold=COLD)
    ignore = np.ones(bits.shape, bool)
    for amp in good:
        ignore[amp.index][_box(amp)] = (bits[amp.index][_box(amp)] & EDGE) > 0
    found = compare_defects(*(assemble(m, detector) for m in ((bits & (DARK | FLAT | COLUMN)) > 0, known, ignore)))
    return (
        f"{found.n_both} of {found.n_known} true ones found (completeness {found.completeness:.3f}), "
        f"{found.n_found - found.n_both} others (purity {found.purity:.3f})"
    )


def _box(amp: Amp) -> tuple[slice, slice]:
    return slice(0, amp.data.height), slice(0, amp.data.width)


def _scatter(values: NDArray[Any]) -> float:
    return float(clip_statistics(np.ravel(values).astype(np.float32), sigma=5.0, iterations=3).stdev)


def _expected(noise_e: float, n: int, width_serial: int, width_parallel: int) -> float:
    """Scatter of the mean of N biases [electron]: read noise, two overscan medians, the loss by clipping.

    The median of n Gaussian values has pi / 2n of their variance; the loss of the clipped mean is
    that of the estimator on pure noise.
    """
    overscan = 1 + np.pi / 2 * (1 / width_serial + 1 / width_parallel)
    noise = np.random.default_rng(1).standard_normal((n, 100_000), dtype=np.float32)
    loss = float(np.std(clipped_mean_stack(noise, None, sigma=3.0, iterations=3).mean)) * np.sqrt(n)
    return float(noise_e * loss * np.sqrt(overscan / n))
