"""Which flats of a selection are pairs, and what is known of their light besides the pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from camcal_dask.calibs.ptc.pairs import Pairs, pair_exposures
from camcal_dask.calibs.ptc.recipe import PtcRecipe
from camcal_dask.errors import PlanError
from camcal_dask.repo.cubes import raw as cubes

if TYPE_CHECKING:  # workers unpickle a plan, and they have no use for the Butler
    from camcal_dask.repo.butler.repository import Repo


@dataclass(frozen=True)
class Paired:
    """Pairs of a run, photodiode charge (exposure) [C] and header values (exposure) by keyword."""

    pairs: Pairs
    photo_charge: xr.DataArray
    aux: Mapping[str, xr.DataArray]

    def digest(self) -> str:
        """Hash of all values, for the provenance: a reading ingested later makes another product."""
        values = [self.photo_charge.values.tolist(), *(v.values.tolist() for v in self.aux.values())]
        return hashlib.sha256(repr((self.pairs.pairs, values)).encode()).hexdigest()[:16]


def find_pairs(repo: Repo, recipe: PtcRecipe, raws: xr.DataArray) -> Paired:
    """Pair the selected flats.

    Raises
    ------
    PlanError
        If there is no pair, saying why.
    """
    rule, ids = recipe.pairing, [int(e) for e in raws["exposure"].values]
    charge = repo.photodiode(ids, recipe.photodiode.method, scale=recipe.photodiode.scale, instrument=recipe.instrument)
    keywords = [*recipe.aux, *([rule.flux] if rule.mode == "flux" and rule.flux != "photodiode" else [])]
    values = header_values(repo, raws, keywords)
    flux = None
    if rule.mode == "flux":
        flux = charge.values if rule.flux == "photodiode" else _numbers(values[rule.flux])
    found = pair_exposures(
        ids, exposure_time=raws["exposure_time"].values, flux=flux, mode=rule.mode, tolerance=rule.tolerance
    )
    if not found.pairs:
        raise PlanError(
            f"{recipe.product}: {len(ids)} flats and not a single pair among them (pairing.mode={rule.mode}): "
            f"{found.text()}"
        )
    return Paired(found.every(recipe.stride), charge, {name: values[name] for name in recipe.aux})


def header_values(repo: Repo, raws: xr.DataArray, keywords: Sequence[str]) -> dict[str, xr.DataArray]:
    """Header values of every exposure, from the first detector that has it; numbers, or text (unknown: NaN, "")."""
    exposures = raws["exposure"].values if keywords else ()
    headers = cubes.headers(repo.root, raws.attrs["instrument"], exposures, raws["detector"].values)
    rows: list[Mapping[str, Any]] = [header or {} for header in headers.values()]
    return {name: _column([row.get(name) for row in rows], raws) for name in keywords}


def _column(values: Sequence[Any], raws: xr.DataArray) -> xr.DataArray:
    text = any(isinstance(v, str) for v in values)
    filled = (
        ["" if v is None else str(v) for v in values] if text else [np.nan if v is None else float(v) for v in values]
    )
    return xr.DataArray(np.array(filled), {"exposure": raws["exposure"].values}, ("exposure",))


def _numbers(values: xr.DataArray) -> Any:
    """Values as numbers that are equal when they are; text by its place among the sorted texts."""
    if values.dtype.kind == "f":
        return values.values
    codes = np.unique(values.values, return_inverse=True)[1].astype(np.float64)
    return np.where(values.values == "", np.nan, codes)
