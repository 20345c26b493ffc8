"""Hashes of all that the package makes: what a rebuild has left as it was, and what not.

    python -m benchmarks fingerprint --workdir W --out before.json          # with the old code
    python -m benchmarks fingerprint --workdir V --out after.json           # with the new
    python -m benchmarks fingerprint --compare before.json after.json       # exit code 1 if anything differs

A night of TinyCam goes through the whole ``camcal chain``, one full-size detector of LSSTCam through the chain of bias,
dark, flat and ptc.  Every variable below the repositories is hashed, a detector at a time, with dtype, shape, unit and
mask planes; so are the attributes of the datasets, the tables of ``camcal stats``, all that ``camcal export`` can write
and pictures of corrected exposures.  Not hashed: ids, dates, paths, versions, settings and descriptions.

The package is driven through its command line and ``camcal_dask.simulation`` only, and the cubes are read with zarr, so
that one and the same file measures any two checkouts: ``PYTHONPATH=CHECKOUT python benchmarks/fingerprint.py --out F``.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from astropy.io import fits

DAY = 20260812
Names = dict[str, dict[str, Any]]
"""What was hashed: name to ``sha256`` (of each detector), ``dtype``, ``shape``, ``units`` or ``value``."""

IGNORED = {
    "calib_provenance", "candidate_ids", "candidate_provenance", "criteria_hash", "description", "measure_config",
    "provenance_id", "recipe", "software",
}  # fmt: skip
"""Attributes of datasets that are ids, versions, settings or prose; those of the format, ``camcal_*``, too."""
VOLATILE = ("CREATION", "CHECKSUM", "DATASUM", "UUID", "HOST", "SOFTWARE", "PROV", "CALIB_ID", "CALIBDATE")
"""Header cards that hold one of these are not hashed; neither are ``DATE`` and ``COMMENT``."""
EXPORTED = {"ptc", "linearizerPtc", "linearizer"}
"""Dataset types with a FITS layout; what a later layout writes has nothing to be compared with."""
WHOLE_BYTES = 2**28
"""Larger arrays are read shard by shard, and only where a shard was written."""


class Night(NamedTuple):
    """Exposures of one camera and what is made of them."""

    camera: str
    detectors: tuple[int, ...]
    exposures: tuple[Any, ...]
    chain: tuple[str, ...]
    """Arguments of ``camcal chain``."""
    pictures: dict[str, str]
    """Pipeline, whose ISR is applied, to the reason of the exposure that it is applied to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hash what this checkout makes, or compare two such files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fingerprint", description=main.__doc__)
    parser.add_argument("--workdir", type=Path, help="keep the data here; nights that are complete are not made again")
    parser.add_argument("--out", type=Path, help="write the hashes to this file")
    parser.add_argument("--quick", action="store_true", help="biases of one tiny detector: does it run")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="files of two checkouts")
    options = parser.parse_args(arguments)
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in options.compare)
        lines = list(differences(before["names"], after["names"]))
        print("\n".join([*lines, f"{len(lines)} differences in {len(before['names'])} names"]))
        return int(bool(lines))
    with tempfile.TemporaryDirectory(prefix="camcal-fingerprint-") as temporary:
        found = fingerprint((options.workdir or Path(temporary)).resolve(), options.quick)
    for name, entry in found["names"].items():
        print(name, *(f"{key}={value}" for key, value in entry.items()))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return 0


def fingerprint(workdir: Path, quick: bool) -> dict[str, Any]:
    """Make all nights below ``workdir`` and hash them."""
    import camcal_dask

    names: Names = {}
    for night in _quick() if quick else (*_tiny(), *_full_size()):
        folder = workdir / night.camera
        _make(night, folder)
        found = {**cube_names(folder / "repo"), **fits_names(folder / "export"), **text_names(folder / "tables")}
        found |= fits_names(folder / "pictures")
        names |= {f"{night.camera}: {name}": entry for name, entry in found.items()}
    return {"code": str(Path(camcal_dask.__file__).parent), "names": dict(sorted(names.items()))}


# ---------------------------------------------------------------------------- nights


def _tiny() -> Iterator[Night]:
    """A night that all pipelines of the chain find their exposures in."""
    from camcal_dask.simulation import bias_set, dark_set, flat_set, ptc_set, schedule

    off = [e.model_copy(update={"light": 0.0}) for e in flat_set(2, 10.0, DAY)]
    sets = [bias_set(8, DAY, contaminated_first=True), dark_set(6, 30.0, DAY), flat_set(7, 10.0, DAY, reason="sflat")]
    sets += [off, ptc_set(np.geomspace(0.8, 60, 16).tolist(), DAY)]
    exposures = tuple(schedule(itertools.chain.from_iterable(sets), DAY))
    pictures = {"bias": "bias", "dark": "dark", "flat": "sflat"}
    yield Night("TinyCam", (0, 1, 2, 3), exposures, ("--strict",), pictures)


def _full_size() -> Iterator[Night]:
    """As few exposures of one detector as bias, dark, flat, linearizer and ptc can be made of."""
    from camcal_dask.simulation import bias_set, dark_set, flat_set, ptc_set, schedule

    sets = [bias_set(7, DAY, contaminated_first=True), dark_set(4, 30.0, DAY), flat_set(4, 10.0, DAY, reason="sflat")]
    sets += [ptc_set(np.geomspace(1.0, 60, 10).round(3).tolist(), DAY)]
    first = ("biasBootstrap", "darkBootstrap", "flatBootstrap", "defects", "linearizerPtc", "linearizer")
    unverified = ",".join([*first, "dark", "flat"])
    chain = ("-p", ",".join([*first, "ptc", "bias", "dark", "flat"]), "--no-verify", unverified)
    exposures = tuple(schedule(itertools.chain.from_iterable(sets), DAY))
    yield Night("LSSTCam", (94,), exposures, chain, {"flat": "sflat"})


def _quick() -> Iterator[Night]:
    from camcal_dask.simulation import bias_set

    yield Night("TinyCam", (0,), tuple(bias_set(4, DAY)), ("-p", "biasBootstrap"), {"biasBootstrap": "bias"})


def _make(night: Night, folder: Path) -> None:
    """Simulate, ingest and calibrate, and write what can be written, unless that is complete from an earlier run."""
    done = folder / "complete"
    if done.exists():
        return
    if not (folder / "simulated").exists():
        from camcal_dask.simulation import simulate

        simulate(folder / "raw", night.camera, night.exposures, night.detectors)
        (folder / "simulated").touch()
    for made in ("repo", "export", "pictures", "tables"):
        shutil.rmtree(folder / made, ignore_errors=True)
    camcal(folder, "create", "repo", "--instrument", night.camera)
    camcal(folder, "ingest", "repo", "raw", "--cluster", "threads")
    camcal(folder, "chain", "repo", "-o", "u", "--cluster", "threads", *night.chain)
    _write(night, folder)
    done.touch()


def _write(night: Night, folder: Path) -> None:
    """Exports of the products that have a layout, tables of all verifications, pictures of corrected exposures."""
    runs = {path.stem: _run_of(path) for path in _datasets(folder / "repo")}
    for name in sorted(EXPORTED & runs.keys()):
        camcal(folder, "export", "repo", name, f"export/{name}", "-i", runs[name])
    for what in ("tables", "pictures"):
        (folder / what).mkdir(exist_ok=True)
    camcal(folder, "stats", "repo", "--failed", "all", "--format", "csv", "-o", "tables/failed.csv")
    collections = ",".join([*(run for run in runs.values() if run.startswith("u/")), f"{night.camera}/raw/all"])
    for pipeline, reason in night.pictures.items():
        exposure = next(e.key for e in reversed(night.exposures) if e.reason == reason and e.light > 0)
        for detector in sorted({night.detectors[0], night.detectors[-1]}):
            arguments = ("--exposure", exposure, "--detector", detector, "--bin", 1, "-i", collections)
            show = ("show", "repo", "corrected", *arguments, "-o", f"pictures/{pipeline}_{detector}.fits", "-p")
            if not camcal(folder, *show, f"{night.camera}/{pipeline}.yaml", refused=f"{pipeline}.yaml"):
                camcal(folder, *show, pipeline)


def camcal(folder: Path, *arguments: Any, refused: str | None = None) -> bool:
    """Whether a command succeeds in ``folder``; it may fail only if it says ``refused``."""
    command = [sys.executable, "-m", "camcal_dask.cli", *map(str, arguments)]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    with (folder / "log.txt").open("a") as log:
        log.write(f"$ {' '.join(command[2:])}\n{done.stdout}{done.stderr}{time.perf_counter() - begun:.1f} s\n")
    if done.returncode and (refused is None or refused not in done.stdout + done.stderr):
        raise RuntimeError(f"{' '.join(command)} in {folder}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode == 0


# ---------------------------------------------------------------------------- hashes


def digest(values: Any) -> str:
    """Hash of an array: C order, little endian, every NaN the same; strings by their characters."""
    array = np.asarray(values)
    if array.dtype.kind in "OSTU":
        return hashlib.sha256("\0".join(map(str, array.ravel().tolist())).encode()).hexdigest()
    array = np.array(array, array.dtype.newbyteorder("<"), order="C")
    if array.dtype.kind in "fc":
        array[np.isnan(array)] = np.nan
    return hashlib.sha256(array.tobytes()).hexdigest()


def cube_names(repo: Path) -> Names:
    """All variables and attributes of the datasets below a repository."""
    names: Names = {}
    for path in _datasets(repo):
        group = zarr.open_group(str(path), mode="r")
        name = f"{_run_of(path)}/{path.stem}"
        for key, attribute in group.attrs.items():
            if key not in IGNORED and not key.startswith("camcal_"):
                names[f"{name} attribute {key}"] = {"value": _plain(key, attribute)}
        arrays = dict(group.arrays())
        ids = arrays["detector"][...].tolist() if "detector" in arrays else None
        for key, array in arrays.items():
            names[f"{name} variable {key}"] = _variable(array, path / key, ids)
    return names


def _variable(array: zarr.Array[Any], path: Path, ids: list[int] | None) -> dict[str, Any]:
    dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
    axis = dims.index("detector") if "detector" in dims else None
    parts: dict[str, Any] = {}
    if array.nbytes > WHOLE_BYTES:
        parts = _written(array, path, axis)
    elif axis is None:
        parts[""] = digest(array[...])
    else:
        values = np.asarray(array[...])
        parts = {i: digest(np.take(values, i, axis)) for i in range(array.shape[axis])}
    entry = {
        "sha256": {str(ids[part] if ids and part != "" else part): value for part, value in parts.items()},
        "dtype": str(array.dtype),
        "dims": list(dims),
        "shape": list(array.shape),
        "units": array.attrs.get("units"),
    }
    flags = array.attrs.get("flag_meanings")
    return entry | ({"flags": f"{flags} {array.attrs.get('flag_masks')}"} if flags else {})


def _written(array: zarr.Array[Any], path: Path, axis: int | None) -> dict[Any, str]:
    """Hash of all shards that were written, with their places, for each detector."""
    size = array.shards or array.chunks
    if axis is not None and size[axis] != 1:
        raise RuntimeError(f"{path}: shards of {size} hold several detectors")
    hashes: dict[Any, Any] = {}
    places = (tuple(map(int, p.relative_to(path / "c").parts)) for p in (path / "c").rglob("*") if p.is_file())
    for place in sorted(places):
        region = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, size, strict=True))
        part = hashes.setdefault("" if axis is None else place[axis], hashlib.sha256())
        part.update(f"{place} {digest(array[region])}".encode())
    return {key: value.hexdigest() for key, value in hashes.items()}


def _plain(key: str, attribute: Any) -> Any:
    """An attribute without ids and prose."""
    if key == "calibs":
        return {name: sorted(ids) if isinstance(ids, dict) else "" for name, ids in attribute.items()}
    if key == "criteria":
        rules = json.loads(attribute) if isinstance(attribute, str) else attribute
        text = json.dumps([{k: v for k, v in rule.items() if k != "doc"} for rule in rules], sort_keys=True)
        return {"sha256": digest(text), "n": len(rules)}
    if isinstance(attribute, float) and math.isnan(attribute):
        return "nan"
    return attribute


def fits_names(folder: Path) -> Names:
    """Header and data (of tables: every column) of the FITS files below ``folder``."""
    names: Names = {}
    for path in sorted(folder.rglob("*.fits")):
        with fits.open(path) as hdus:
            for index, hdu in enumerate(hdus):
                name = f"{path.relative_to(folder.parent)} [{index}]"
                cards = [f"{c.keyword}={c.value!r}" for c in hdu.header.cards if not _volatile(c.keyword)]
                names[f"{name} header"] = {"sha256": {"": digest(cards)}, "shape": [len(cards)]}
                columns = hdu.columns.names if isinstance(hdu, fits.BinTableHDU) else ()
                data = {c: hdu.data[c] for c in columns} if columns else {"data": hdu.data}
                for key, values in data.items():
                    if values is not None:
                        names[f"{name} {key}"] = _array_entry(np.asarray(values))
    return names


def _array_entry(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {
        "sha256": {"": digest(values)},
        "dtype": str(values.dtype.newbyteorder("=")),
        "shape": list(values.shape),
    }


def _volatile(keyword: str) -> bool:
    return keyword in ("DATE", "COMMENT", "HISTORY", "") or any(part in keyword for part in VOLATILE)


def text_names(folder: Path) -> Names:
    """Tables by their header and their sorted lines."""
    names: Names = {}
    for path in sorted(folder.rglob("*.csv")):
        head, *lines = path.read_text().splitlines() or [""]
        names[f"tables/{path.stem}"] = {"sha256": {"": digest(sorted(lines))}, "dims": head, "shape": [len(lines)]}
    return names


def _datasets(repo: Path) -> list[Path]:
    return sorted(repo.rglob("*.zarr"))


def _run_of(path: Path) -> str:
    """RUN of a dataset, ``u/bias`` of ``REPO/cubes/u/bias/bias.zarr``."""
    parts = path.parent.parts
    return "/".join(parts[len(parts) - parts[::-1].index("cubes") :])


# ---------------------------------------------------------------------------- comparison


def differences(before: Names, after: Names) -> Iterator[str]:
    """A line for each name that is gone, new or changed."""
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"gone     {name}"
        elif name not in before:
            yield f"new      {name}"
        elif before[name] != after[name]:
            yield f"changed  {name}: {'; '.join(_changes(before[name], after[name]))}"


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key == "sha256":
            parts = sorted(part for part in old.keys() | new.keys() if old.get(part) != new.get(part))
            yield "values" + (f" of detector {', '.join(parts)}" if parts != [""] else "")
        else:
            yield f"{key} {old} -> {new}"


if __name__ == "__main__":
    sys.exit(main())
