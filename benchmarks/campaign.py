"""Campaigns: what client and scheduler spend on a quantum, how runs scale, and what 512 workers would do.

* ``overhead_ms_*``: CPU of the client's process, which holds the scheduler as well, for each quantum that does nothing,
  through the real ``run_quanta`` with its tracker and files; ``overhead_ms_per_quantum`` is the worst of the sizes.
  CPU, not wall time: other work on the machine shall not count.
* ``task_ms``: the same with bundles of one quantum: what a dask task costs.
* ``focal_plane_*``: bias, its verification and photon transfer curves of 189 detectors with tiny amps: planning,
  graphs, cubes and registry included.  ``focal_plane_pair_overhead_ms`` is the CPU of the client's process for each
  of the quanta of the curves, ``focal_plane_overhead_ms`` for each of the few of the bias, which share its fixed costs.
  ``idle_percent`` of a core is what client and scheduler take when nothing runs; ``focal_plane_pair_own_ms`` is the
  overhead without that share of the time.
* ``weak_*``: N workers with N times the quanta; efficiency is the time of one worker over that of N.
* ``predicted_*``: the model of ``docs/scaling.md``, from the numbers above.
"""

from __future__ import annotations

import csv
import os
import resource
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.planning.quanta import Quantum
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.planning.request import make_plan
from camcal_dask.campaign.running import dispatch
from camcal_dask.campaign.running.dispatch import run_quanta
from camcal_dask.campaign.running.run import execute
from camcal_dask.campaign.running.tracker import Snapshot, Tracker
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.raw_fits.header import translate
from camcal_dask.repo.butler.repository import Repo, create_repo
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.simulation import SimulationConfig, bias_set, ptc_set, schedule
from camcal_dask.simulation.headers import primary_header

if TYPE_CHECKING:
    from distributed import Client

CAMERA = "MiniCam"
DAY = 20260812
BIASES = 4
TIMES_S = tuple(0.5 * 1.35**i for i in range(10))
"""Exposure times of the flat pairs."""
N_DETECTORS, N_PAIRS = 189, 337
PAIR_S = 1.9
"""Seconds of one worker thread for a pair of full-size exposures of one detector (``python -m benchmarks ptc``)."""
PAIR_BYTES = 2 * 16 * 2048 * 576 * 4 / 3.0
"""Bytes read for a pair: int32, compressed three times."""
STORAGE_BYTES_S = 20e9
"""Bandwidth of the storage that 512 workers share (an assumption)."""


def run(workdir: Path, quick: bool) -> dict[str, float]:
    """Measure; ``quick`` only sees whether everything runs."""
    sizes = {"1k": 100, "10k": 300} if quick else {"1k": 1_000, "10k": 10_000, "100k": 100_000}
    workers = min(2, len(os.sched_getaffinity(0)))
    numbers: dict[str, float] = {}
    with connect(Profile(workers=workers, memory_per_worker="1 GiB")) as client:
        _spend(client, workdir, 50)
        numbers["task_ms"] = _task_ms(client, workdir, 50 if quick else 1_000)
        for name, n in sizes.items():
            numbers[f"overhead_ms_{name}"] = _spend(client, workdir, n)
            numbers[f"client_MiB_{name}"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    numbers["overhead_ms_per_quantum"] = max(numbers[f"overhead_ms_{name}"] for name in sizes)
    numbers |= _weak_scaling(workdir, quick)
    numbers |= _focal_plane(workdir, workers, 6 if quick else N_DETECTORS)
    numbers |= {f"predicted_{k}": v for k, v in predict(numbers, 512, N_DETECTORS * N_PAIRS).items()}
    (workdir / "scaling.md").write_text(document(numbers))
    return numbers


# ---------------------------------------------------------------------------- overhead


def nothing(quantum: Quantum) -> None:
    """Do nothing: what is left is overhead."""


def _quanta(n: int) -> list[Quantum]:
    return [Quantum("pair", d % N_DETECTORS, (DAY * 100_000 + d, DAY * 100_000 + d + 1)) for d in range(n)]


def _spend(client: Client, workdir: Path, n: int) -> float:
    """CPU milliseconds of client and scheduler for each of ``n`` empty quanta."""
    tracker = Tracker(attempts.open_attempt(str(workdir / "noop"), "u/noop", "none"), Snapshot("u/noop", "none"))
    quanta = _quanta(n)
    tracker.expect(quanta)
    before = time.process_time()
    ended = sum(1 for _ in run_quanta(client, nothing, quanta, tracker))
    tracker.close()
    if ended != n:
        raise AssertionError(f"{ended} of {n} quanta ended")
    return 1e3 * (time.process_time() - before) / n


def _task_ms(client: Client, workdir: Path, n: int) -> float:
    most, dispatch.BUNDLE_MAX = dispatch.BUNDLE_MAX, 1
    try:
        return _spend(client, workdir, n)
    finally:
        dispatch.BUNDLE_MAX = most


# ---------------------------------------------------------------------------- weak scaling


def spin(seconds: float, quantum: Quantum) -> None:
    """Use CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def rest(seconds: float, quantum: Quantum) -> None:
    """Stand for work on a core of another machine."""
    time.sleep(seconds)


def _weak_scaling(workdir: Path, quick: bool) -> dict[str, float]:
    """Processes that compute, up to the cores here; threads that rest, up to 32, for what dispatching alone does."""
    numbers, each = {}, 5 if quick else 60
    cores = len(os.sched_getaffinity(0))
    for kind, counts, work in (
        ("compute", sorted({1, cores}), partial(spin, 0.1)),
        ("dispatch", (1, 4) if quick else (1, 4, 16, 32), partial(rest, 0.2)),
    ):
        seconds = {}
        for n in counts:
            profile = Profile(kind="local" if kind == "compute" else "threads", workers=n, memory_per_worker="1 GiB")
            with connect(profile) as client:
                list(run_quanta(client, work, _quanta(2 * n), Tracker("", Snapshot("", ""))))
                start = time.perf_counter()
                list(run_quanta(client, work, _quanta(each * n), Tracker("", Snapshot("", ""))))
                seconds[n] = time.perf_counter() - start
            numbers[f"weak_{kind}_efficiency_{n}"] = seconds[counts[0]] / seconds[n]
    return numbers


# ---------------------------------------------------------------------------- a focal plane


def _focal_plane(workdir: Path, workers: int, n_detectors: int) -> dict[str, float]:
    with _camera(workdir / "instruments", n_detectors) as camera:
        repo = _raws(workdir, camera)
        numbers: dict[str, float] = {}
        with repo, connect(Profile(workers=workers, memory_per_worker="1 GiB")) as client:
            without = ["isr.defects=false", "calibs={}"]
            _run(repo, client, "bias", "u/warm", "detector IN (0, 1)")
            _run(repo, client, "linearizerPtc", "u/warm-ptc", "detector IN (0, 1)", without)
            start, before = time.perf_counter(), time.process_time()
            _run(repo, client, "bias", "u/bias")
            numbers["focal_plane_seconds"] = time.perf_counter() - start
            numbers["focal_plane_overhead_ms"] = 1e3 * (time.process_time() - before) / n_detectors
            start, before = time.perf_counter(), time.process_time()
            _run(repo, client, "bias", "u/bias")
            numbers["focal_plane_resume_seconds"] = time.perf_counter() - start
            verify = load_recipe("TinyCam/verifyBias.yaml", [f"instrument={camera.name}"])
            start = time.perf_counter()
            plan = make_plan(repo, verify, inputs=["u/bias", f"{camera.name}/raw/all"], output="u/verify")
            if execute(repo, plan, client).failed:
                raise AssertionError("the verification failed")
            numbers["focal_plane_verify_seconds"] = time.perf_counter() - start
            quanta = n_detectors * (len(TIMES_S) + 1)
            start, before = time.perf_counter(), time.process_time()
            _run(repo, client, "linearizerPtc", "u/ptc", overrides=without)
            numbers["focal_plane_pair_quanta"] = float(quanta)
            numbers["focal_plane_pair_seconds"] = time.perf_counter() - start
            spent, idle = time.process_time() - before, _idle_share()
            numbers["focal_plane_pair_overhead_ms"] = 1e3 * spent / quanta
            numbers["idle_percent"] = 100 * idle
            numbers["focal_plane_pair_own_ms"] = 1e3 * (spent - idle * numbers["focal_plane_pair_seconds"]) / quanta
    return numbers


def _idle_share(seconds: float = 10.0) -> float:
    """CPU of this process for each second in which client and scheduler wait."""
    before = time.process_time()
    time.sleep(seconds)
    return (time.process_time() - before) / seconds


def _run(repo: Repo, client: Client, name: str, output: str, where: str = "", overrides: Sequence[str] = ()) -> None:
    recipe = load_recipe(f"TinyCam/{name}.yaml", [f"instrument={CAMERA}", *overrides])
    plan = make_plan(repo, recipe, inputs=[f"{CAMERA}/raw/all"], output=output, where=where)
    outcome = execute(repo, plan, client)
    if not outcome.complete:
        raise AssertionError(outcome.text())


@contextmanager
def _camera(folder: Path, n_detectors: int) -> Iterator[Instrument]:
    """A camera with the detectors of LSSTCam and the amps of TinyCam, known while the context lasts."""
    tables = files("camcal_dask.instruments")
    tiny = Path(str(tables.joinpath("TinyCam")))
    target = folder / CAMERA
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("filters.csv", "header_corrections.csv"):
        shutil.copy(tiny / name, target / name)
    settings = (tiny / "instrument.yaml").read_text()
    target.joinpath("instrument.yaml").write_text(settings.replace("tinyCam", "miniCam").replace("TinyCam", "MiniCam"))
    amps = {d: [r for r in _rows(tiny / "amps.csv") if r["detector"] == d] for d in ("0", "2")}
    sizes = {r["detector"]: r for r in _rows(tiny / "detectors.csv")}
    science = [r for r in _rows(Path(str(tables.joinpath("LSSTCam", "detectors.csv")))) if r["purpose"] == "SCIENCE"]
    detectors, all_amps = [], []
    for row in science[:n_detectors]:
        like = "0" if row["vendor"] == "E2V" else "2"
        small = ("refpos_x_pix", "refpos_y_pix", "width_pix", "height_pix")
        detectors.append({**row, **{key: sizes[like][key] for key in small}})
        all_amps += [{**amp, "detector": row["detector"]} for amp in amps[like]]
    _write(target / "detectors.csv", detectors)
    _write(target / "amps.csv", all_amps)
    os.environ["CAMCAL_INSTRUMENTS"] = str(folder)
    get_instrument.cache_clear()
    try:
        yield get_instrument(CAMERA)
    finally:
        del os.environ["CAMCAL_INSTRUMENTS"]
        get_instrument.cache_clear()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _raws(workdir: Path, camera: Instrument) -> Repo:
    """Repository with biases of noise and pairs of flats, written straight into the cube."""
    shutil.rmtree(workdir / "repo", ignore_errors=True)
    repo = create_repo(str(workdir / "repo"), camera.name)
    exposures = list(schedule([*bias_set(BIASES, DAY), *ptc_set(TIMES_S, DAY)], DAY))
    tiny = get_instrument("TinyCam")  # whose headers are known
    cards = [primary_header(tiny, tiny.detectors[0], e, SimulationConfig()) for e in exposures]
    records = [replace(translate(header).record, instrument=camera.name) for header in cards]
    repo.register_exposures(records)
    uri = cubes.raw_cube_uri(repo.root, camera.name, records[0].exposure)
    cubes.ensure_raw_cube(uri, camera)
    rng = np.random.default_rng(1)
    for record, exposure in zip(records, exposures, strict=True):
        slot = cubes.raw_slot(record.exposure)
        light = 4_000 * exposure.exposure_time_s if exposure.type == "flat" else 0.0
        for detector in camera.science_detectors:
            pixels = rng.normal(25_000, 6, camera.raw_shape[1:])
            box = camera.detectors[detector].amps[0].data
            data = np.s_[:, box.y0 : box.y0 + box.height, box.x0 : box.x0 + box.width]
            pixels[data] += rng.poisson(light, pixels[data].shape) / 1.5
            cubes.write_raw(uri, slot, detector, pixels.astype(np.int32))
            cubes.write_raw_manifest(uri, slot, detector, {"header": {"SEQFILE": "bias.seq"}})
    repo.register_raws(camera.name, [(r.exposure, d) for r in records for d in camera.science_detectors])
    return repo


# ---------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Times:
    """Seconds that each part of a campaign is busy."""

    workers: float
    client: float
    storage: float

    @property
    def bottleneck(self) -> str:
        """What is busy longest."""
        return max(vars(self), key=lambda name: getattr(self, name))


def times(numbers: dict[str, float], workers: int, quanta: int) -> Times:
    """Busy time of each part; all work at once, so that the longest is the time of the run."""
    bundle_s = max(dispatch.BUNDLE_S, workers / dispatch.BUNDLES_PER_S)
    per_bundle = max(1.0, min(bundle_s / PAIR_S, dispatch.BUNDLE_MAX, quanta / (2 * workers)))
    # task_ms has one quantum a bundle, overhead_ms_per_quantum a hundred: two equations for bundle and quantum.
    quantum_ms = max(0.0, (100 * numbers["overhead_ms_per_quantum"] - numbers["task_ms"]) / 99)
    bundle_ms = numbers["task_ms"] - quantum_ms
    quantum_ms = max(quantum_ms, numbers["focal_plane_pair_own_ms"])
    client = quanta * (bundle_ms / per_bundle + quantum_ms) / 1e3
    return Times(quanta * PAIR_S / workers + per_bundle * PAIR_S, client, quanta * PAIR_BYTES / STORAGE_BYTES_S)


def predict(numbers: dict[str, float], workers: int, quanta: int) -> dict[str, float]:
    """Seconds of the parts and of the whole."""
    t = times(numbers, workers, quanta)
    return {"seconds": max(vars(t).values()), **{f"{name}_busy_seconds": value for name, value in vars(t).items()}}


def document(numbers: dict[str, float]) -> str:
    """Text of ``docs/scaling.md``."""
    quanta = N_DETECTORS * N_PAIRS
    rows = []
    for workers in (2, 32, 128, 512, 2048):
        t = times(numbers, workers, quanta)
        whole = max(vars(t).values())
        rows.append(
            f"| {workers} | {t.workers:,.0f} | {t.client:,.0f} | {t.storage:,.0f} | {whole:,.0f} | {t.bottleneck} |"
        )
    measured = "\n".join(f"| `{name}` | {value:.4g} |" for name, value in numbers.items() if "predicted" not in name)
    t = times(numbers, 512, quanta)
    return f"""# How campaigns scale

Written by `python -m benchmarks campaign` (which leaves this text in its work directory), on two
cores that others used as well. What is measured and what is assumed is said; nothing was run on 512 workers.

## Measured

| number | value |
|---|---|
{measured}

`overhead_ms_*` and `task_ms` are CPU of the one process that holds client and scheduler. A task of dask costs
{numbers["task_ms"]:.1f} ms there, whatever it does; quanta therefore travel in bundles of up to {dispatch.BUNDLE_MAX}
that take max({dispatch.BUNDLE_S:.0f} s, workers / {dispatch.BUNDLES_PER_S} a second), and {dispatch.IN_FLIGHT} bundles
a thread are submitted at once. `weak_compute_*` uses processes on the cores there are, `weak_dispatch_*` threads that
rest, so that only dispatching can slow them. `client_MiB_*` is the largest memory of the client's process so far,
scheduler included.

## Model

All parts work at once, so a run takes as long as the busiest:

- workers: quanta x {PAIR_S} s / workers, and one bundle until the last worker ends (the time of a pair
  of full-size exposures with `python -m benchmarks ptc`, on one core of the machine that measured the rest);
- client and scheduler: `task_ms` a bundle and `focal_plane_pair_own_ms` a quantum (measured);
- storage: {PAIR_BYTES / 1e6:.0f} MB a pair at {STORAGE_BYTES_S / 1e9:.0f} GB/s for all workers (an **assumption**:
  put your site's number).

## {N_DETECTORS} detectors x {N_PAIRS} pairs = {quanta:,} quanta

| workers | workers busy [s] | client and scheduler busy [s] | storage busy [s] | run [s] | bottleneck |
|---|---|---|---|---|---|
{chr(10).join(rows)}

`focal_plane_*` is the real chain on {N_DETECTORS} detectors with tiny amps: bias, its verification, and the curves of
{len(TIMES_S)} pairs, whose statistics pass through the client as bytes. CPU of the client's process divided by quanta;
of the bias's few, most is fixed cost (planning, registry, record). `idle_percent` of a core goes to heartbeats,
whatever runs.

Not in the model: start of the workers; solving the curves.

On 512 workers the run takes {max(vars(t).values()):.0f} s and the bottleneck is **{t.bottleneck}**.
"""
