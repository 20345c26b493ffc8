"""``camcal demo``: the main job on simulated full-size detectors, measured against the truth."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from camcal_dask.campaign.plan import make_plan
from camcal_dask.campaign.recipe import load_recipe
from camcal_dask.campaign.run import Outcome, execute
from camcal_dask.campaign.simulation import simulate_on
from camcal_dask.campaign.workers import Profile, connect
from camcal_dask.errors import ConfigError, RunError
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.kernels.moments import clip_statistics, clipped_mean_stack
from camcal_dask.repo.ingest import find_files, ingest
from camcal_dask.repo.registry import Repo, create_repo
from camcal_dask.simulate import Truth, bias_set, load_truth

if TYPE_CHECKING:
    from distributed import Client

INSTRUMENT = "LSSTCam"
DETECTORS = (94, 9)
"""R22_S11 (E2V, the centre of the focal plane) and R02_S00 (ITL)."""
DAY_OBS = 20260812
FAULTS = {"dead": [94, "C12"], "noisy": [9, "C05"]}
"""A broken amp on each detector, for the verification to find."""
RUN, VERIFY_RUN, CALIB = "demo/bias", "demo/bias.verify", "demo/calib"
SKIPPED = 6
"""Overscan pixels of a line that are not used (3 at each end)."""
MARKER = "made-by-camcal-demo"


def run_demo(folder: Path, exposures: int, profile: Profile, *, fresh: bool, console: Console) -> None:
    """Simulate, ingest, build, verify, certify, look up; print a summary.

    Parameters
    ----------
    folder : Path
        Where everything goes; a second run continues from what is there.
    exposures : int
        Good biases; one contaminated bias comes first.
    profile : Profile
        The workers.
    fresh : bool
        Remove an earlier demo first.
    console : Console
        Where to print.

    Raises
    ------
    ConfigError
        If ``folder`` holds something that is not a demo.
    """
    begun = time.perf_counter()
    _prepare(folder, fresh)
    raw_folder, root = folder / "raw", folder / "repo"
    with connect(profile) as client, create_repo(str(root), INSTRUMENT) as repo:
        console.print(f"{profile.n_workers()} workers, dashboard {client.dashboard_link}")
        _simulate(client, raw_folder, exposures, console)
        _ingest(client, repo, raw_folder, console)
        first = DAY_OBS * 100_000 + 1
        where = f"exposure.day_obs = {DAY_OBS}"
        _run(client, repo, "bias", [f"{INSTRUMENT}/raw/all"], RUN, f"{where} AND exposure.seq_num > 1", console)
        verified = _run(client, repo, "verifyBias", [RUN, f"{INSTRUMENT}/raw/all"], VERIFY_RUN, where, console)
        repo.certify(RUN, "bias", CALIB, begin=DAY_OBS)
        found = {d: repo.find_calib("bias", first + 1, d, CALIB) for d in DETECTORS}
        looked_up = repo.butler.get(
            "bias", instrument=INSTRUMENT, exposure=first + 1, detector=DETECTORS[0], collections=CALIB
        )
        console.rule("against the simulated truth")
        console.print(_against_truth(repo, load_truth(raw_folder)))
        console.rule("summary")
        console.print(verified.text(), soft_wrap=True)
        lines = {
            "raw files": str(raw_folder),
            "repository": repo.root,
            "combined bias": f"{RUN} (RUN), {found[DETECTORS[0]].uri}",
            "statistics": f"{VERIFY_RUN} (RUN), {verified.uri}",
            "certified": f"bias in {CALIB}, valid from day_obs {DAY_OBS} on",
            "looked up": f"bias of exposure {first + 1} -> {found[DETECTORS[0]].run}, "
            f"a lazy Dataset of {dict(looked_up.sizes)} [{looked_up['image'].attrs['units']}]",
            "time": f"{time.perf_counter() - begun:.0f} s",
        }
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, value in lines.items():
            table.add_row(name, value.replace("[", r"\["))
        console.print(table)


def _prepare(folder: Path, fresh: bool) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise ConfigError(f"{folder} is not empty and holds no demo; name another folder: camcal demo FOLDER")
    if fresh and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _simulate(client: Client, folder: Path, exposures: int, console: Console) -> None:
    specs = bias_set(exposures + 1, DAY_OBS, contaminated_first=True)
    if folder.exists() and len(list(folder.glob("*/*.fits"))) == len(specs) * len(DETECTORS):
        console.print("simulate   files are there from an earlier run")
        return
    overrides = [f"faults.{kind}=[{amp}]" for kind, amp in FAULTS.items()]
    with _progress(console) as bar:
        task = bar.add_task("simulate", total=len(DETECTORS) * (len(specs) + 1))
        simulate_on(client, folder, INSTRUMENT, specs, DETECTORS, overrides, progress=lambda _: bar.advance(task))


def _ingest(client: Client, repo: Repo, folder: Path, console: Console) -> None:
    files = find_files([str(folder)])
    with _progress(console) as bar:
        task = bar.add_task("ingest", total=len(files))
        summary = ingest(repo, files, client=client, progress=lambda _: bar.advance(task))
    console.print(summary.text())


def _run(
    client: Client, repo: Repo, pipeline: str, inputs: list[str], output: str, where: str, console: Console
) -> Outcome:
    plan = make_plan(repo, load_recipe(f"{INSTRUMENT}/{pipeline}.yaml"), inputs=inputs, output=output, where=where)
    with _progress(console) as bar:
        task = bar.add_task(pipeline, total=len(plan.detectors))
        outcome = execute(repo, plan, client, progress=lambda _: bar.advance(task))
    if outcome.failed:
        raise RunError(outcome.text())
    return outcome


def _against_truth(repo: Repo, truth: Truth) -> Table:
    """Compare bias and read noise with what was simulated."""
    camera = get_instrument(INSTRUMENT)
    table = Table(
        title="Medians over the good amps. Pull: what is left after subtracting the true pattern,\n"
        "over what noise explains. A 3-sigma clip measures 0.987 of a Gaussian read noise.",
        title_justify="left",
        box=None,
    )
    for name in ("detector", "vendor", "pattern", "left in bias", "expected", "pull", "read noise/truth"):
        table.add_column(name, justify="right", no_wrap=True)
    for detector in DETECTORS:
        table.add_row(*_detector_row(repo, truth, camera, detector))
    return table


def _detector_row(repo: Repo, truth: Truth, camera: Instrument, detector: int) -> list[str]:
    bad = {amp for number, amp in FAULTS.values() if number == detector}
    bias = repo.open("bias", run=RUN, detector=detector).isel(detector=0)
    statistics = repo.open("verifyBias", run=VERIFY_RUN).sel(detector=detector)
    known = truth.detector(detector)
    n_input = len(bias.attrs["exposures"])
    injected, left, expected, ratio = [], [], [], []
    for amp in camera.detector(detector).amps:
        if amp.name in bad:
            continue
        box = (slice(0, amp.data.height), slice(0, amp.data.width))
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
        camera.detector(detector).name,
        camera.detector(detector).vendor,
        e(np.median(injected)),
        e(np.median(left)),
        e(np.median(expected)),
        f"{np.median(np.divide(left, expected)):.3f}",
        f"{np.median(ratio):.4f}",
    ]


def _scatter(values: np.ndarray) -> float:
    return float(clip_statistics(np.ravel(values), sigma=5.0, iterations=3).stdev)


def _expected(noise_e: float, n: int, width_serial: int, width_parallel: int) -> float:
    """Scatter of the mean of N biases [electron]: read noise, two overscan medians, the loss by clipping.

    The median of n Gaussian values has pi / 2n of their variance; the loss of the clipped mean is
    that of the estimator on pure noise.
    """
    overscan = 1 + np.pi / 2 * (1 / width_serial + 1 / width_parallel)
    noise = np.random.default_rng(1).standard_normal((n, 100_000), dtype=np.float32)
    loss = float(np.std(clipped_mean_stack(noise, None, sigma=3.0, iterations=3).mean)) * np.sqrt(n)
    return float(noise_e * loss * np.sqrt(overscan / n))
