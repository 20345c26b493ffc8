"""``camcal report``: write the pages of a RUN into a folder that needs nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from importlib.resources import files as resources
from pathlib import Path

import numpy as np
import xarray as xr

from camcal_dask.config import expanded
from camcal_dask.errors import ConfigError, RepoError, RunError
from camcal_dask.instruments import Detector
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.naming import check_collection
from camcal_dask.report.content.data import page_data, script
from camcal_dask.report.content.layout import Layout, make_layout
from camcal_dask.report.content.quantities import nan_median, quantities
from camcal_dask.report.content.subject import Subject, load_subject
from camcal_dask.report.figures import curves, images
from camcal_dask.report.figures.png import grey, write_png, zscale
from camcal_dask.report.pages.detail_pages import detector_page, raft_page
from camcal_dask.report.pages.failures import Found, find
from camcal_dask.report.pages.index_page import index_page
from camcal_dask.report.pages.run_page import Report

_ASSETS = ("report.css", "report.js")
_PARTS = ("assets", "detectors", "rafts", "images")
_MOST_EXPOSURES = 6
"""Exposures that get a residual mosaic of their own."""


def default_folder(run: str) -> Path:
    """Folder of a report if none is named."""
    return Path("camcal-report") / check_collection(run).replace("/", ".")


def write_report(
    repo: Repo, run: str, folder: Path, dataset_type: str | None = None, instrument: str | None = None
) -> Path:
    """Write the report of a RUN; return its first page.

    Parameters
    ----------
    repo : Repo
    run : str
        Of a calibration or of a verification.
    folder : Path
        Made if needed; an earlier report in it is replaced.
    dataset_type : str, optional
        If the RUN holds several.
    instrument : str, optional
        If a chain holds products of several cameras.

    Raises
    ------
    ConfigError
        If ``folder`` holds something else.
    RunError
        If it cannot be written.
    RepoError
        If the RUN holds nothing to report on.
    """
    folder = Path(expanded(folder))
    return write_pages(load_subject(repo, run, dataset_type, instrument), folder)


def write_pages(subject: Subject, folder: Path) -> Path:
    """Write the pages about a subject, aside first: a report that fails leaves what was there; see `write_report`."""
    new = not folder.exists()
    there = [] if new else [path for path in folder.iterdir() if not path.name.startswith(".report.")]
    if there and not (folder / "assets" / _ASSETS[1]).exists():
        raise ConfigError(f"{folder} is not empty, and not a report; name another folder with -o")
    try:
        with files.staging(folder / "report") as stage:
            _write_pages(subject, stage)
            for part in _PARTS:
                shutil.rmtree(folder / part, ignore_errors=True)
            for made in list(stage.iterdir()):
                made.replace(folder / made.name)
    except OSError as error:
        raise RunError(
            f"{folder}: the report cannot be written ({error}); correct that, or choose another folder with -o"
        ) from error
    finally:
        if new and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    return folder / "index.html"


def _write_pages(subject: Subject, folder: Path) -> None:
    for part in _PARTS:
        (folder / part).mkdir()
    camera = subject.instrument
    unknown = [d for d in subject.detectors if d not in camera.detectors]
    if unknown:
        raise RepoError(f"{subject.run}: {camera.name} has no detectors {unknown}")
    detectors = [camera.detectors[d] for d in subject.detectors]
    layout = make_layout(detectors)
    found = find(subject.verdict) if subject.verdict is not None and subject.judged else None
    measured = quantities(subject.verdict, subject.product)
    pictures, of_detectors = _draw(subject, detectors, layout, found, folder / "images")
    report = Report(subject, detectors, layout, measured, found, pictures, of_detectors)
    (folder / "data.js").write_text(script(page_data(detectors, layout, measured, subject.verdict)))
    for name in _ASSETS:
        (folder / "assets" / name).write_text(resources("camcal_dask.report").joinpath("assets", name).read_text())
    if found is not None:
        found.table.to_csv(folder / "failures.csv", index=False)
    loaded = curves.load(subject.product)
    for position, detector in enumerate(detectors):
        page = detector_page(report, position, curves.charts(loaded, detector))
        (folder / "detectors" / f"{detector.full_name}.html").write_text(page)
    for raft in report.rafts:
        (folder / "rafts" / f"{raft}.html").write_text(raft_page(report, raft))
    (folder / "index.html").write_text(index_page(report))


# ---------------------------------------------------------------------------- pictures


def _draw(
    subject: Subject, detectors: Sequence[Detector], layout: Layout, found: Found | None, folder: Path
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Write all pictures; captions by file name, of the mosaics and of every detector."""
    mosaics: dict[str, str] = {}
    single: dict[str, dict[str, str]] = {d.full_name: {} for d in detectors}
    if subject.product is not None:
        product = subject.product.sel(detector=np.isin(subject.product["detector"].values, subject.detectors))
        pictures = images.product_images(product, subject.instrument)
        unit = images.pixel_unit(product)
        kind = str(product.attrs.get("description", "calibration"))
        _write(folder, "product", f"{kind} [{unit}]", pictures, (detectors, layout), mosaics, single)
    for key, caption, binned in _residuals(subject.verdict, found):
        pictures = images.residual_images(binned, subject.instrument)
        every = single if key == "residual" else {}
        _write(folder, key, caption, pictures, (detectors, layout), mosaics, every)
    return mosaics, single


def _write(
    folder: Path,
    key: str,
    caption: str,
    pictures: dict[int, images.Image],
    place: tuple[Sequence[Detector], Layout],
    mosaics: dict[str, str],
    single: dict[str, dict[str, str]],
) -> None:
    detectors, layout = place
    if not pictures:
        return
    whole = images.mosaic(pictures, detectors, layout)
    limits = zscale(whole)
    write_png(folder / f"{key}.png", grey(whole, limits))
    mosaics[f"{key}.png"] = f"{caption}, black {limits[0]:.4g}, white {limits[1]:.4g}"
    for detector in detectors:
        picture = pictures.get(detector.id)
        if picture is None or detector.full_name not in single:
            continue
        name, limits = f"{key}-{detector.full_name}.png", zscale(picture)
        write_png(folder / name, grey(picture, limits))
        single[detector.full_name][name] = f"{caption}, black {limits[0]:.4g}, white {limits[1]:.4g}"


def _residuals(verdict: xr.Dataset | None, found: Found | None) -> Iterable[tuple[str, str, xr.DataArray]]:
    """Residual maps: median of the good exposures, the first and last of them, and bad ones."""
    if verdict is None or "residual_binned" not in verdict:
        return
    binned, unit = verdict["residual_binned"], verdict.attrs.get("units", "")
    bad = {e.exposure for e in found.exposures} if found is not None else set()
    ids = [int(e) for e in verdict["exposure"].values]
    good = [i for i, e in enumerate(ids) if e not in bad] or list(range(len(ids)))
    stack = binned.isel(exposure=good).transpose("exposure", ...)
    yield (
        "residual",
        f"residual, median of {len(good)} exposures [{unit}]",
        stack[0].copy(data=nan_median(stack.values)),
    )
    chosen = list(dict.fromkeys([good[0], good[-1], *(i for i, e in enumerate(ids) if e in bad)]))
    for i in chosen[:_MOST_EXPOSURES]:
        remark = " (bad)" if ids[i] in bad else ""
        yield f"residual-{ids[i]}", f"residual of exposure {ids[i]}{remark} [{unit}]", binned.isel(exposure=i)
