"""``camcal demo``: the main job on simulated full-size detectors, measured against the truth."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from camcal_dask.campaign.chain import Chain, ChainSettings
from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.campaign.simulation import simulate_on
from camcal_dask.demo.truth import bias_table, lines
from camcal_dask.errors import ConfigError
from camcal_dask.instruments import get_instrument
from camcal_dask.progress import bar
from camcal_dask.repo.butler.repository import Repo, create_repo
from camcal_dask.repo.butler.signoff import approve, certify
from camcal_dask.repo.incoming.ingest import find_files, ingest
from camcal_dask.report.pages.build import write_report
from camcal_dask.simulation import bias_set, dark_set, flat_set, load_truth, schedule

if TYPE_CHECKING:
    from distributed import Client

INSTRUMENT = "LSSTCam"
DETECTORS = (94, 9)
"""R22_S11 (E2V, the centre of the focal plane) and R02_S00 (ITL)."""
DAY_OBS = 20260812
FAULTS = {"dead": (94, "C12"), "noisy": (9, "C05")}
"""A broken amp on each detector: known to be bad, so measured, shown and not judged."""
PREFIX, CALIB = "demo", "demo/calib"
PIPELINES = ("biasBootstrap", "darkBootstrap", "flatBootstrap", "defects", "bias", "dark", "flat")
N_DARK, DARK_S = 6, 60.0
N_FLAT, FLAT_S, FILTER = 6, 10.0, "r_57"
"""Of these sets the first exposure is left out, as of the biases."""
MARKER = "made-by-camcal-demo"


def run_demo(folder: Path, exposures: int, profile: Profile, *, fresh: bool, console: Console) -> None:
    """Simulate, ingest, run the chain with its verifications, certify, look up; print a summary.

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
        bootstrap = tuple(name for name in PIPELINES if name.endswith("Bootstrap"))  # time is short in a demo
        settings = ChainSettings(
            PREFIX, where=f"exposure.day_obs = {DAY_OBS}", unverified=bootstrap, overrides=tuple(_known_bad())
        )
        steps = Chain(repo, client, settings, lambda line: _plain(console, line), partial(bar, console))
        steps.run(PIPELINES)
        faults = ", ".join(f"{kind} {number} {amp}" for kind, (number, amp) in FAULTS.items())
        for name, run in (("bias", "bias"), ("dark", "dark"), ("flat", f"flat/{FILTER}"), ("defects", "defects")):
            approve(repo, f"{PREFIX}/{run}", "camcal demo", override=f"the faults {faults} were simulated on purpose")
            certify(repo, f"{PREFIX}/{run}", name, CALIB, DAY_OBS, by="camcal demo")
        console.rule("against the simulated truth")
        bad_amps = {number: {amp} for number, amp in FAULTS.values()}
        truth = load_truth(raw_folder)
        console.print(bias_table(repo, truth, PREFIX, bad_amps))
        for name, text in lines(repo, truth, PREFIX, FILTER, bad_amps):
            _plain(console, f"{name:16} {text}")
        console.rule("summary")
        for name, text in _summary(repo, raw_folder):  # no table: it would cut the paths, which people copy
            _plain(console, f"{name:14} {text}")
        _plain(console, f"{'time':14} {time.perf_counter() - begun:.0f} s")


def _known_bad() -> Iterator[str]:
    """Settings that tell the verifications which amps are broken, as a camera's list does."""
    detectors = get_instrument(INSTRUMENT).detectors
    amps = ", ".join(f"[{detectors[number].full_name}, {amp}]" for number, amp in FAULTS.values())
    yield from (f"verify{kind}:verify.known_bad=[{amps}]" for kind in ("Bias", "Dark", "Flat", "Defects"))


def _summary(repo: Repo, raw_folder: Path) -> Iterator[tuple[str, str]]:
    exposure, detector = DAY_OBS * 100_000 + 2, DETECTORS[0]
    found = repo.find_calib("bias", exposure, detector, CALIB)
    dataset = repo.butler.get("bias", instrument=INSTRUMENT, exposure=exposure, detector=detector, collections=CALIB)
    yield "raw files", str(raw_folder.resolve())
    yield "repository", repo.root
    yield "products", f"{PREFIX}/<product> (RUN), {found.uri}"
    yield "statistics", f"{PREFIX}/<product>.verify (RUN)"
    yield "certified", f"bias, dark, flat, defects in {CALIB}, valid from day_obs {DAY_OBS} on"
    looked_up = f"a lazy Dataset of {dict(dataset.sizes)} [{dataset['image'].attrs['units']}]"
    yield "looked up", f"bias of exposure {exposure} -> {found.run}, {looked_up}"
    yield "report", write_report(repo, f"{PREFIX}/bias", raw_folder.parent / "report").resolve().as_uri()
    yield "dashboard", f"camcal dashboard {repo.root}"


def _plain(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _prepare(folder: Path, fresh: bool) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise ConfigError(f"{folder} is not empty, and not a demo; name another folder: camcal demo FOLDER")
    if fresh and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def _simulate(client: Client, folder: Path, exposures: int, console: Console) -> None:
    sets = (
        bias_set(exposures + 1, DAY_OBS, contaminated_first=True),
        dark_set(N_DARK, DARK_S, DAY_OBS),
        flat_set(N_FLAT, FLAT_S, DAY_OBS, physical_filter=FILTER),
    )
    specs = list(schedule(chain.from_iterable(sets), DAY_OBS))
    if folder.exists() and len(list(folder.glob("*/*.fits"))) == len(specs) * len(DETECTORS):
        console.print("simulate   files are there from an earlier run")
        return
    overrides = [f"faults.{kind}=[{list(amp)}]" for kind, amp in FAULTS.items()]
    with bar(console, "simulate", len(DETECTORS) * (len(specs) + 1)) as advance:
        simulate_on(client, folder, INSTRUMENT, specs, DETECTORS, overrides, progress=lambda _: advance(""))


def _ingest(client: Client, repo: Repo, folder: Path, console: Console) -> None:
    files = find_files([str(folder)])
    with bar(console, "ingest", len(files)) as advance:
        summary = ingest(repo, files, client=client, progress=lambda _: advance(""))
    console.print(summary.text())
