"""Photon transfer: covariance kernel, extraction of pairs, the whole way from the raw cube, the solver.

What is compared:

* ``kernel_ratio_vs_fft``: covariances of a full-size amp less its edge of 20 pixels at lags 0..9 (181 in the half
  plane), with masks and pair counts, against the estimator of the LSST stack (numpy ``rfft2``, float64, next power of
  two), which masks that edge where we cut it off; both give the same numbers.  ``kernel_ratio_without_edge``: the same
  with nothing cut off.  One core, in turns; CPU time, best of several, as other work on the machine slows both.
* ``limit_fraction``: multiply-adds of these lags per second of the whole kernel, over what a loop of independent
  vector multiply-adds on values in registers and the first-level cache reaches in the same run.
* ``extract_s_per_core``: a corrected pair of 16 amps in memory to statistics and covariances (the scope of today's
  notebook).  ``isr_s_per_exposure``, ``pair_s_per_core``: from the raw cube, with the ISR of the final curve (dither,
  overscans, crosstalk, double-spline linearity, deferred charge, defects, amp offsets).  CPU seconds of all threads.
* ``pairs337_two_cores_s``: wall time of 337 pairs of one CCD on two processes of one thread, from 20 real pairs.
* ``solve_s_per_detector``: full covariance fit of 16 amps x 340 levels x 100 lags.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numba
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks._cube import open_cube, peak_mib
from camcal_dask.calibs.ptc.extract import PtcExtractConfig, extract
from camcal_dask.calibs.ptc.solve import PtcSolveConfig, solve
from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.isr.config import CrosstalkConfig, IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.isr.memory import reuse_freed_memory
from camcal_dask.kernels.ptc.covariance import lag_covariance
from camcal_dask.kernels.ptc.models import LagPlanes, covariances
from camcal_dask.repo.cubes import raw as cubes

DETECTOR = 94
FIRST = 2026081200001
GAIN, NOISE, PEDESTAL = 1.6, 5.0, 25000
FINAL = IsrConfig(
    crosstalk=CrosstalkConfig(terms="linear"),
    linearity=True,
    deferred_charge=True,
    defects=True,
    amp_offsets="measure",
    amp_offset_max=1e5,
)
"""ISR of the final curve (reference/ptc_linearity.md 2)."""


def run(workdir: Path, quick: bool) -> dict[str, float]:
    """Measure; ``quick`` uses 3 pairs of the tiny camera and a small amp."""
    camera, detector, n = (get_instrument("TinyCam"), 1, 3) if quick else (get_instrument("LSSTCam"), DETECTOR, 20)
    config = PtcExtractConfig(edge_pixel=2, min_pixels=100) if quick else PtcExtractConfig()
    numbers = _kernel((200, 100) if quick else (2002, 512), repeat=3 if quick else 30)
    exposures = [FIRST + i for i in range(2 * n)]
    uri = cubes.raw_cube_uri(str(workdir / "repo"), camera.name, FIRST)
    _make_data(uri, camera, detector, exposures)
    raw, calibs = open_cube(uri, camera, detector, exposures), make_calibrations(camera, detector)
    numbers |= _one_pair(raw.isel(exposure=[0, 1]), calibs, config)
    numbers |= _cluster(raw, calibs, config)
    numbers |= _solve(*((4, 40, 3) if quick else (16, 340, 10)))
    return numbers


# ---------------------------------------------------------------------------- kernel


def _kernel(shape: tuple[int, int], repeat: int, *, edge: int = 20, lags: int = 10) -> dict[str, float]:
    reuse_freed_memory()  # as every task does that reads pixels
    rng = np.random.default_rng(5)
    image, good = rng.normal(0, 200, shape).astype(np.float32), np.ones(shape, np.bool_)
    good[rng.integers(0, shape[0], 50), rng.integers(0, shape[1], 50)] = False
    inside = np.zeros(shape, np.bool_)
    inside[edge:-edge, edge:-edge] = True
    cut = [np.ascontiguousarray(a[edge:-edge, edge:-edge]) for a in (image, good)]
    ours, peer = lag_covariance(cut[0], cut[1], lags), fft_covariance(image, good & inside, lags)
    np.testing.assert_array_equal(ours.n, peer[1])
    np.testing.assert_allclose(ours.cov, peer[0], rtol=0, atol=1e-6 * peer[0][0, 0])
    kernel, whole, fft, peak = np.inf, np.inf, np.inf, 0.0
    for _ in range(repeat):
        kernel = min(kernel, _cpu_seconds(lambda: lag_covariance(cut[0], cut[1], lags, center=0.0), 3))
        whole = min(whole, _cpu_seconds(lambda: lag_covariance(image, good, lags, center=0.0), 3))
        fft = min(fft, _cpu_seconds(lambda: fft_covariance(image, good & inside, lags), 1))
        peak = max(peak, multiply_adds_per_second())
    return {
        "kernel_ms": 1e3 * kernel,
        "fft_ms": 1e3 * fft,
        "kernel_ratio_vs_fft": fft / kernel,
        "kernel_ratio_without_edge": fft / whole,
        "limit_fraction": n_products(cut[0].shape, lags) / kernel / peak,
        "peak_Gfma_per_s": peak / 1e9,
    }


def n_products(shape: tuple[int, int], lags: int) -> int:
    """Multiply-adds that the sums of an image of this shape cost, those of superfluous lags and zeros not counted."""
    return shape[0] * shape[1] * (lags + (lags - 1) * (2 * lags - 1))


def fft_covariance(
    image: NDArray[np.float32], good: NDArray[np.bool_], lags: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Covariances and pair counts as in the LSST stack (reference/ptc_linearity.md 4): transforms of w D and w."""
    size = tuple(1 << int(np.ceil(np.log2(n + lags))) for n in image.shape)
    weight = good.astype(np.float64)
    values, weights = np.fft.rfft2(image * weight, size), np.fft.rfft2(weight, size)
    products = np.fft.irfft2(values * values.conj(), size)
    sums = np.fft.irfft2(values * weights.conj(), size)
    pairs = np.fft.irfft2(weights * weights.conj(), size).round()

    def at(i: int, j: int) -> tuple[float, float]:
        n = pairs[j, i]
        return products[j, i] / n - sums[j, i] / n * sums[-j, -i] / n, n

    cov, count = np.empty((lags, lags)), np.empty((lags, lags), np.int64)
    for i, j in np.ndindex(lags, lags):
        (k1, n1), (k2, n2) = at(i, j), at(i, -j)
        cov[i, j], count[i, j] = ((k1 + k2) / 2, n1 + n2) if i and j else (k1, n1)
    return cov, count


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})
def _independent_products(a, b, c, d, n):  # type: ignore[no-untyped-def]
    """Ten sums of products of four vectors, ``n`` times: as many additions as the processor can have under way."""
    total = 0.0
    zero = np.float32(0)
    for _ in range(n):
        s0, s1, s2, s3, s4 = zero, zero, zero, zero, zero
        s5, s6, s7, s8, s9 = zero, zero, zero, zero, zero
        for x in range(a.size):
            p, q, r, s = a[x], b[x], c[x], d[x]
            s0 += p * p
            s1 += p * q
            s2 += p * r
            s3 += p * s
            s4 += q * q
            s5 += q * r
            s6 += q * s
            s7 += r * r
            s8 += r * s
            s9 += s * s
        total += s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9
    return total


def multiply_adds_per_second(size: int = 1024, n: int = 300) -> float:
    """Return the float32 multiply-adds a second that this core can do."""
    vectors = np.random.default_rng(0).normal(size=(4, size)).astype(np.float32)
    _independent_products(*vectors, 1)
    return 10 * size * n / _cpu_seconds(lambda: _independent_products(*vectors, n), 3)


def _cpu_seconds(function: Callable[[], Any], repeat: int) -> float:
    """CPU seconds of the process, best of a few."""
    best = np.inf
    for _ in range(repeat):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


# ---------------------------------------------------------------------------- data


def _make_data(uri: str, camera: Instrument, detector: int, exposures: list[int]) -> None:
    """Pairs of flats of rising level with photon and read noise."""
    cubes.ensure_raw_cube(uri, camera)
    rng = np.random.default_rng(7)
    n_amp, ny, nx = camera.raw_shape[1:]
    for k, exposure in enumerate(exposures):
        noise = rng.standard_normal((n_amp, ny, nx), np.float32)
        level = np.float32(1000 + 40000 * (k // 2) / len(exposures))
        pixels = PEDESTAL + NOISE * noise
        for amp in camera.detectors[detector].amps:
            box = amp.index, amp.data.y, amp.data.x
            pixels[box] = PEDESTAL + level + np.sqrt(level / np.float32(GAIN)) * noise[box]
        cubes.write_raw(uri, cubes.raw_slot(exposure), detector, np.round(pixels).astype(np.int32))


def make_calibrations(camera: Instrument, detector: int) -> dict[str, xr.Dataset]:
    """Calibrations that `FINAL` asks for, of realistic form: 31 + 9 spline nodes, a trap with a table, some defects."""
    rng, n = np.random.default_rng(3), camera.raw_shape[1]
    height, width = camera.trimmed_shape
    amp, gain = ("detector", "amp"), np.full((1, n), GAIN)
    coupling = rng.normal(0, 3e-5, (1, n, n)) * (1 - np.eye(n))
    relative, absolute = np.array([0, 750, 1500, 2500, 5000, 2e4, 4e4, 6e4, 8e4]), np.linspace(0, 9e4, 31)
    shift = [rng.normal(0, s, x.size) * (x > 0) for x, s in ((relative, 3.0), (absolute, 10.0))]
    spline = np.concatenate([[relative.size, absolute.size], relative, shift[0], absolute, shift[1]])
    table = np.array([0, 10, 100, 1e3, 1e4, 1e5, 0, 1, 5, 10, 15, 20])
    defects = da.from_delayed(dask.delayed(_defects)((1, n, height, width)), (1, n, height, width), np.int32)

    def dataset(variables: dict[str, Any], units: str) -> xr.Dataset:
        return xr.Dataset(variables, {"detector": [detector]}, {"units": units})

    def each(value: Any) -> tuple[Any, ...]:
        return (*amp, "entry")[: 2 + np.ndim(value)], np.tile(value, (1, n) + (1,) * np.ndim(value))

    return {
        "crosstalk": dataset({"linear": (("detector", "source", "target"), coupling)}, "adu"),
        "linearizer": dataset(
            {
                "type": each("DoubleSpline"), "coefficients": each(spline),
                "input_gain": (amp, gain), "input_turnoff": each(9e4),
            },
            "adu",
        ),
        "cti": dataset(
            {
                "drift_scale": each(2e-4), "decay_time": each(2.5), "global_cti": each(1e-6),
                "trap_kind": each("spline"), "trap_size": each(20.0), "trap_emission_time": each(0.5),
                "trap_coefficients": each(table),
                "input_gain": (amp, gain),
            },
            "electron",
        ),
        "defects": xr.Dataset({"mask": (("detector", "amp", "y", "x"), defects)}, {"detector": [detector]}),
    }  # fmt: skip


def _defects(shape: tuple[int, ...]) -> NDArray[np.int32]:
    """A few pixels of every amp and one column; as a task, so that it does not travel with the graph."""
    mask = np.zeros(shape, np.int32)
    mask[:, :, shape[2] // 2 : shape[2] // 2 + 5, shape[3] // 3] = 1
    mask[:, 3, :, shape[3] // 2] = 1
    return mask


# ---------------------------------------------------------------------------- pairs


def _pairs(raw: xr.DataArray) -> list[tuple[int, int]]:
    ids = raw["exposure"].values.tolist()
    return list(zip(ids[::2], ids[1::2], strict=True))


def _one_pair(raw: xr.DataArray, calibs: dict[str, xr.Dataset], config: PtcExtractConfig) -> dict[str, float]:
    """One pair in this process: from pixels in memory, and from the cube."""
    pairs, corrected = _pairs(raw), isr(raw, calibs, FINAL)
    loaded = corrected.dataset()[["image", "mask", "read_noise_adu", "serial_overscan_median", "amp_offset"]]
    loaded = loaded.compute(scheduler="sync")

    def in_memory() -> xr.Dataset:
        return extract(loaded, pairs, config).compute(scheduler="sync")

    def from_cube() -> xr.Dataset:
        return extract(corrected, pairs, config).compute(scheduler="sync")

    xr.testing.assert_equal(in_memory(), from_cube())
    seconds = {f.__name__: _cpu_seconds(f, 5) for f in (in_memory, from_cube)}
    return {
        "extract_s_per_core": seconds["in_memory"],
        "isr_s_per_exposure": (seconds["from_cube"] - seconds["in_memory"]) / 2,
        "pair_s_per_core": seconds["from_cube"],
    }


def _cluster(raw: xr.DataArray, calibs: dict[str, xr.Dataset], config: PtcExtractConfig) -> dict[str, float]:
    """All pairs on two worker processes."""
    seconds = []
    with (
        dask.config.set({"distributed.worker.memory.spill": False}),
        connect(Profile(workers=2, memory_per_worker="2 GiB")) as client,
    ):
        client.run(_warm_up)
        for _ in range(2):
            partial = extract(isr(raw, calibs, FINAL), _pairs(raw), config)
            start = time.perf_counter()
            found = client.compute(partial).result()
            seconds.append(time.perf_counter() - start)
        peak = max(client.run(peak_mib).values())
    if not found["valid"].all():
        raise RuntimeError("some pairs could not be measured")
    n = raw.sizes["exposure"] // 2
    return {"pairs_per_minute": 60 * n / min(seconds), "pairs337_two_cores_s": 337 / n * min(seconds)} | {
        "peak_worker_MiB": peak
    }


def _warm_up() -> None:
    """Compile or load every kernel of the path, on a worker."""
    camera = get_instrument("TinyCam")
    pixels = np.random.default_rng(0).integers(20000, 20020, (2, 1, *camera.raw_shape[1:]), dtype=np.int32)
    coords = {"exposure": [1, 2], "detector": [1], "amp": list(camera.amp_names)}
    raw = xr.DataArray(pixels, dims=("exposure", "detector", "amp", "y", "x"), coords=coords)
    raw.attrs["instrument"] = camera.name
    config = PtcExtractConfig(edge_pixel=2, min_pixels=100)
    extract(isr(raw, make_calibrations(camera, 1), FINAL), [(1, 2)], config).compute(scheduler="sync")


# ---------------------------------------------------------------------------- solver


def _solve(n_amp: int, n_level: int, side: int) -> dict[str, float]:
    """Solve one detector; the curve is Eq. 20 with the errors of an E2V amp."""
    i, j = np.indices((side, side))
    a = 2e-7 * (1 + (j > i)) * np.where(i + j == 0, 1, i**2 + j**2) ** -1.6
    a[0, 0] = -2.4e-6
    noise = np.where(i + j == 0, 36.0, 0.0)
    mean = np.geomspace(60, 9e4, n_level) / GAIN
    exact = covariances(LagPlanes(a, a * -1.5e-6, noise, GAIN), mean)[:, None, None]
    n = 926064 * np.where((i == 0) | (j == 0), 1, 2)
    error = np.sqrt(np.where(i + j == 0, 2, 1) / n) * exact[..., :1, :1]
    measured = exact + error * np.random.default_rng(0).standard_normal((n_level, 1, n_amp, side, side))
    dims = ("pair", "detector", "amp")
    partial = xr.Dataset(
        {
            "raw_mean": (dims, np.broadcast_to(mean[:, None, None], measured.shape[:3]).copy()),
            "raw_var": (dims, measured[..., 0, 0]),
            "noise_adu": (dims, np.full(measured.shape[:3], 6 / GAIN)),
            "valid": (dims, np.ones(measured.shape[:3], bool)),
            "covariance": ((*dims, "lag_i", "lag_j"), measured),
            "covariance_sqrt_weight": ((*dims, "lag_i", "lag_j"), 1 / np.broadcast_to(error, measured.shape)),
        },
        {"detector": [DETECTOR], "amp": list(get_instrument("LSSTCam").amp_names)[:n_amp]},
        {"instrument": "LSSTCam"},
    )
    config = PtcSolveConfig(fit_type="FULLCOVARIANCE")
    start = time.process_time()
    gain = solve(partial, config)["gain"].values
    seconds = time.process_time() - start
    return {"solve_s_per_detector": seconds, "solve_gain_bias_percent": 100 * (float(gain.mean()) / GAIN - 1)}
