"""Absolute paths of early repositories are made relative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from lsst.daf.butler import DatasetRef

from camcal_dask.repo.butler import arranging, finding, opened, registering
from camcal_dask.repo.butler.opened import Opened
from camcal_dask.repo.formatter import ANCHOR, cube_uri, here
from camcal_dask.repo.storage import files


def make_relative(repo: Opened) -> int:
    """Bring a repository up to date in which absolute paths are stored; return how many datasets it was.

    Ids and certifications stay.  What lies outside, or is not there, is left as it is.
    """
    count = 0
    for run in (c.name for c in arranging.collections(repo, kind="RUN")):
        for name in finding.types_in(repo, run):
            groups: dict[str, list[DatasetRef]] = {}
            refs = finding.references(repo, name, run)
            uris = repo.butler.get_many_uris(refs)
            for ref in refs:
                path = uris[ref].primaryURI
                if str(path).endswith(ANCHOR):
                    continue
                uri = here(repo.root, cube_uri(path), run)
                if uri.startswith(f"{repo.root}/") and files.exists(uri):
                    of_exposures = uri.endswith(".json") and "exposure" in ref.dataId
                    groups.setdefault(files.parent(uri) if of_exposures else uri, []).append(ref)
            if groups:
                count += opened.patiently(repo, partial(_restore, repo, name, run, groups), f"paths of {name} in {run}")
    return count


def _restore(repo: Opened, name: str, run: str, groups: Mapping[str, Sequence[DatasetRef]]) -> int:
    refs = [ref for group in groups.values() for ref in group]
    with repo.butler.transaction():
        repo.butler.pruneDatasets(refs, disassociate=False, unstore=True, purge=False)
        registering.ingest(
            repo, name, run, {uri: [dict(ref.dataId.required) for ref in group] for uri, group in groups.items()}
        )
    return len(refs)
